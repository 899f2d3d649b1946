//! VeRA as PEFT keeps it (Kopiczko et al. 2024): `vera_lambda_d [r]` and `vera_lambda_b [out]` for each module, the
//! projections `vera_A [r, widest in]` and `vera_B [widest out, r]` once for all of them, under keys without the usual
//! prefix, and trained biases of the base under their own names. With `save_projection = false` the file has no
//! projections: they are drawn from `projection_prng_key`.

use std::path::Path;

use graft_graph::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::settings::{Targets, is_default, none, or_default, short};
use super::{Common, PREFIX, PeftType, Sorted, head};
use crate::error::{Error, Result};
use crate::stored::{ParamKey, Parameters, hooked};
use crate::tensors::Tensors;

const B: &str = "vera_lambda_b";
const D: &str = "vera_lambda_d";
const PROJECTIONS: [&str; 2] = ["vera_A", "vera_B"];
/// What stands in front of the projections' keys.
const MODEL: &str = "base_model.";

/// PEFT's `VeraConfig`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VeraConfig {
    /// What every PEFT type has.
    #[serde(flatten)]
    pub common: Common,
    /// Rank of the projections.
    #[serde(default = "rank")]
    pub r: usize,
    /// Which modules: a list of names (exact or suffix), a regular expression, or `all-linear`.
    #[serde(default)]
    pub target_modules: Option<Targets>,
    /// Seed of the projections.
    #[serde(default)]
    pub projection_prng_key: u64,
    /// Whether the projections are stored.
    #[serde(default = "stored")]
    pub save_projection: bool,
    /// Dropout on the input of the update while training.
    #[serde(default)]
    pub vera_dropout: f64,
    /// What each number of `vera_lambda_d` began as.
    #[serde(default = "initial")]
    pub d_initial: f64,
    /// Whether the base keeps weights as `[in, out]`; the adapter's tensors are the same either way.
    #[serde(default, deserialize_with = "or_default")]
    pub fan_in_fan_out: bool,
    /// Which biases of the base were trained too: `none`, `all` or `vera_only`.
    #[serde(default = "none")]
    pub bias: String,
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

fn rank() -> usize {
    256
}

fn stored() -> bool {
    true
}

fn initial() -> f64 {
    0.1
}

impl VeraConfig {
    /// A configuration at PEFT's defaults.
    pub fn new(r: usize, target_modules: Targets) -> VeraConfig {
        VeraConfig {
            common: Common::new(PeftType::Vera),
            r,
            target_modules: Some(target_modules),
            projection_prng_key: 0,
            save_projection: true,
            vera_dropout: 0.0,
            d_initial: initial(),
            fan_in_fan_out: false,
            bias: none(),
            layers_to_transform: None,
            layers_pattern: None,
            other: Map::new(),
        }
    }

    pub(super) fn unsupported(&self) -> Vec<String> {
        // How the vectors began and which revision of the base it was change nothing in a trained adapter.
        let harmless = ["auto_mapping", "init_weights", "revision"];
        let matters =
            |(name, value): &(&String, &Value)| !harmless.contains(&name.as_str()) && !is_default(value);
        let show = |(name, value): (&String, &Value)| format!("{name} = {}", short(value));
        let mut out: Vec<String> = self.other.iter().filter(matters).map(show).collect();
        if !["none", "all", "vera_only"].contains(&self.bias.as_str()) {
            out.push(format!("bias = {}", short(&Value::String(self.bias.clone()))));
        }
        out
    }

    pub(super) fn sort(&self, path: &Path, tensors: Tensors) -> Result<Sorted> {
        if self.r == 0 {
            let config = path.with_file_name(crate::CONFIG_FILE);
            return Err(Error::Setting { path: config, field: "r", value: "0".into(), must: "at least 1" });
        }
        let (mut shared, mut others) = (Parameters::new(), Tensors::new());
        for (name, tensor) in tensors {
            match projection(&name) {
                // PEFT draws them again, whatever a file has.
                Some(_) if !self.save_projection => {}
                Some(key) => drop(shared.insert(ParamKey::new("", key), tensor)),
                None => drop(others.insert(name, tensor)),
            }
        }
        let own = |rest: &str| rest.contains(".vera_lambda_");
        let mut out = head::sort(&self.common, path, others, own, |rest| self.parameter(rest))?;
        out.parameters.extend(shared);
        out.parameters.sort_unstable_keys();
        self.check(path, &out.parameters)?;
        Ok(out)
    }

