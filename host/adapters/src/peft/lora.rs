//! LoRA as PEFT keeps it: `lora_A.weight [r, in]` and `lora_B.weight [out, r]` for each module, scaled by
//! `lora_alpha / r` (rank-stabilised: `/ sqrt(r)`), and trained biases of the base under their own names.

use std::path::Path;

use graft_graph::Tensor;
use indexmap::{IndexMap, IndexSet};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::{Common, PREFIX, PeftType, Sorted};
use crate::error::{Error, Result};
use crate::stored::{Head, ParamKey};
use crate::tensors::Tensors;

/// PEFT's `LoraConfig`. Fields that only some initialisations or other back ends use are kept in `other`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoraConfig {
    /// What every PEFT type has.
    #[serde(flatten)]
    pub common: Common,
    /// The rank.
    pub r: usize,
    /// The numerator of the scaling.
    #[serde(default = "alpha", serialize_with = "whole")]
    pub lora_alpha: f64,
    /// Dropout on the input of `lora_A` while training.
    #[serde(default)]
    pub lora_dropout: f64,
    /// Which modules: a list of names (exact or suffix), a regular expression, or `all-linear`.
    #[serde(default)]
    pub target_modules: Option<Targets>,
    /// Which modules not, matched likewise.
    #[serde(default)]
    pub exclude_modules: Option<Targets>,
    /// Divide alpha by the root of the rank instead of the rank.
    #[serde(default, deserialize_with = "or_default")]
    pub use_rslora: bool,
    /// Weight-decomposed LoRA; not supported.
    #[serde(default, deserialize_with = "or_default")]
    pub use_dora: bool,
    /// Which biases of the base were trained too: `none`, `all` or `lora_only`.
    #[serde(default = "none")]
    pub bias: String,
    /// Whether the base keeps weights as `[in, out]`; the adapter's tensors are the same either way.
    #[serde(default, deserialize_with = "or_default")]
    pub fan_in_fan_out: bool,
    /// Other ranks for some modules; not supported.
    #[serde(default, deserialize_with = "or_default")]
    pub rank_pattern: Map<String, Value>,
    /// Other alphas for some modules; not supported.
    #[serde(default, deserialize_with = "or_default")]
    pub alpha_pattern: Map<String, Value>,
    /// Only these layers: an index or a list of them.
    #[serde(default)]
    pub layers_to_transform: Option<Value>,
    /// The name of the list of layers, for `layers_to_transform`.
    #[serde(default)]
    pub layers_pattern: Option<Value>,
    /// Everything else, kept as it is.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A choice of modules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Targets {
    /// A regular expression that must match the whole path, or `all-linear`.
    Pattern(String),
    /// Names: the whole path or its end, in whole segments.
    List(Vec<String>),
}

impl Targets {
    /// Whether a list names this path; `None` for patterns, which are not evaluated here.
    pub fn names(&self, path: &str) -> Option<bool> {
        let Targets::List(list) = self else { return None };
        let end = |t: &String| path == t || path.strip_suffix(t.as_str()).is_some_and(|p| p.ends_with('.'));
        Some(list.iter().any(end))
    }
}

fn alpha() -> f64 {
    8.0
}

fn none() -> String {
    "none".into()
}

fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(d: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(d)?.unwrap_or_default())
}

/// PEFT declares alpha as an integer, and so it is written where it is one.
fn whole<S: Serializer>(v: &f64, s: S) -> Result<S::Ok, S::Error> {
    if v.fract() == 0.0 && v.abs() < 1e15 { s.serialize_i64(*v as i64) } else { s.serialize_f64(*v) }
}

/// Fields without effect on what a trained adapter computes.
const HARMLESS: [&str; 10] = [
    "auto_mapping",
    "corda_config",
    "eva_config",
    "init_lora_weights",
    "loftq_config",
    "lora_ga_config",
    "megatron_core",
    "qalora_group_size",
    "revision",
    "runtime_config",
];

/// Initialisations that leave the base as it is. The others (PiSSA, OLoRA, CorDA, LoftQ …) change base weights.
const PLAIN_INIT: [&str; 3] = ["gaussian", "eva", "orthogonal"];

impl LoraConfig {
    /// A configuration at PEFT's defaults.
    pub fn new(r: usize, lora_alpha: f64, target_modules: Targets) -> LoraConfig {
        LoraConfig {
            common: Common::new(PeftType::Lora),
            r,
            lora_alpha,
            lora_dropout: 0.0,
            target_modules: Some(target_modules),
            exclude_modules: None,
            use_rslora: false,
            use_dora: false,
            bias: none(),
            fan_in_fan_out: false,
            rank_pattern: Map::new(),
            alpha_pattern: Map::new(),
            layers_to_transform: None,
            layers_pattern: None,
            other: Map::new(),
        }
    }

