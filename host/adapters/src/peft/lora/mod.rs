//! LoRA as PEFT keeps it: `lora_A.weight [r, in]` and `lora_B.weight [out, r]` for each module, scaled by
//! `lora_alpha / r` (rank-stabilised: `/ sqrt(r)`), with DoRA `lora_magnitude_vector [out]`, and trained
//! biases of the base under their own names.

mod tensors;

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::patterns::{self, Patterns};
use super::settings::{is_default, none, or_default, short, whole};
use super::{Common, PeftType, Sorted, Targets};
use crate::error::{Error, Result};
use crate::stored::{ParamKey, Parameters, hooked};
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
    /// Weight-decomposed LoRA: a learned magnitude for each output.
    #[serde(default, deserialize_with = "or_default")]
    pub use_dora: bool,
    /// Which biases of the base were trained too: `none`, `all` or `lora_only`.
    #[serde(default = "none")]
    pub bias: String,
    /// Whether the base keeps weights as `[in, out]`; the adapter's tensors are the same either way.
    #[serde(default, deserialize_with = "or_default")]
    pub fan_in_fan_out: bool,
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

fn alpha() -> f64 {
    8.0
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

    /// The rank of each module, by its path.
    pub(crate) fn ranks(&self) -> impl Fn(&str) -> usize + use<> {
        let (own, r) = (Patterns::new(&self.rank_pattern), self.r);
        move |path| own.as_ref().and_then(|p| p.number(path)).map_or(r, |rank| rank as usize)
    }

    /// The alpha of each module, by its path.
    pub(crate) fn alphas(&self) -> impl Fn(&str) -> f64 + use<> {
        let (own, alpha) = (Patterns::new(&self.alpha_pattern), self.lora_alpha);
        move |path| own.as_ref().and_then(|p| p.number(path)).unwrap_or(alpha)
    }

    /// Writes for each of these modules, which may have a name of another prefix, the rank and alpha that it has now, and
    /// leaves out what is the same for all: then no pattern means another module.
    pub fn fix_patterns(&mut self, paths: &[(String, String)]) {
        self.rank_pattern = patterns::fixed(&self.rank_pattern, self.r as f64, paths);
        self.alpha_pattern = patterns::fixed(&self.alpha_pattern, self.lora_alpha, paths);
    }

    /// The same configuration with exactly these modules, their ranks and alphas.
    pub(crate) fn with_numbers(&self, modules: &[(String, usize, f64)]) -> LoraConfig {
        let mut config = self.for_sites(modules.iter().map(|m| m.0.clone()));
        if let Some((_, r, alpha)) = modules.first() {
            (config.r, config.lora_alpha) = (*r, *alpha);
        }
        (config.rank_pattern, config.alpha_pattern) = (Map::new(), Map::new());
        for (path, r, alpha) in modules {
            if *r != config.r {
                config.rank_pattern.insert(regex::escape(path), (*r).into());
            }
            if *alpha != config.lora_alpha {
                config.alpha_pattern.insert(regex::escape(path), (*alpha).into());
            }
        }
        config
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

    pub(super) fn targets_exactly(&self, parameters: &Parameters, others: &[String]) -> bool {
        let plain = self.exclude_modules.is_none() && self.layers_to_transform.is_none();
        plain && self.target_modules.as_ref().is_some_and(|t| t.exactly(&hooked(parameters), others))
    }

    pub(super) fn target(&mut self, parameters: &Parameters) {
        *self = self.for_sites(hooked(parameters));
    }

    pub(super) fn sort(&self, path: &Path, tensors: Tensors) -> Result<Sorted> {
        tensors::sort(self, path, tensors)
    }

    pub(super) fn key(&self, key: &ParamKey, hooked: bool) -> String {
        tensors::key(key, hooked)
    }

    pub(super) fn unsupported(&self) -> Vec<String> {
        let mut out = Vec::new();
        for (name, map) in [("rank_pattern", &self.rank_pattern), ("alpha_pattern", &self.alpha_pattern)] {
            if Patterns::new(map).is_none() {
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
