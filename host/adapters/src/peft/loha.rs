//! LoHa as PEFT keeps it (Hyeon-Woo et al. 2022): for each module `hada_w1_a [out, r]`, `hada_w1_b [r, in]` and the same
//! of `hada_w2`, where a convolution's `in` is that of a group times the extents of its kernel. With
//! `use_effective_conv2d`, convolutions with larger kernels have `hada_t1` and `hada_t2` `[r, r, …extents]` beside
//! `hada_w1_a [r, out]` and `hada_w1_b [r, in]`.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::patterns::{self, Patterns};
use super::settings::{Targets, is_default, or_default, short, whole};
use super::{Common, PREFIX, PeftType, Sorted, head};
use crate::error::{Error, Result};
use crate::stored::{ParamKey, Parameters, hooked};
use crate::tensors::Tensors;

/// PEFT's `LoHaConfig`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoHaConfig {
    /// What every PEFT type has.
    #[serde(flatten)]
    pub common: Common,
    /// Rank of each of the two factors.
    #[serde(default = "eight")]
    pub r: usize,
    /// The numerator of the scaling.
    #[serde(default = "alpha", serialize_with = "whole")]
    pub alpha: f64,
    /// Which modules: a list of names (exact or suffix), a regular expression, or `all-linear`.
    #[serde(default)]
    pub target_modules: Option<Targets>,
    /// Which modules not, matched likewise.
    #[serde(default)]
    pub exclude_modules: Option<Targets>,
    /// Whether kernels of convolutions are taken apart by all of their axes.
    #[serde(default, deserialize_with = "or_default")]
    pub use_effective_conv2d: bool,
    /// The probability, while training, that an output has no update in a step.
    #[serde(default)]
    pub rank_dropout: f64,
    /// The probability, while training, that a module has no update in a step.
    #[serde(default)]
    pub module_dropout: f64,
    /// Other ranks for some modules: a regular expression for the end of the path, and the rank.
    #[serde(default, deserialize_with = "or_default")]
    pub rank_pattern: Map<String, Value>,
    /// Other alphas for some modules, likewise.
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

fn eight() -> usize {
    8
}

fn alpha() -> f64 {
    8.0
}

impl LoHaConfig {
    /// A configuration at PEFT's defaults.
    pub fn new(r: usize, alpha: f64, target_modules: Targets) -> LoHaConfig {
        LoHaConfig {
            common: Common::new(PeftType::LoHa),
            r,
            alpha,
            target_modules: Some(target_modules),
            exclude_modules: None,
            use_effective_conv2d: false,
            rank_dropout: 0.0,
            module_dropout: 0.0,
            rank_pattern: Map::new(),
            alpha_pattern: Map::new(),
            layers_to_transform: None,
            layers_pattern: None,
            other: Map::new(),
        }
    }

    /// Writes for each of these modules, which may have a name of another prefix, the rank and alpha that it has now.
    pub fn fix_patterns(&mut self, paths: &[(String, String)]) {
        self.rank_pattern = patterns::fixed(&self.rank_pattern, self.r as f64, paths);
        self.alpha_pattern = patterns::fixed(&self.alpha_pattern, self.alpha, paths);
    }

    pub(super) fn unsupported(&self) -> Vec<String> {
        let harmless = ["auto_mapping", "init_weights", "revision"];
        let matters =
            |(name, value): &(&String, &Value)| !harmless.contains(&name.as_str()) && !is_default(value);
        let show = |(name, value): (&String, &Value)| format!("{name} = {}", short(value));
        let patterns = [("rank_pattern", &self.rank_pattern), ("alpha_pattern", &self.alpha_pattern)];
        let odd = patterns.into_iter().filter(|(_, map)| Patterns::new(map).is_none());
        let odd = odd.map(|(name, map)| format!("{name} = {}", short(&Value::Object(map.clone()))));
        odd.chain(self.other.iter().filter(matters).map(show)).collect()
    }