    /// What the product of the two matrices is multiplied by.
    pub fn scaling(&self) -> f64 {
        let r = self.r as f64;
        self.lora_alpha / if self.use_rslora { r.sqrt() } else { r }
    }

    /// The same configuration for exactly these modules.
    pub fn for_sites(&self, paths: impl IntoIterator<Item = String>) -> LoraConfig {
        LoraConfig {
            target_modules: Some(Targets::List(paths.into_iter().collect())),
            exclude_modules: None,
            layers_to_transform: None,
            layers_pattern: None,
            ..self.clone()
        }
    }

    pub(super) fn targets_exactly(&self, paths: &[String], others: &[String]) -> bool {
        let plain = self.exclude_modules.is_none() && self.layers_to_transform.is_none();
        let Some(targets) = self.target_modules.as_ref().filter(|_| plain) else { return false };
        let named = |p: &String| targets.names(p);
        paths.iter().all(|p| named(p) == Some(true)) && others.iter().all(|p| named(p) == Some(false))
    }

    pub(super) fn unsupported(&self) -> Vec<String> {
        let mut out = Vec::new();
        if self.use_dora {
            out.push("use_dora = true".to_string());
        }
        for (name, map) in [("rank_pattern", &self.rank_pattern), ("alpha_pattern", &self.alpha_pattern)] {
            if !map.is_empty() {
                out.push(format!("{name} = {}", short(&Value::Object(map.clone()))));
            }
        }
        if !["none", "all", "lora_only"].contains(&self.bias.as_str()) {
            out.push(format!("bias = {}", short(&Value::String(self.bias.clone()))));
        }
        for (name, value) in &self.other {
            let plain_init = match value {
                Value::String(s) => PLAIN_INIT.contains(&s.as_str()),
                _ => true,
            };
            let passes = match name.as_str() {
                "init_lora_weights" => plain_init,
                n => HARMLESS.contains(&n) || is_default(value),
            };
            if !passes {
                out.push(format!("{name} = {}", short(value)));
            }
        }
        out
    }

    /// Refuses ranks and scalings that no adapter can have.
    fn check(&self, path: &Path) -> Result<()> {
        let config = path.with_file_name(crate::CONFIG_FILE);
        let bad =
            |field, value: String, must| Err(Error::Setting { path: config.clone(), field, value, must });
        if self.r == 0 {
            return bad("r", self.r.to_string(), "at least 1");
        }
        if !self.lora_alpha.is_finite() {
            return bad("lora_alpha", self.lora_alpha.to_string(), "finite");
        }
        if !(0.0..1.0).contains(&self.lora_dropout) {
            return bad("lora_dropout", self.lora_dropout.to_string(), "at least 0 and below 1");
        }
        Ok(())
    }
}

fn is_default(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
        Value::Number(_) => false,
    }
}

/// A value for a message, cut where it is long.
fn short(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() > 60 { text.chars().take(60).chain("…".chars()).collect() } else { text }
}

pub(super) fn key(key: &ParamKey, hooked: bool) -> String {
    // PEFT moves what it wraps one level down, so the bias of a hooked module is that of its base layer.
    let layer = if hooked && key.name == "bias" { "base_layer." } else { "" };
    format!("{PREFIX}{}.{layer}{}", key.path, key.name)
}

const A: &str = "lora_A.weight";
const B: &str = "lora_B.weight";

pub(super) fn sort(config: &LoraConfig, path: &Path, tensors: Tensors) -> Result<Sorted> {
    config.check(path)?;
    let mut out = Sorted::default();
    for (name, tensor) in tensors {
        let extra = |why: &str| Error::ExtraTensor {
            path: path.to_path_buf(),
            tensor: name.clone(),
            why: why.into(),
        };
        let Some(rest) = name.strip_prefix(PREFIX) else {
            return Err(extra("keys of a LoRA begin with `base_model.model.`"));
        };
        if let Some((module, inner)) = saved_module(config, rest) {
            add_head(&mut out.head, module, inner, tensor).map_err(|why| extra(&why))?;
        } else {
            let key = parameter(config, rest).map_err(extra)?;
            if out.parameters.insert(key, tensor).is_some() {
                return Err(extra("another key stands for the same parameter"));
            }
        }
    }
    out.parameters.sort_unstable_keys();
    check_modules(config, path, &out.parameters)?;
    check_head(config, path, out.head.as_ref())?;
    Ok(out)
}

/// Splits a key below a module of `modules_to_save` into the module's path and the tensor's name inside.
fn saved_module<'a>(config: &LoraConfig, rest: &'a str) -> Option<(&'a str, &'a str)> {
    let names = config.common.modules_to_save.as_ref()?;
    if rest.contains(".lora_A.") || rest.contains(".lora_B.") {
        return None;
    }
    let ends = rest.match_indices('.').map(|(i, _)| i);
    let is_saved = |path: &str| {
        names.iter().any(|n| path == n || path.strip_suffix(n.as_str()).is_some_and(|p| p.ends_with('.')))
    };
    let end = ends.into_iter().find(|i| is_saved(&rest[..*i]))?;
    Some((&rest[..end], &rest[end + 1..]))
}