    fn parameter(&self, rest: &str) -> Result<ParamKey, &'static str> {
        for name in [B, D] {
            let suffixes = [format!(".{name}"), format!(".{name}.default")];
            if let Some(module) = suffixes.iter().find_map(|s| rest.strip_suffix(s.as_str())) {
                return Ok(ParamKey::new(module, name));
            }
        }
        let Some(module) = rest.strip_suffix(".bias") else {
            return Err("it is neither a vector of VeRA nor in a module of `modules_to_save`");
        };
        let base = module.strip_suffix(".base_layer");
        if self.bias == "all" || (self.bias == "vera_only" && base.is_some()) {
            return Ok(ParamKey::new(base.unwrap_or(module), "bias"));
        }
        Err("it is no part of a VeRA with this setting of `bias`")
    }

    /// Both vectors for each module, both projections where they are stored, in fitting shapes.
    fn check(&self, path: &Path, parameters: &Parameters) -> Result<()> {
        let missing = |tensor: String, why: &str| {
            Err(Error::MissingTensor { path: path.to_path_buf(), tensor, why: why.into() })
        };
        let modules = hooked(parameters);
        if modules.is_empty() {
            return missing(format!("{PREFIX}….{B}"), "the file has no vector of VeRA at all");
        }
        for key in modules.iter().flat_map(|m| [B, D].map(|name| ParamKey::new(m, name))) {
            if !parameters.contains_key(&key) {
                return missing(self.key(&key, true), "its partner is there");
            }
        }
        for name in PROJECTIONS.into_iter().filter(|_| self.save_projection) {
            if !parameters.contains_key(&ParamKey::new("", name)) {
                return missing(
                    format!("{MODEL}{name}"),
                    "`save_projection` is set, so the file has the projections; without them PEFT and Graft draw \
                     them from `projection_prng_key` where it is false",
                );
            }
        }
        let widest = parameters.iter().filter(|(k, _)| k.name == B).map(|(_, t)| t.len()).max().unwrap_or(0);
        // The projections, which must fit the modules, come first in the order of paths, and are looked at last.
        match parameters.iter().rev().find_map(|(k, t)| Some((k, t, self.misfit(k, t, widest)?))) {
            Some((key, tensor, expected)) => Err(Error::Shape {
                path: path.to_path_buf(),
                tensor: self.key(key, true),
                found: tensor.shape().to_vec(),
                expected,
            }),
            None => Ok(()),
        }
    }

    fn misfit(&self, key: &ParamKey, tensor: &Tensor, widest: usize) -> Option<String> {
        let r = self.r;
        match (key.name.as_str(), tensor.shape()) {
            (D, [n]) if *n == r => None,
            (D, _) => Some(format!("[r = {r}]")),
            ("vera_A", [n, i]) if *n == r && *i > 0 => None,
            ("vera_A", _) => Some(format!("[r = {r}, in of the widest module]")),
            ("vera_B", [o, n]) if *n == r && *o == widest => None,
            ("vera_B", _) => Some(format!("[{widest}, r = {r}]")),
            (_, [o]) if *o > 0 => None,
            _ => Some("[out]".into()),
        }
    }

    pub(super) fn key(&self, key: &ParamKey, hooked: bool) -> String {
        match key.path.as_str() {
            "" => format!("{MODEL}{}", key.name),
            // PEFT moves what it wraps one level down.
            path if hooked && key.name == "bias" => format!("{PREFIX}{path}.base_layer.bias"),
            _ => format!("{PREFIX}{key}"),
        }
    }

    pub(super) fn target(&mut self, parameters: &Parameters) {
        self.target_modules = Some(Targets::List(hooked(parameters)));
        (self.layers_to_transform, self.layers_pattern) = (None, None);
    }

    pub(super) fn targets_exactly(&self, parameters: &Parameters, others: &[String]) -> bool {
        let targets = self.target_modules.as_ref().filter(|_| self.layers_to_transform.is_none());
        targets.is_some_and(|t| t.exactly(&hooked(parameters), others))
    }
}

/// The name of a projection that a key stands for.
fn projection(key: &str) -> Option<&'static str> {
    let rest = key.strip_prefix(MODEL)?;
    let rest = rest.strip_suffix(".default").unwrap_or(rest);
    PROJECTIONS.into_iter().find(|name| *name == rest)
}
