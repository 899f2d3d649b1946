//! Fused and split projections: an adapter of `q_proj`, `k_proj` and `v_proj` on a base that has them in one `c_attn`, and
//! the other way round. Where the arithmetic is exact, the tensors are rewritten; where it is not, the reason is said.
//!
//! With `y = W x` cut into the pieces `y₁ … yₙ`, the split layers are the rows of `W`. So split updates `sᵢ Bᵢ Aᵢ` of ranks
//! `rᵢ` are a fused one of rank `Σ rᵢ`, whose `A` has the `Aᵢ` below each other and whose `B` has the `Bᵢ` on its diagonal;
//! and a fused update is split ones that share `A`, with the rows of `B`. What belongs to an output (DoRA's magnitudes,
//! biases, the vectors of (IA)³) is laid end to end, or cut.

mod ia3;
mod lora;
mod names;
#[cfg(test)]
mod tests;

use std::collections::HashSet;

use graft_graph::Tensor;
use graft_graph::sites::{Part, Piece};
use indexmap::{IndexMap, IndexSet};

use self::names::Change;
use crate::error::{Error, Result};
use crate::peft::PeftConfig;
use crate::stored::{ParamKey, Parameters, StoredAdapter};

/// A linear layer of a base, as far as it matters here.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Its path.
    pub path: String,
    /// Width of its output.
    pub out_features: usize,
    /// What the base cuts its output into, where it does.
    pub pieces: Option<Vec<Piece>>,
}

/// What a base has itself at the outputs of a layer, by the layer's path and the name of what would be trained there:
/// its `bias`, or for `lora_magnitude_vector` the norms of its weight's rows. `None` where it has none, or none that can be
/// read.
pub type Own<'a> = &'a dyn Fn(&str, &str) -> Option<Vec<f64>>;

/// An adapter with the projections of a base.
#[derive(Debug, Clone)]
pub struct Projected {
    /// The adapter.
    pub adapter: StoredAdapter,
    /// What was done, in words, a line for each kind of projection.
    pub done: Vec<String>,
}

/// Modules of one parent that become others: their paths in the adapter, and the widths of the split ones' outputs.
struct Group {
    change: Change,
    /// Paths of all split modules in the order of their rows, whether or not the adapter has them.
    split: Vec<String>,
    fused: String,
    widths: Vec<usize>,
    /// The fused layer's path in the base, where that has it.
    place: String,
}

/// What one module has: its tensors by name.
type Module = IndexMap<String, Tensor>;

/// Writes the adapter for the projections that a base has. `modules` are the paths of all its modules, `layers` its linear
/// ones, `own` what they have themselves. `None` where the adapter fits as it is, or where fusing and splitting would not make it fit either.
///
/// # Errors
/// [`Error::Projections`] where the base has the same projections fused or split, and the adapter has no equal there;
/// [`Error::Shape`] for tensors that are not as wide as the base's layers.
pub fn project(
    adapter: &StoredAdapter,
    modules: &[String],
    layers: &[Layer],
    own: Own<'_>,
) -> Result<Option<Projected>> {
    let known = matches!(adapter.peft, Some(PeftConfig::Lora(_) | PeftConfig::Ia3(_)));
    if !known || adapter.paths().is_empty() || adapter.sites_in(modules).is_ok() {
        return Ok(None);
    }
    let changes = names::changes(&adapter.paths(), modules);
    if changes.is_empty() {
        return Ok(None);
    }
    let Some(groups) = groups(adapter, modules, layers, &changes)? else { return Ok(None) };
    let numbers = lora::Numbers::of(adapter.peft.as_ref());
    let (mut parameters, mut numbered) = (Parameters::new(), IndexMap::new());
    let mut written = HashSet::new();
    for path in adapter.paths() {
        let Some(i) = groups.iter().position(|g| g.reads(path)) else {
            let kept = module(adapter, path);
            numbered.insert(path.to_string(), numbers.at(path));
            parameters.extend(kept.into_iter().map(|(name, t)| (ParamKey::new(path, name), t)));
            continue;
        };
        if !written.insert(i) {
            continue;
        }
        let g = &groups[i];
        let made = match adapter.peft {
            Some(PeftConfig::Ia3(_)) => ia3::convert(adapter, g)?,
            _ => lora::convert(adapter, g, own, &numbers, &mut numbered)?,
        };
        parameters.extend(made);
    }
    let mut config = adapter.peft.clone();
    match &mut config {
        Some(PeftConfig::Lora(c)) => {
            let hooked: HashSet<String> = crate::stored::hooked(&parameters).into_iter().collect();
            let list: Vec<_> = numbered.into_iter().filter(|(path, _)| hooked.contains(path)).collect();
            *c = c.with_numbers(&list.into_iter().map(|(path, (r, a))| (path, r, a)).collect::<Vec<_>>());
        }
        Some(c) => c.target(&parameters),
        None => {}
    }
    let done = changes.iter().filter_map(|c| summary(c, &groups)).collect();
    Ok(Some(Projected { adapter: StoredAdapter { peft: config, parameters, ..adapter.clone() }, done }))
}