/// Adds a tensor to the head. PEFT's older names are `modules_to_save.default.weight`; with `bias = all` it also keeps
/// copies of the head's bias (`modules_to_save.bias`, and the untrained `original_module.bias`), which say nothing new.
fn add_head(head: &mut Option<Head>, module: &str, inner: &str, tensor: Tensor) -> Result<(), String> {
    if inner.starts_with("original_module.") {
        return Ok(());
    }
    let name = inner.strip_prefix("modules_to_save.default.").or(inner.strip_prefix("modules_to_save."));
    let name = name.unwrap_or(inner);
    let head = head.get_or_insert_with(|| Head { module: Some(module.to_string()), tensors: Tensors::new() });
    if head.module.as_deref() != Some(module) {
        let first = head.module.as_deref().unwrap_or_default();
        return Err(format!("`{first}` is the head; a second module that was trained whole cannot be used"));
    }
    match head.tensors.insert(name.to_string(), tensor.clone()) {
        Some(before) if before != tensor => Err("another key gives the same head tensor other values".into()),
        _ => Ok(()),
    }
}

fn parameter(config: &LoraConfig, rest: &str) -> Result<ParamKey, &'static str> {
    for (suffix, name) in [
        (".lora_A.weight", A),
        (".lora_B.weight", B),
        (".lora_A.default.weight", A),
        (".lora_B.default.weight", B),
    ] {
        if let Some(path) = rest.strip_suffix(suffix) {
            return Ok(ParamKey::new(path, name));
        }
    }
    if let Some(path) = rest.strip_suffix(".bias") {
        let hooked = path.strip_suffix(".base_layer");
        if config.bias == "all" || (config.bias == "lora_only" && hooked.is_some()) {
            return Ok(ParamKey::new(hooked.unwrap_or(path), "bias"));
        }
        return Err("it is no part of a LoRA with this setting of `bias`");
    }
    if rest.contains(".lora_embedding_") {
        return Err("LoRA on embeddings is not supported yet");
    }
    if rest.contains(".lora_magnitude_vector") {
        return Err("it belongs to DoRA, but use_dora is not set");
    }
    Err("it is neither a LoRA matrix nor in a module of `modules_to_save`")
}

fn check_modules(config: &LoraConfig, path: &Path, parameters: &IndexMap<ParamKey, Tensor>) -> Result<()> {
    let modules: IndexSet<&str> =
        parameters.keys().filter(|k| k.name != "bias").map(|k| k.path.as_str()).collect();
    let missing = |tensor: String, why: &str| Error::MissingTensor {
        path: path.to_path_buf(),
        tensor,
        why: why.into(),
    };
    if modules.is_empty() {
        return Err(missing(format!("{PREFIX}….{A}"), "the file has no LoRA matrix at all"));
    }
    for module in modules {
        let both = [A, B].map(|n| ParamKey::new(module, n));
        let [Some(a), Some(b)] = [parameters.get(&both[0]), parameters.get(&both[1])] else {
            let gone = both.iter().find(|k| !parameters.contains_key(*k)).unwrap_or(&both[0]);
            return Err(missing(key(gone, true), "its partner is there"));
        };
        let r = config.r;
        let expect = |k: &ParamKey, t: &Tensor, good: bool, expected: String| {
            let found = t.shape().to_vec();
            let tensor = key(k, true);
            if good {
                Ok(())
            } else {
                Err(Error::Shape { path: path.to_path_buf(), tensor, found, expected })
            }
        };
        expect(&both[0], a, matches!(a.shape(), [n, i] if *n == r && *i > 0), format!("[r = {r}, in]"))?;
        expect(&both[1], b, matches!(b.shape(), [o, n] if *n == r && *o > 0), format!("[out, r = {r}]"))?;
        let bias = ParamKey::new(module, "bias");
        if let Some(t) = parameters.get(&bias) {
            expect(
                &bias,
                t,
                t.shape() == [b.shape()[0]],
                format!("[{}], the width of lora_B", b.shape()[0]),
            )?;
        }
    }
    Ok(())
}

fn check_head(config: &LoraConfig, path: &Path, head: Option<&Head>) -> Result<()> {
    let missing =
        |tensor: String, why: String| Err(Error::MissingTensor { path: path.to_path_buf(), tensor, why });
    let task = config.common.task_type.as_deref().unwrap_or_default();
    let needs_head = ["SEQ_CLS", "TOKEN_CLS"].contains(&task);
    match (head, config.common.modules_to_save.as_deref()) {
        (None, Some([first, ..])) if needs_head => {
            missing(format!("{PREFIX}{first}.weight"), format!("an adapter for {task} keeps its head"))
        }
        _ => Ok(()),
    }
}
