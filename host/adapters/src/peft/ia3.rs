//! (IA)³ as PEFT keeps it (Liu et al. 2022): one vector `ia3_l` for each module, `[out, 1]` where it multiplies the
//! output and `[1, in]` where it multiplies the input, which it does for `feedforward_modules`.

use std::path::Path;

use graft_graph::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::settings::{Targets, is_default, or_default, short};
use super::{Common, PREFIX, PeftType, Sorted, head};
use crate::error::{Error, Result};
use crate::stored::{ParamKey, Parameters, hooked};
use crate::tensors::Tensors;

const VECTOR: &str = "ia3_l";

/// PEFT's `IA3Config`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ia3Config {
    /// What every PEFT type has.
    #[serde(flatten)]
    pub common: Common,
    /// Which modules: a list of names (exact or suffix), a regular expression, or `all-linear`.
    #[serde(default)]
    pub target_modules: Option<Targets>,
    /// Which modules not, matched likewise.
    #[serde(default)]
    pub exclude_modules: Option<Targets>,
    /// Of which modules the input is multiplied: a list of ends of paths, or a regular expression.
    #[serde(default)]
    pub feedforward_modules: Option<Targets>,
    /// Whether the base keeps weights as `[in, out]`; the vectors are the same either way.
    #[serde(default, deserialize_with = "or_default")]
    pub fan_in_fan_out: bool,
    /// Everything else, kept as it is.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Ia3Config {
    /// A configuration at PEFT's defaults.
    pub fn new(target_modules: Targets, feedforward_modules: Targets) -> Ia3Config {
        Ia3Config {
            common: Common::new(PeftType::Ia3),
            target_modules: Some(target_modules),
            exclude_modules: None,
            feedforward_modules: Some(feedforward_modules),
            fan_in_fan_out: false,
            other: Map::new(),
        }
    }

    pub(super) fn unsupported(&self) -> Vec<String> {
        // How the vectors began and which revision of the base it was change nothing in a trained adapter.
        let harmless = ["auto_mapping", "init_ia3_weights", "revision"];
        let matters =
            |(name, value): &(&String, &Value)| !harmless.contains(&name.as_str()) && !is_default(value);
        self.other.iter().filter(matters).map(|(name, value)| format!("{name} = {}", short(value))).collect()
    }

    pub(super) fn sort(&self, path: &Path, tensors: Tensors) -> Result<Sorted> {
        let own = |rest: &str| rest.ends_with(".ia3_l") || rest.ends_with(".ia3_l.default");
        let parameter = |rest: &str| {
            let module = rest.strip_suffix(".ia3_l").or(rest.strip_suffix(".ia3_l.default"));
            let key = module.map(|m| ParamKey::new(m, VECTOR));
            key.ok_or("it is neither a vector of (IA)³ nor in a module of `modules_to_save`")
        };
        let out = head::sort(&self.common, path, tensors, own, parameter)?;
        if out.parameters.is_empty() {
            let (tensor, why) =
                (format!("{PREFIX}….{VECTOR}"), "the file has no vector of (IA)³ at all".into());
            return Err(Error::MissingTensor { path: path.to_path_buf(), tensor, why });
        }
        match out.parameters.iter().find(|(_, t)| feeds(t).is_none()) {
            Some((key, t)) => Err(Error::Shape {
                path: path.to_path_buf(),
                tensor: self.key(key, true),
                found: t.shape().to_vec(),
                expected: "[out, 1] or, for an input, [1, in] of a linear layer".into(),
            }),
            None => Ok(out),
        }
    }

    pub(super) fn key(&self, key: &ParamKey, _hooked: bool) -> String {
        format!("{PREFIX}{key}")
    }

    pub(super) fn target(&mut self, parameters: &Parameters) {
        let inputs = parameters.iter().filter(|(_, t)| feeds(t) == Some(true)).map(|(k, _)| k.path.clone());
        self.feedforward_modules = Some(Targets::List(inputs.collect()));
        self.target_modules = Some(Targets::List(hooked(parameters)));
        self.exclude_modules = None;
    }

    pub(super) fn targets_exactly(&self, parameters: &Parameters, others: &[String]) -> bool {
        let (Some(targets), Some(Targets::List(inputs)), None) =
            (&self.target_modules, &self.feedforward_modules, &self.exclude_modules)
        else {
            return false;
        };
        // PEFT cuts no segments here: any end of the path will do. The list must be a part of the targets.
        let fed = |path: &str| inputs.iter().any(|name| path.ends_with(name.as_str()));
        let Targets::List(names) = targets else { return false };
        targets.exactly(&hooked(parameters), others)
            && inputs.iter().all(|name| names.contains(name))
            && parameters.iter().all(|(k, t)| feeds(t) == Some(fed(&k.path)))
    }
}

/// Whether a vector multiplies the input of its module; `None` for a shape that is none of (IA)³.
pub(crate) fn feeds(vector: &Tensor) -> Option<bool> {
    match vector.shape() {
        [out, 1] if *out > 1 => Some(false),
        [1, width] if *width > 1 => Some(true),
        _ => None,
    }
}
