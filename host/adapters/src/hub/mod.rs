//! The format of AdapterHub's library `adapters`, for its bottleneck adapters.
//!
//! `adapter_config.json` nests the settings below `config` and has no `peft_type`; the tensors lie in
//! `adapter.safetensors` under `PATH.adapters.NAME.…`, where PATH is the module at whose end the adapter stands, and the
//! head of a stock classifier lies beside them, in `head_config.json` and `model_head.safetensors`.

mod settings;
mod tensors;

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

pub(crate) use self::tensors::head;
use crate::error::{Error, Result};
use crate::json;

/// The names that the library's model classes begin with, by `model_type`: those whose layers keep adapters in the
/// module that holds the last linear layer of attention and of feed-forward layers.
const CLASSES: [(&str, &str); 4] =
    [("bert", "Bert"), ("roberta", "Roberta"), ("xlm-roberta", "XLMRoberta"), ("electra", "Electra")];

/// The version of the library whose format is written.
const VERSION: &str = "adapters.1.3.0";

/// `adapter_config.json` of a bottleneck adapter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HubConfig {
    /// The settings, by the library's names.
    pub config: Map<String, Value>,
    /// Width of the base's hidden states.
    #[serde(default)]
    pub hidden_size: Option<u64>,
    /// The class of the model that it was trained in.
    #[serde(default)]
    pub model_class: Option<String>,
    /// Where the library finds the base.
    #[serde(default)]
    pub model_name: Option<String>,
    /// The base's architecture.
    #[serde(default)]
    pub model_type: Option<String>,
    /// The adapter's name, which is in the tensors' keys.
    pub name: String,
    /// The version that wrote it.
    #[serde(default)]
    pub version: String,
    /// Everything else, kept as it is.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl HubConfig {
    /// Whether an object of `adapter_config.json` has this library's schema.
    pub(crate) fn is(map: &Map<String, Value>) -> bool {
        let text = |k: &str| map.get(k).and_then(Value::as_str);
        // The older library writes no version.
        let known =
            text("version").unwrap_or_default().starts_with("adapters.") || map.contains_key("model_class");
        map.contains_key("config") && known
    }

    /// Reads such an object.
    ///
    /// # Errors
    /// [`Error::AdapterHub`] for its other kinds of adapters, [`Error::Json`] for what is no such object.
    pub(crate) fn parse(path: &Path, map: Map<String, Value>) -> Result<HubConfig> {
        let kind = match map.get("config") {
            Some(Value::Object(config)) => config.get("architecture").and_then(Value::as_str),
            Some(Value::String(name)) => Some(name.as_str()),
            _ => None,
        };
        match kind {
            Some(kind) => Err(Error::AdapterHub {
                dir: crate::atomic::parent(path).to_path_buf(),
                kind: kind.to_string(),
            }),
            None => json::typed(path, Value::Object(map)),
        }
    }

    /// The configuration of an adapter made here by the method `bottleneck-adapter` with these options; `None` for an
    /// architecture whose modules the library names otherwise.
    pub fn new(options: &Value, model_type: Option<&str>) -> Option<HubConfig> {
        let known = CLASSES.iter().find(|(t, _)| Some(*t) == model_type)?;
        Some(HubConfig {
            config: settings::resolved(options),
            hidden_size: None,
            model_class: Some(format!("{}Model", known.1)),
            model_name: None,
            model_type: Some(known.0.to_string()),
            name: "adapter".into(),
            version: VERSION.into(),
            other: Map::new(),
        })
    }

    /// Says that it is one of a stock classifier, whose head is kept beside it.
    pub(crate) fn set_classifier(&mut self) {
        let class = CLASSES.iter().find(|(t, _)| Some(*t) == self.model_type.as_deref());
        self.model_class = class.map(|(_, name)| format!("{name}ForSequenceClassification"));
    }

    /// The method's id.
    pub fn method(&self) -> &'static str {
        "bottleneck-adapter"
    }

    /// The options of the method `bottleneck-adapter`.
    pub fn options(&self) -> Value {
        settings::options(&self.config)
    }

    /// The settings that would change what the adapter does and cannot be honoured here, as `name = value`.
    pub fn unsupported(&self) -> Vec<String> {
        settings::unsupported(&self.config, &self.version)
    }

    /// The content of `head_config.json` beside it.
    pub(crate) fn head_config(&self, labels: &[String]) -> Value {
        let ids: Map<String, Value> = labels.iter().zip(0..).map(|(l, i)| (l.clone(), json!(i))).collect();
        json!({
            "config": null, "hidden_size": self.hidden_size, "label2id": ids, "model_class": self.model_class,
            "model_name": self.model_name, "model_type": self.model_type, "name": null,
            "num_labels": labels.len(), "version": self.version,
        })
    }
}