/// The groups of an adapter's modules, with the base's widths; `None` where the new names do not fit the base either.
fn groups(
    adapter: &StoredAdapter,
    modules: &[String],
    layers: &[Layer],
    changes: &[Change],
) -> Result<Option<Vec<Group>>> {
    let (mut found, mut wanted) = (IndexMap::<String, Group>::new(), IndexSet::new());
    for path in adapter.paths() {
        let (parent, name) = path.rsplit_once('.').map_or(("", path), |(p, n)| (p, n));
        let under = |n: &str| if parent.is_empty() { n.to_string() } else { format!("{parent}.{n}") };
        let Some(change) = changes.iter().find(|c| c.reads(name)) else {
            wanted.insert(path.to_string());
            continue;
        };
        let fused = under(change.fused);
        let split: Vec<String> = change.split.iter().map(|n| under(n)).collect();
        if change.fuses {
            wanted.insert(fused.clone())
        } else {
            wanted.extend(split.iter().cloned());
            true
        };
        found.entry(fused.clone()).or_insert(Group {
            change: *change,
            split,
            fused,
            widths: Vec::new(),
            place: String::new(),
        });
    }
    let wanted: Vec<String> = wanted.into_iter().collect();
    let Ok(places) = crate::align(&wanted, modules) else { return Ok(None) };
    let at = |path: &String| places.map.get(path).and_then(|p| layers.iter().find(|l| l.path == *p));
    let mut groups: Vec<Group> = found.into_values().collect();
    for g in &mut groups {
        g.widths = if g.change.fuses {
            let Some(layer) = at(&g.fused) else { return Ok(None) };
            g.place.clone_from(&layer.path);
            pieces(adapter, g, layer)?
        } else {
            let Some(all) = g.split.iter().map(|p| at(p).map(|l| l.out_features)).collect::<Option<_>>()
            else {
                return Ok(None);
            };
            all
        };
        if let (false, Some(why)) = (g.change.fuses, names::interleaved(g.change.fused)) {
            return Err(g.refuse(adapter, why.into()));
        }
    }
    Ok(Some(groups))
}

/// The widths of what the base cuts a fused layer into, which must be as many as the split layers are and, where an
/// attention reads them, in their order.
fn pieces(adapter: &StoredAdapter, g: &Group, layer: &Layer) -> Result<Vec<usize>> {
    let count = g.split.len();
    let Some(pieces) = layer.pieces.as_ref().filter(|p| p.len() == count) else {
        let why = format!(
            "the base does not cut the output of `{}` into {count} pieces that lie one behind the other; where each head \
             has its queries, keys and values together, the order of the rows is not known here",
            layer.path
        );
        return Err(g.refuse(adapter, why));
    };
    let order = [Part::Query, Part::Key, Part::Value];
    if count == order.len() && pieces.iter().any(|p| p.part.is_none()) {
        let why =
            format!("which piece of `{}` is read as queries, keys and values does not show", layer.path);
        return Err(g.refuse(adapter, why));
    }
    let agrees = |(i, p): (usize, &Piece)| count != order.len() || p.part == Some(order[i]);
    if !pieces.iter().enumerate().all(agrees) {
        let parts: Vec<_> = pieces.iter().map(|p| p.part).collect();
        let why = format!("the base reads the pieces of `{}` in another order: {parts:?}", layer.path);
        return Err(g.refuse(adapter, why));
    }
    Ok(pieces.iter().map(|p| p.width).collect())
}

