//! Trained norms as PEFT keeps them (Zhao et al. 2023): `ln_tuning_layers.weight` and `.bias`, which stand for the base's.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::settings::{Targets, is_default, short};
use super::{Common, PREFIX, PeftType, Sorted, head};
use crate::error::{Error, Result};
use crate::stored::{ParamKey, Parameters, hooked};
use crate::tensors::Tensors;

/// PEFT's `LNTuningConfig`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LnTuningConfig {
    /// What every PEFT type has.
    #[serde(flatten)]
    pub common: Common,
    /// Which modules: a list of names (exact or suffix), or a regular expression.
    #[serde(default)]
    pub target_modules: Option<Targets>,
    /// Which modules not, matched likewise.
    #[serde(default)]
    pub exclude_modules: Option<Targets>,
    /// Everything else, kept as it is.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl LnTuningConfig {
    /// A configuration for these modules.
    pub fn new(target_modules: Targets) -> LnTuningConfig {
        LnTuningConfig {
            common: Common::new(PeftType::LnTuning),
            target_modules: Some(target_modules),
            exclude_modules: None,
            other: Map::new(),
        }
    }

    pub(super) fn unsupported(&self) -> Vec<String> {
        let harmless = ["auto_mapping", "revision"];
        let matters =
            |(name, value): &(&String, &Value)| !harmless.contains(&name.as_str()) && !is_default(value);
        self.other.iter().filter(matters).map(|(name, value)| format!("{name} = {}", short(value))).collect()
    }

    pub(super) fn sort(&self, path: &Path, tensors: Tensors) -> Result<Sorted> {
        let out =
            head::sort(&self.common, path, tensors, |rest| rest.contains(".ln_tuning_layers."), parameter)?;
        let missing = |tensor: String, why: &str| {
            Err(Error::MissingTensor { path: path.to_path_buf(), tensor, why: why.into() })
        };
        if out.parameters.is_empty() {
            return missing(
                format!("{PREFIX}….ln_tuning_layers.weight"),
                "the file has no trained norm at all",
            );
        }
        for (key, tensor) in &out.parameters {
            let weight = ParamKey::new(&key.path, "weight");
            let Some(scale) = out.parameters.get(&weight) else {
                return missing(self.key(&weight, true), "its bias is there");
            };
            if tensor.shape().len() != 1 || tensor.shape() != scale.shape() {
                return Err(Error::Shape {
                    path: path.to_path_buf(),
                    tensor: self.key(key, true),
                    found: tensor.shape().to_vec(),
                    expected: "[width] of a norm".into(),
                });
            }
        }
        Ok(out)
    }

    pub(super) fn key(&self, key: &ParamKey, _hooked: bool) -> String {
        format!("{PREFIX}{}.ln_tuning_layers.{}", key.path, key.name)
    }

    pub(super) fn target(&mut self, parameters: &Parameters) {
        self.target_modules = Some(Targets::List(hooked(parameters)));
        self.exclude_modules = None;
    }

    pub(super) fn targets_exactly(&self, parameters: &Parameters, others: &[String]) -> bool {
        let targets = self.target_modules.as_ref().filter(|_| self.exclude_modules.is_none());
        targets.is_some_and(|t| t.exactly(&hooked(parameters), others))
    }
}

fn parameter(rest: &str) -> Result<ParamKey, &'static str> {
    let (module, name) = rest
        .split_once(".ln_tuning_layers.")
        .ok_or("it is neither of a trained norm nor in a module of `modules_to_save`")?;
    match name.strip_prefix("default.").unwrap_or(name) {
        name @ ("weight" | "bias") => Ok(ParamKey::new(module, name)),
        _ => Err("only scale and bias of norms are supported"),
    }
}
