//! Hugging Face PEFT's adapter formats: one file for each PEFT type that is read and written.
//!
//! `adapter_config.json` is an object whose `peft_type` says which settings the others are; the tensors' keys begin
//! with `base_model.model.` and go on with the module's path in the model that PEFT wrapped.

mod head;
mod ia3;
mod ln_tuning;
mod loha;
mod lora;
mod patterns;
pub(crate) mod settings;
mod types;
mod vera;
mod virtual_tokens;

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use ia3::Ia3Config;
pub(crate) use ia3::feeds;
pub use ln_tuning::LnTuningConfig;
pub use loha::LoHaConfig;
pub use lora::LoraConfig;
pub use settings::Targets;
pub use types::PeftType;
pub use vera::VeraConfig;
pub use virtual_tokens::VirtualTokensConfig;

use crate::error::{Error, Result};
use crate::stored::{Head, ParamKey, Parameters};
use crate::tensors::Tensors;
use crate::{CONFIG_FILE, json};

/// What PEFT puts in front of the keys of everything that it injects into a model.
pub(crate) const PREFIX: &str = "base_model.model.";

/// The settings of an adapter as PEFT keeps them, by PEFT type.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum PeftConfig {
    /// LoRA.
    Lora(LoraConfig),
    /// (IA)³.
    Ia3(Ia3Config),
    /// Norms that are trained.
    LnTuning(LnTuningConfig),
    /// VeRA.
    Vera(VeraConfig),
    /// LoHa.
    LoHa(LoHaConfig),
    /// Soft prompts and prefixes.
    VirtualTokens(VirtualTokensConfig),
}

/// The same of the settings, whatever type they are of.
macro_rules! each {
    ($config:expr, $c:ident => $do:expr) => {
        match $config {
            PeftConfig::Lora($c) => $do,
            PeftConfig::Ia3($c) => $do,
            PeftConfig::LnTuning($c) => $do,
            PeftConfig::Vera($c) => $do,
            PeftConfig::LoHa($c) => $do,
            PeftConfig::VirtualTokens($c) => $do,
        }
    };
}

/// The settings that every PEFT type has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Common {
    /// Which PEFT type the settings are of.
    pub peft_type: PeftType,
    /// The task, which decides the model class: `SEQ_CLS`, `FEATURE_EXTRACTION`, `CAUSAL_LM` …
    #[serde(default)]
    pub task_type: Option<String>,
    /// Where PEFT finds the base.
    #[serde(default)]
    pub base_model_name_or_path: Option<String>,
    /// Whether PEFT loads it frozen.
    #[serde(default = "yes")]
    pub inference_mode: bool,
    /// Names of modules that were trained whole and are kept with the adapter: heads.
    #[serde(default)]
    pub modules_to_save: Option<Vec<String>>,
    /// The version of PEFT that wrote it, where PEFT did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peft_version: Option<String>,
}

fn yes() -> bool {
    true
}

impl Common {
    /// Settings of an adapter written here.
    pub fn new(peft_type: PeftType) -> Common {
        Common {
            peft_type,
            task_type: None,
            base_model_name_or_path: None,
            inference_mode: true,
            modules_to_save: None,
            peft_version: None,
        }
    }
}

