//! `graft.json`: what PEFT's files cannot say.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The format version that this crate writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

/// Graft's own file of an adapter. Fields that this version does not know are kept in `other`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GraftFile {
    /// Format version, [`FORMAT`] when written here.
    pub format: u32,
    /// The version of Graft that wrote it.
    pub graft: String,
    /// The method and its resolved configuration.
    pub method: Component,
    /// The objective, its resolved configuration and its labels.
    pub objective: ObjectiveInfo,
    /// The base that the adapter was trained on.
    pub base: BaseRef,
    /// Where the head is and who can rebuild it; filled in by `StoredAdapter::compose`.
    #[serde(default)]
    pub head: Option<HeadInfo>,
    /// The plugins that took part.
    #[serde(default)]
    pub plugins: Vec<PluginRef>,
    /// How it was trained.
    #[serde(default)]
    pub training: Option<Training>,
    /// File name → digest of the other files of the adapter; filled in when saving.
    #[serde(default)]
    pub files: IndexMap<String, String>,
    /// Unknown fields, kept as they are.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl GraftFile {
    /// A file for an adapter that is about to be composed; head, training and manifest are still empty.
    pub fn new(method: Component, objective: ObjectiveInfo, base: BaseRef) -> GraftFile {
        GraftFile {
            format: FORMAT,
            graft: env!("CARGO_PKG_VERSION").to_string(),
            method,
            objective,
            base,
            head: None,
            plugins: Vec::new(),
            training: None,
            files: IndexMap::new(),
            other: Map::new(),
        }
    }
}

/// A method by id, with its resolved configuration in the plugin's own terms.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Component {
    /// The id, such as `lora`.
    pub id: String,
    /// Every setting, defaults included.
    #[serde(default)]
    pub config: Map<String, Value>,
}

/// An objective by id, with its resolved configuration and the labels that it decodes to.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ObjectiveInfo {
    /// The id, such as `classification`.
    pub id: String,
    /// Every setting, defaults included.
    #[serde(default)]
    pub config: Map<String, Value>,
    /// The labels in the order of the head's outputs; empty for objectives without labels.
    #[serde(default)]
    pub labels: Vec<String>,
}

/// Which base an adapter belongs to.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct BaseRef {
    /// The digest of its files, from [`crate::digest_files`].
    pub digest: String,
    /// A name for people: the directory's name or the checkpoint's.
    #[serde(default)]
    pub name: String,
    /// `model_type` of its `config.json`, where there is one.
    #[serde(default)]
    pub model_type: Option<String>,
}

/// Where the head is, and who can rebuild it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct HeadInfo {
    /// What is done to the hidden states before it (`mean`, `cls`, `last`, `pooled`), where the objective says so.
    #[serde(default)]
    pub pooling: Option<String>,
    /// The module that stock PEFT keeps it in; `None` when it lies in `graft_head.safetensors`.
    #[serde(default)]
    pub module: Option<String>,
    /// Why stock PEFT cannot rebuild it, where it cannot.
    #[serde(default)]
    pub not_stock: Option<String>,
}

/// A plugin that took part.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PluginRef {
    /// The plugin's id.
    pub id: String,
    /// Its version.
    pub version: String,
}

/// How an adapter was trained: what one needs to train it again.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Training {
    /// The resolved recipe.
    #[serde(default)]
    pub recipe: Value,
    /// The seed.
    #[serde(default)]
    pub seed: u64,
    /// Threads that a product was computed with.
    #[serde(default)]
    pub threads: usize,
    /// The version of the ONNX Runtime library.
    #[serde(default)]
    pub onnxruntime: String,
    /// The execution provider.
    #[serde(default)]
    pub provider: String,
    /// Versions of further libraries that enter the numbers, by name.
    #[serde(default)]
    pub libraries: IndexMap<String, String>,
    /// The data.
    #[serde(default)]
    pub data: Vec<DataFile>,
    /// What came out, by name (`accuracy`, `loss` …).
    #[serde(default)]
    pub metrics: Map<String, Value>,
    /// Optimiser steps taken.
    #[serde(default)]
    pub steps: u64,
    /// When it ended, as RFC 3339 has it (`2026-01-31T12:00:00Z`).
    #[serde(default)]
    pub date: String,
    /// Unknown fields, kept as they are.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A file of data that an adapter was trained or evaluated on.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct DataFile {
    /// `train`, `eval` or `test`.
    pub role: String,
    /// The file's name, without its folder.
    pub name: String,
    /// Its digest.
    pub digest: String,
    /// Rows used.
    #[serde(default)]
    pub rows: u64,
}
