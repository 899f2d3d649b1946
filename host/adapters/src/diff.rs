//! What differs between two adapters.

use graft_graph::Tensor;
use indexmap::{IndexMap, IndexSet};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::stored::{ParamKey, StoredAdapter};

/// A setting that two adapters have differently; a side that lacks it has null.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SettingDiff {
    /// Its place, such as `method.r` or `peft.lora_alpha`.
    pub name: String,
    /// The first one's.
    pub a: Value,
    /// The second one's.
    pub b: Value,
}

/// The tensors of a module that both adapters have in the same shapes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModuleDiff {
    /// The module's path; `head` for the objective's layers.
    pub module: String,
    /// Numbers in its tensors.
    pub parameters: usize,
    /// `‖a − b‖ / max(‖a‖, ‖b‖)` over all its tensors together (Euclidean norms); 0 where both are zero, at most 2.
    pub relative: f64,
    /// The largest difference of two numbers.
    pub largest: f64,
}

/// A tensor that the adapters have in different shapes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ShapeDiff {
    /// Its name.
    pub tensor: String,
    /// The first one's shape.
    pub a: Vec<usize>,
    /// The second one's shape.
    pub b: Vec<usize>,
}

/// What differs between two adapters.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AdapterDiff {
    /// Settings that differ.
    pub settings: Vec<SettingDiff>,
    /// Tensors that only the first one has.
    pub only_a: Vec<String>,
    /// Tensors that only the second one has.
    pub only_b: Vec<String>,
    /// Tensors of different shapes.
    pub shapes: Vec<ShapeDiff>,
    /// Modules whose tensors could be compared, those that differ most first.
    pub modules: Vec<ModuleDiff>,
}

impl AdapterDiff {
    /// True where settings and tensors are the same.
    pub fn is_empty(&self) -> bool {
        let tensors = self.only_a.is_empty() && self.only_b.is_empty() && self.shapes.is_empty();
        self.settings.is_empty() && tensors && self.modules.iter().all(|m| m.largest == 0.0)
    }
}

/// Compares the settings and the tensors of two adapters. Where and when they were trained is not compared.
///
/// # Errors
/// [`Error::Json`] when settings can't be written as JSON.
pub fn diff(a: &StoredAdapter, b: &StoredAdapter) -> Result<AdapterDiff> {
    let (mine, other) = (settings(a)?, settings(b)?);
    let names: IndexSet<&String> = mine.keys().chain(other.keys()).collect();
    let value = |of: &IndexMap<String, Value>, name: &String| of.get(name).cloned().unwrap_or_default();
    let settings = names.into_iter().filter(|n| value(&mine, n) != value(&other, n));
    let settings =
        settings.map(|n| SettingDiff { name: n.clone(), a: value(&mine, n), b: value(&other, n) }).collect();
    let (mine, other) = (tensors(a), tensors(b));
    let only = |of: &Named<'_>, not: &Named<'_>| -> Vec<String> {
        of.keys().filter(|k| !not.contains_key(*k)).map(ToString::to_string).collect()
    };
    let (mut shapes, mut modules) = (Vec::new(), IndexMap::<&str, Sums>::new());
    for (key, x) in &mine {
        let Some(y) = other.get(key) else { continue };
        if x.shape() == y.shape() {
            modules.entry(&key.path).or_default().add(x, y);
        } else {
            let (a, b) = (x.shape().to_vec(), y.shape().to_vec());
            shapes.push(ShapeDiff { tensor: key.to_string(), a, b });
        }
    }
    let mut modules: Vec<ModuleDiff> = modules.into_iter().map(|(path, s)| s.finish(path)).collect();
    modules.sort_by(|x, y| y.relative.total_cmp(&x.relative));
    Ok(AdapterDiff { settings, only_a: only(&mine, &other), only_b: only(&other, &mine), shapes, modules })
}

type Named<'a> = IndexMap<ParamKey, &'a Tensor>;

/// Parameters and head by module and name.
fn tensors(adapter: &StoredAdapter) -> Named<'_> {
    let head = adapter.head.iter().flat_map(|h| &h.tensors).map(|(n, t)| (ParamKey::new("head", n), t));
    adapter.parameters.iter().map(|(k, t)| (k.clone(), t)).chain(head).collect()
}

/// Settings by their place: those in PEFT's terms, those of the plugins, the labels and the base.
fn settings(adapter: &StoredAdapter) -> Result<IndexMap<String, Value>> {
    let mut all = Map::new();
    if let Some(peft) = &adapter.peft {
        let path = adapter.dir.join(crate::CONFIG_FILE);
        let read = serde_json::from_slice(&peft.to_json()?);
        all.insert("peft".into(), read.map_err(|e| Error::Json { path, reason: e.to_string() })?);
    }
    if let Some(g) = &adapter.graft {
        let part = |id: &str, config: &Map<String, Value>| {
            let mut part = config.clone();
            part.insert("id".into(), json!(id));
            Value::Object(part)
        };
        all.insert("method".into(), part(&g.method.id, &g.method.config));
        let mut objective = part(&g.objective.id, &g.objective.config);
        objective["labels"] = json!(g.objective.labels);
        all.insert("objective".into(), objective);
        all.insert("base".into(), json!({ "digest": g.base.digest, "name": g.base.name }));
    }
    let mut flat = IndexMap::new();
    for (part, settings) in all {
        for (name, value) in settings.as_object().into_iter().flatten() {
            flat.insert(format!("{part}.{name}"), value.clone());
        }
    }
    Ok(flat)
}

/// Squared norms, summed up over the tensors of a module.
#[derive(Default)]
struct Sums {
    count: usize,
    a: f64,
    b: f64,
    difference: f64,
    largest: f64,
}

impl Sums {
    fn add(&mut self, x: &Tensor, y: &Tensor) {
        // Tensors of an adapter are floating point, which `load` has checked.
        let (x, y) = (x.to_f64s().unwrap_or_default(), y.to_f64s().unwrap_or_default());
        self.count += x.len();
        for (x, y) in x.iter().zip(&y) {
            let d = (x - y).abs();
            self.a += x * x;
            self.b += y * y;
            self.difference += d * d;
            self.largest = self.largest.max(d);
        }
    }

    fn finish(self, module: &str) -> ModuleDiff {
        let scale = self.a.max(self.b).sqrt();
        let relative = if scale == 0.0 { 0.0 } else { self.difference.sqrt() / scale };
        ModuleDiff { module: module.to_string(), parameters: self.count, relative, largest: self.largest }
    }
}