impl PeftConfig {
    /// Parses the content of `adapter_config.json`.
    ///
    /// # Errors
    /// [`Error::Json`] for what is no such object, [`Error::PeftType`] and [`Error::UnknownPeftType`] for types that are not read.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<PeftConfig> {
        PeftConfig::of(path, json::parse(path, bytes)?)
    }

    /// As [`PeftConfig::parse`], of an object that was parsed.
    pub(crate) fn of(path: &Path, map: Map<String, Value>) -> Result<PeftConfig> {
        let Some(peft_type) = map.get("peft_type").filter(|v| !v.is_null()) else {
            return Err(Error::Json {
                path: path.to_path_buf(),
                reason: "`peft_type` is missing, so it is no PEFT configuration".into(),
            });
        };
        let name = peft_type.as_str().map_or_else(|| peft_type.to_string(), str::to_string);
        match PeftType::of(&name) {
            Some(PeftType::Lora) => Ok(PeftConfig::Lora(json::typed(path, Value::Object(map))?)),
            Some(PeftType::Ia3) => Ok(PeftConfig::Ia3(json::typed(path, Value::Object(map))?)),
            Some(PeftType::LnTuning) => Ok(PeftConfig::LnTuning(json::typed(path, Value::Object(map))?)),
            Some(PeftType::Vera) => Ok(PeftConfig::Vera(json::typed(path, Value::Object(map))?)),
            Some(PeftType::LoHa) => Ok(PeftConfig::LoHa(json::typed(path, Value::Object(map))?)),
            Some(PeftType::PromptTuning | PeftType::PTuning | PeftType::PrefixTuning) => {
                Ok(PeftConfig::VirtualTokens(json::typed(path, Value::Object(map))?))
            }
            Some(_) => Err(Error::PeftType { path: path.to_path_buf(), peft_type: name }),
            None => Err(Error::UnknownPeftType { path: path.to_path_buf(), peft_type: name }),
        }
    }

    /// The content of `adapter_config.json`: sorted keys, indented, as PEFT writes it.
    ///
    /// # Errors
    /// [`Error::Json`] for numbers that JSON does not have.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        each!(self, c => json::pretty_sorted(Path::new(CONFIG_FILE), c))
    }

    /// The settings that would change what the adapter does and cannot be honoured here, as `name = value`; empty for
    /// an adapter that can be used. Settings at PEFT's defaults and those without effect on a trained adapter pass.
    pub fn unsupported(&self) -> Vec<String> {
        each!(self, c => c.unsupported())
    }

    /// The settings that every PEFT type has.
    pub fn common(&self) -> &Common {
        each!(self, c => &c.common)
    }

    /// The settings that every PEFT type has.
    pub fn common_mut(&mut self) -> &mut Common {
        each!(self, c => &mut c.common)
    }

    /// The name of the method, as Graft's plugins have it.
    pub fn method(&self) -> &'static str {
        match self {
            PeftConfig::Lora(_) => "lora",
            PeftConfig::Ia3(_) => "ia3",
            PeftConfig::LnTuning(_) => "norm-tuning",
            PeftConfig::Vera(_) => "vera",
            PeftConfig::LoHa(_) => "loha",
            PeftConfig::VirtualTokens(c) => c.method(),
        }
    }

    /// Writes the numbers that some modules have of their own by whole paths, for these modules, which may have a name of
    /// another prefix.
    pub fn fix_patterns(&mut self, paths: &[(String, String)]) {
        match self {
            PeftConfig::Lora(c) => c.fix_patterns(paths),
            PeftConfig::LoHa(c) => c.fix_patterns(paths),
            _ => {}
        }
    }

    /// What stands in front of the keys of a head.
    pub(crate) fn head_prefix(&self) -> &'static str {
        match self {
            PeftConfig::VirtualTokens(_) => virtual_tokens::BASE,
            _ => PREFIX,
        }
    }

    /// Sorts the tensors of `adapter_model.safetensors` into parameters and head, and checks that they are all there,
    /// no others are, and shapes agree with the settings.
    pub(crate) fn sort(&self, path: &Path, tensors: Tensors) -> Result<Sorted> {
        each!(self, c => c.sort(path, tensors))
    }

    /// PEFT's key of a parameter; `hooked` says whether the method has wrapped the module.
    pub(crate) fn key(&self, key: &ParamKey, hooked: bool) -> String {
        each!(self, c => c.key(key, hooked))
    }

    /// Narrows the choice of modules to exactly those that have parameters.
    pub(crate) fn target(&mut self, parameters: &Parameters) {
        each!(self, c => c.target(parameters))
    }

    /// True when PEFT, looking for target modules by the settings as they are, finds all modules with parameters and
    /// none of `others`, and treats each as these parameters need it.
    pub(crate) fn targets_exactly(&self, parameters: &Parameters, others: &[String]) -> bool {
        each!(self, c => c.targets_exactly(parameters, others))
    }
}

/// The tensors of a PEFT adapter by what they are for.
#[derive(Debug, Default)]
pub(crate) struct Sorted {
    pub parameters: Parameters,
    pub head: Option<Head>,
}