    pub(super) fn sort(&self, path: &Path, tensors: Tensors) -> Result<Sorted> {
        let config = path.with_file_name(crate::CONFIG_FILE);
        if self.r == 0 {
            return Err(Error::Setting { path: config, field: "r", value: "0".into(), must: "at least 1" });
        }
        let own = |rest: &str| rest.contains(".hada_");
        let out = head::sort(&self.common, path, tensors, own, parameter)?;
        self.check(path, &out.parameters)?;
        Ok(out)
    }

    /// Every module has its four matrices, and either both cores or none, in fitting shapes.
    fn check(&self, path: &Path, parameters: &Parameters) -> Result<()> {
        let missing = |tensor: String, why: &str| {
            Err(Error::MissingTensor { path: path.to_path_buf(), tensor, why: why.into() })
        };
        let modules = hooked(parameters);
        if modules.is_empty() {
            return missing(format!("{PREFIX}….hada_w1_a"), "the file has no matrix of LoHa at all");
        }
        let ranks = Patterns::new(&self.rank_pattern);
        for module in &modules {
            let r = ranks.as_ref().and_then(|p| p.number(module)).map_or(self.r, |rank| rank as usize);
            let get = |name: &str| parameters.get(&ParamKey::new(module, name));
            let cores = ["hada_t1", "hada_t2"];
            let core = cores.iter().any(|name| get(name).is_some());
            let all = NAMES.into_iter().filter(|name| core || !cores.contains(name));
            let (mut out, mut inner) = (None, None);
            for name in all {
                let key = ParamKey::new(module, name);
                let Some(tensor) = get(name) else {
                    return missing(self.key(&key, true), "its partner is there");
                };
                let (fits, expected) = match (tensor.shape(), name) {
                    ([a, b, k @ ..], "hada_t1" | "hada_t2") => (
                        *a == r && *b == r && k.len() == 2 && !k.contains(&0),
                        format!("[{r}, {r}, …extents]"),
                    ),
                    ([n, o], "hada_w1_a" | "hada_w2_a") if core => {
                        (*n == r && *o == *out.get_or_insert(*o) && *o > 0, shape_of(Some(r), out))
                    }
                    ([o, n], "hada_w1_a" | "hada_w2_a") => {
                        (*n == r && *o == *out.get_or_insert(*o) && *o > 0, shape_of(out, Some(r)))
                    }
                    ([n, i], _) => {
                        (*n == r && *i == *inner.get_or_insert(*i) && *i > 0, shape_of(Some(r), inner))
                    }
                    _ => (false, format!("two axes, one of them r = {r}")),
                };
                if !fits {
                    let (tensor, found) = (self.key(&key, true), tensor.shape().to_vec());
                    return Err(Error::Shape { path: path.to_path_buf(), tensor, found, expected });
                }
            }
        }
        Ok(())
    }

    pub(super) fn key(&self, key: &ParamKey, _hooked: bool) -> String {
        format!("{PREFIX}{key}")
    }

    pub(super) fn target(&mut self, parameters: &Parameters) {
        self.target_modules = Some(Targets::List(hooked(parameters)));
        self.exclude_modules = None;
        (self.layers_to_transform, self.layers_pattern) = (None, None);
    }

    pub(super) fn targets_exactly(&self, parameters: &Parameters, others: &[String]) -> bool {
        let plain = self.exclude_modules.is_none() && self.layers_to_transform.is_none();
        plain && self.target_modules.as_ref().is_some_and(|t| t.exactly(&hooked(parameters), others))
    }
}

/// What a module may have.
const NAMES: [&str; 6] = ["hada_t1", "hada_t2", "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"];

fn shape_of(rows: Option<usize>, columns: Option<usize>) -> String {
    let show = |n: Option<usize>| n.map_or("…".into(), |n| n.to_string());
    format!("[{}, {}]", show(rows), show(columns))
}

fn parameter(rest: &str) -> Result<ParamKey, &'static str> {
    let rest = rest.strip_suffix(".default").unwrap_or(rest);
    let (module, name) = rest.rsplit_once('.').unwrap_or(("", rest));
    match NAMES.contains(&name) && !module.is_empty() {
        true => Ok(ParamKey::new(module, name)),
        false => Err("it is neither a matrix of LoHa nor in a module of `modules_to_save`"),
    }
}