impl Group {
    /// Whether a module of the adapter belongs to it.
    fn reads(&self, path: &str) -> bool {
        if self.change.fuses { self.split.iter().any(|p| p == path) } else { self.fused == path }
    }

    fn refuse(&self, adapter: &StoredAdapter, why: String) -> Error {
        let modules = if self.change.fuses { self.split.join("`, `") } else { self.fused.clone() };
        Error::Projections { dir: adapter.dir.clone(), modules: format!("`{modules}`"), why }
    }

    /// All the rows together.
    fn rows(&self) -> usize {
        self.widths.iter().sum()
    }

    /// The parts of the rows of a `[rows, …]` tensor, one for each split layer.
    fn cut(&self, adapter: &StoredAdapter, name: &str, tensor: &Tensor) -> Result<Vec<Tensor>> {
        let shape = tensor.shape();
        if shape.first() != Some(&self.rows()) {
            let what = format!("{} rows, those of `{}`", self.rows(), self.split.join("`, `"));
            return Err(misfit(adapter, &ParamKey::new(&self.fused, name), tensor, what));
        }
        let row: usize = shape[1..].iter().product();
        let all = numbers(tensor);
        let mut from = 0;
        let one = |width: &usize| {
            let part = &all[from * row..(from + width) * row];
            from += width;
            build([&[*width], &shape[1..]].concat(), part)
        };
        self.widths.iter().map(one).collect()
    }

    /// Vectors, one of each split layer, end to end.
    fn join(&self, adapter: &StoredAdapter, name: &str, parts: &[Tensor]) -> Result<Tensor> {
        let mut all = Vec::with_capacity(self.rows());
        for ((path, width), t) in self.split.iter().zip(&self.widths).zip(parts) {
            if t.len() != *width {
                let what = format!("{width} numbers, one for each row of the base's piece");
                return Err(misfit(adapter, &ParamKey::new(path, name), t, what));
            }
            all.extend(numbers(t));
        }
        let rest = parts.first().map_or(&[][..], |t| t.shape().get(1..).unwrap_or_default());
        build([&[self.rows()], rest].concat(), &all)
    }
}

fn module(adapter: &StoredAdapter, path: &str) -> Module {
    let own = adapter.parameters.iter().filter(|(k, _)| k.path == path);
    own.map(|(k, t)| (k.name.clone(), t.clone())).collect()
}

/// The elements; loading has seen to it that they are floating-point numbers.
fn numbers(t: &Tensor) -> Vec<f64> {
    t.to_f64s().unwrap_or_default()
}

fn build(shape: Vec<usize>, values: &[f64]) -> Result<Tensor> {
    let narrow: Vec<f32> = values.iter().map(|v| *v as f32).collect();
    Tensor::new(shape, &narrow).map_err(|e| Error::Compose { reason: e.to_string() })
}

fn misfit(adapter: &StoredAdapter, key: &ParamKey, tensor: &Tensor, expected: String) -> Error {
    let path = adapter.dir.join(adapter.parameters_file());
    Error::Shape { path, tensor: key.to_string(), found: tensor.shape().to_vec(), expected }
}

fn summary(change: &Change, groups: &[Group]) -> Option<String> {
    let count = groups.iter().filter(|g| g.change == *change).count();
    let split: Vec<String> = change.split.iter().map(|n| format!("`{n}`")).collect();
    let split = split.join(", ");
    let times = if count == 1 { "once".to_string() } else { format!("{count} times") };
    (count > 0).then(|| match change.fuses {
        true => format!("{split} became one `{}`, {times}", change.fused),
        false => format!("`{}` became {split}, {times}", change.fused),
    })
}
