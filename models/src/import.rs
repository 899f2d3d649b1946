//! A Hugging Face checkpoint directory → an ONNX base directory.

use std::path::{Path, PathBuf};
use std::time::Instant;

use graft_graph::Graph;
use graft_graph::onnx::{Placement, write};
use serde::Serialize;

use crate::architectures;
use crate::checkpoint;
use crate::config::Config;
use crate::error::{ImportError, Result};
use crate::staging::Staging;
use crate::weights::Weights;

/// Version of what an imported base looks like, kept in the model's metadata.
const FORMAT_VERSION: &str = "1";
/// Name of the graph's file in a base directory.
const MODEL: &str = "model.onnx";
/// What is copied from the checkpoint where it is there; the first is always there.
const COPIED: &[&str] = &[
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "sentence_bert_config.json",
];

/// What an import did.
#[derive(Clone, Debug, Serialize)]
pub struct ImportReport {
    /// `model_type` of the checkpoint's config.
    pub model_type: String,
    /// Name of the checkpoint: what its config calls itself, else its folder's name.
    pub source: String,
    /// The graph that was written.
    pub model: PathBuf,
    /// Names of the graph's inputs.
    pub inputs: Vec<String>,
    /// Names of the graph's outputs.
    pub outputs: Vec<String>,
    /// Number of weights in the base.
    pub parameters: u64,
    /// Bytes that they take.
    pub bytes: u64,
    /// Tensors of the checkpoint that the base does not use: heads, buffers. Sorted by name.
    pub unused: Vec<String>,
    /// Files that were copied beside the graph.
    pub copied: Vec<String>,
    /// Whether a `tokenizer.json` was among them.
    pub has_tokenizer: bool,
    /// Time that it took, in seconds.
    pub seconds: f64,
}

/// Imports the checkpoint in `hf_dir` as a base at `out_dir`, which appears whole or not at all.
///
/// The base holds `model.onnx` (operator set 20, f32), its weights in `model.onnx_data`, aligned so that they can be
/// mapped, and the config's and the tokenizer's files. Weights are mapped; at most one at a time is held in memory.
/// Linear weights are stored as `[in, out]`, everything else as in the checkpoint; names are the checkpoint's, without
/// the prefix that a model with a head puts before them. Nodes are named by module path
/// (`/encoder/layer.0/attention/self/query/MatMul`).
///
/// # Errors
/// [`ImportError`], which says what is wrong with the checkpoint, or that `out_dir` exists.
pub fn import(hf_dir: &Path, out_dir: &Path) -> Result<ImportReport, ImportError> {
    let start = Instant::now();
    if !hf_dir.is_dir() {
        return Err(ImportError::NotADirectory { dir: hf_dir.into() });
    }
    let config = read_config(hf_dir)?;
    let architecture = architectures::find(&config)?;
    let staging = Staging::new(out_dir)?;
    let mut weights = Weights::new(hf_dir, checkpoint::tensors(hf_dir)?, staging.path())?;
    let mut graph = (architecture.build)(&config, &mut weights)?;
    let model_type = config.text("model_type").unwrap_or_default().to_string();
    let source = source_name(&config, hf_dir);
    graph.metadata = vec![
        ("graft.format_version".into(), FORMAT_VERSION.into()),
        ("graft.model_type".into(), model_type.clone()),
        ("graft.source".into(), source.clone()),
    ];
    write(&graph, &staging.path().join(MODEL), Placement::Beside)?;
    let mut copied = Vec::new();
    for name in COPIED {
        if staging.copy(hf_dir, name)? {
            copied.push(name.to_string());
        }
    }
    staging.publish()?;
    let names = |values: &[graft_graph::ValueId]| -> Vec<String> {
        values.iter().map(|v| graph.name_of(*v).to_string()).collect()
    };
    let (parameters, bytes) = size(&graph);
    Ok(ImportReport {
        model_type,
        source,
        model: out_dir.join(MODEL),
        inputs: names(&graph.inputs),
        outputs: names(&graph.outputs),
        parameters,
        bytes,
        unused: weights.unused(),
        has_tokenizer: copied.iter().any(|c| c == "tokenizer.json"),
        copied,
        seconds: start.elapsed().as_secs_f64(),
    })
}

fn read_config(dir: &Path) -> Result<Config> {
    let path = dir.join("config.json");
    if !path.is_file() {
        let missing = "config.json";
        let help = ". It is the folder that save_pretrained() writes and that model hubs offer for download";
        return Err(ImportError::NotACheckpoint { dir: dir.into(), missing, help });
    }
    Config::read(path)
}

/// The config's own name for itself, unless that is a path on somebody's machine; else the folder's name.
fn source_name(config: &Config, dir: &Path) -> String {
    let named = config.text("_name_or_path").filter(|n| {
        !n.is_empty() && n.len() <= 200 && !n.starts_with(['/', '.', '~']) && !n.contains(['\\', ':'])
    });
    let folder = || {
        let full = dir.canonicalize().unwrap_or_else(|_| dir.to_path_buf());
        full.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
    };
    named.map_or_else(folder, str::to_string)
}

/// Number and bytes of the float constants that a checkpoint brought in; what a recipe adds is of no size to speak of,
/// but is not counted.
fn size(graph: &Graph) -> (u64, u64) {
    let weights = graph.constants().filter(|(v, t)| {
        let name = graph.name_of(*v);
        t.dtype().is_float() && !name.starts_with(crate::recipe::CONSTANT_PREFIX)
    });
    weights.fold((0, 0), |(n, b), (_, t)| (n + t.len() as u64, b + t.bytes().len() as u64))
}
