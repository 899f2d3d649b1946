//! `graft export` and `graft merge`: a base and an adapter as one plain ONNX model.

use std::path::{Path, PathBuf};

use graft_adapters::{StoredAdapter, create_whole};
use graft_graph::fold::{Folded, fold};
use graft_graph::{Graph, Tensor, functions, onnx};
use graft_plugins::Adapted;
use graft_plugins::api::Role;
use graft_runtime::{Session, SessionOptions, SessionSource, View};
use indexmap::IndexMap;
use serde_json::{Value, json};

use crate::base::{Base, BaseOptions};
use crate::error::{Result, TaskError};
use crate::probe;
use crate::program::Program;
use crate::task::{Bound, values};

/// Most by which an output of the written model may differ from the adapter's, relative to its norm.
pub const TOLERANCE: f64 = 1e-5;
/// What is copied beside the model where a directory is written.
const BESIDE: [&str; 5] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "config.json",
    "preprocessor_config.json",
];

/// What to write.
#[derive(Debug, Clone, Default)]
pub struct Export {
    /// Whether the adapter goes into the base's weights; otherwise it stays as nodes.
    pub merge: bool,
    /// Whether the adapter's head is left out.
    pub no_head: bool,
    /// Inputs to try the written model on, by name; made up where there are none.
    pub inputs: Option<IndexMap<String, Tensor>>,
    /// Folders of plugins that are searched first.
    pub plugin_dirs: Vec<PathBuf>,
    /// How graphs are run.
    pub session: SessionOptions,
}

/// What was written.
#[derive(Debug, Clone)]
pub struct Exported {
    /// The model file.
    pub model: PathBuf,
    /// Bytes of model and weights.
    pub bytes: u64,
    /// Operators of the model.
    pub nodes: usize,
    /// Numbers in its weights.
    pub parameters: usize,
    /// Names of its outputs.
    pub outputs: Vec<String>,
    /// Labels of the head, in the order of its outputs.
    pub labels: Vec<String>,
    /// Modules whose weights are new.
    pub merged: usize,
    /// Modules whose weight was tied to another, which keeps the old one.
    pub untied: Vec<String>,
    /// Files that were copied beside the model.
    pub copied: Vec<String>,
    /// The most that an output differs from the adapter's over the base, relative to its norm.
    pub difference: f64,
}

/// Writes `base` with `adapter` as a plain ONNX model of standard operators: a file if `out` ends with `.onnx`, else a
/// directory with `model.onnx` and the tokenizer's files. It has the base's inputs, and the outputs of the base as the
/// adapter leaves them and of the adapter's head. It is read again and compared with the adapter before it appears.
///
/// # Errors
/// What [`crate::Task::open`] says; an adapter that can't be merged; outputs that differ; where `out` exists already.
pub fn export(base: &Base, adapter: &StoredAdapter, out: &Path, what: &Export) -> Result<Exported> {
    let bound = Bound::beside(base, adapter, &what.plugin_dirs, what.no_head)?;
    let (mut graph, merged, untied) = plain(base, &bound, what)?;
    let labels = adapter.graft.as_ref().filter(|_| !what.no_head).map(|g| g.objective.labels.clone());
    let labels = labels.unwrap_or_default();
    graph.metadata.extend(metadata(base, adapter, &labels, what)?);
    let inputs = match &what.inputs {
        Some(given) => given.clone(),
        None => probe::made_up(base)?,
    };
    let wanted =
        run(base, &bound.adapted.graph, &inputs, &values(&bound.adapted, bound.tensors.clone()), what)?;
    let file = out.extension().is_some_and(|e| e == "onnx");
    let name =
        if file { out.file_name().map(PathBuf::from) } else { None }.unwrap_or_else(|| "model.onnx".into());
    create_whole(out, !file, |staging| {
        let model = staging.join(&name);
        onnx::write(&graph, &model, onnx::Placement::Inline)?;
        let difference = compare(base, &model, &inputs, &wanted, what)?;
        let copied = if file { Vec::new() } else { copy_beside(base, staging)? };
        let sizes = std::fs::read_dir(staging).into_iter().flatten().flatten();
        let is_model = |n: &std::ffi::OsStr| n.to_string_lossy().starts_with(&*name.to_string_lossy());
        let sizes = sizes.filter(|e| is_model(&e.file_name())).filter_map(|e| e.metadata().ok());
        Ok(Exported {
            model: if file { out.to_path_buf() } else { out.join(&name) },
            bytes: sizes.map(|m| m.len()).sum(),
            nodes: graph.nodes.len(),
            parameters: graph.constants().filter(|(_, t)| t.dtype().is_float()).map(|(_, t)| t.len()).sum(),
            outputs: graph.outputs.iter().map(|v| graph.name_of(*v).to_string()).collect(),
            labels,
            merged,
            untied,
            copied,
            difference,
        })
    })
}

impl Exported {
    /// As one JSON object.
    pub fn to_json(&self) -> Value {
        json!({
            "model": self.model, "bytes": self.bytes, "nodes": self.nodes, "parameters": self.parameters,
            "outputs": self.outputs, "labels": self.labels, "merged": self.merged, "untied": self.untied,
            "copied": self.copied, "difference": self.difference,
        })
    }
}

/// The adapted graph with everything trained as constants, in standard operators; the number of merged modules and the
/// untied ones.
fn plain(base: &Base, bound: &Bound, what: &Export) -> Result<(Graph, usize, Vec<String>)> {
    let mut graph = with_constants(base, &bound.adapted, &bound.tensors)?;
    let (mut merged, mut untied) = (0, Vec::new());
    if what.merge {
        (graph, merged, untied) = merge(base, bound, &graph, what)?;
    }
    functions::inline(&mut graph, &|_| true)
        .map_err(|detail| TaskError::Input { what: base.path.display().to_string(), detail })?;
    Ok((graph, merged, untied))
}

fn with_constants(base: &Base, adapted: &Adapted, tensors: &[Tensor]) -> Result<Graph> {
    let mut graph = adapted.graph.clone();
    let given: Vec<_> = adapted
        .params
        .iter()
        .map(|p| p.value)
        .zip(tensors.iter().cloned())
        .chain(adapted.settings.iter().map(|s| (s.value, Tensor::scalar(s.number))))
        .collect();
    for (value, tensor) in given {
        graph.inputs.retain(|v| *v != value);
        graph.set_constant(value, tensor);
    }
    graph.remove_dead();
    let readers = graph.consumers();
    let of_base = |v: &graft_graph::ValueId| base.graph.inputs.contains(v);
    graph.inputs.retain(|v| of_base(v) || !readers[v.index()].is_empty());
    match graph.inputs.iter().find(|v| !of_base(v)) {
        None => Ok(graph),
        Some(v) => Err(TaskError::Input {
            what: format!("input '{}'", graph.name_of(*v)),
            detail:
                "the adapter needs it at every run, so it can't become a plain model; `graft run` and `graft \
                     predict` feed it"
                    .into(),
        }),
    }
}

fn merge(base: &Base, bound: &Bound, graph: &Graph, what: &Export) -> Result<(Graph, usize, Vec<String>)> {
    let refuse = |detail: String| TaskError::Input {
        what: "this adapter can't be merged".into(),
        detail: format!("{detail}. `graft export` writes it as nodes instead"),
    };
    if let Some(path) = bound.adapted.attentions.first() {
        return Err(refuse(format!("attention '{path}': what the method adds is not in a weight")));
    }
    if let Some(path) = bound.adapted.residuals.first() {
        return Err(refuse(format!("residual connection '{path}': what the method adds is not in a weight")));
    }
    let folded = fold(graph, &bound.adapted.changes).map_err(|e| refuse(e.to_string()))?;
    let tensors = computed(base, &folded, &what.session)?;
    let untied = folded.untied.clone();
    let folded = folded.finish(tensors);
    let left = |p: &&graft_plugins::adapt::Param| {
        p.role == Role::Adapter && p.base.is_none() && folded.constant(p.value).is_some()
    };
    if let Some(p) = bound.adapted.params.iter().find(left) {
        return Err(refuse(format!("parameter '{}' is used outside of the modules' weights", p.name)));
    }
    let trained = bound.adapted.params.iter().filter(|p| p.base.is_some()).count();
    Ok((folded, bound.adapted.changes.len() + trained, untied))
}

/// The new weights, one at a time: a session then holds no more than one module.
fn computed(base: &Base, folded: &Folded, options: &SessionOptions) -> Result<Vec<Tensor>> {
    let sums = folded.sums();
    let options = SessionOptions {
        name: "merged weights".into(),
        optimization: graft_runtime::Optimization::Off,
        ..options.clone()
    };
    let one = |value: &graft_graph::ValueId| {
        if let Some(constant) = sums.constant(*value) {
            return Ok(constant.clone());
        }
        let graph = sums.cut_to(&[*value]);
        let source = SessionSource::plain(onnx::to_bytes(&graph));
        let name = graph.name_of(*value);
        Ok(Session::new(base.runtime(), &source, &options)?.run(&[], &[name])?.tensor(name)?)
    };
    sums.outputs.iter().map(one).collect()
}

fn metadata(
    base: &Base,
    adapter: &StoredAdapter,
    labels: &[String],
    what: &Export,
) -> Result<Vec<(String, String)>> {
    let info = graft_adapters::info(adapter);
    let name = adapter.dir.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let mut entries = vec![
        ("graft.adapter".to_string(), name),
        ("graft.method".to_string(), info.method),
        ("graft.base".to_string(), base.digest()?.to_string()),
        ("graft.form".to_string(), if what.merge { "merged" } else { "nodes" }.to_string()),
    ];
    if let Some(objective) = info.objective.filter(|_| !what.no_head) {
        entries.push(("graft.objective".into(), objective));
    }
    if !labels.is_empty() {
        entries.push(("graft.labels".into(), json!(labels).to_string()));
    }
    Ok(entries)
}

type Outputs = Vec<(String, Tensor)>;

fn run(
    base: &Base,
    graph: &Graph,
    inputs: &IndexMap<String, Tensor>,
    fixed: &std::collections::HashMap<String, Tensor>,
    what: &Export,
) -> Result<Outputs> {
    let mut program = Program::new(base, graph, &what.session)?;
    let feed = |n: &str| inputs.get(n).or_else(|| fixed.get(n)).map(View::from);
    Ok(program.run(&feed)?.tensors()?)
}

/// Reads the model that was written, runs it without Graft's kernels, and gives the largest relative difference.
fn compare(
    base: &Base,
    model: &Path,
    inputs: &IndexMap<String, Tensor>,
    wanted: &Outputs,
    what: &Export,
) -> Result<f64> {
    let written = Base::open(base.runtime(), model, &BaseOptions::default())?;
    let plain =
        Export { session: SessionOptions { kernels: false, ..what.session.clone() }, ..Export::default() };
    let found = run(&written, &written.graph, inputs, &Default::default(), &plain)?;
    let mut worst = 0f64;
    for (name, wanted) in wanted {
        let found = found.iter().find(|(n, _)| n == name).map(|(_, t)| t);
        let difference = found.and_then(|f| relative(f, wanted)).unwrap_or(f64::INFINITY);
        if difference.is_nan() || difference > TOLERANCE {
            return Err(TaskError::Input {
                what: format!("output '{name}'"),
                detail: format!(
                    "the written model differs from the adapter by {difference:.1e}, more than {TOLERANCE:.0e}, so \
                     nothing was written{}",
                    if what.merge { "; `graft export` writes the adapter as nodes" } else { "" }
                ),
            });
        }
        worst = worst.max(difference);
    }
    Ok(worst)
}

/// ‖a − b‖ / ‖b‖; none for tensors of different shapes and for what are no numbers.
fn relative(a: &Tensor, b: &Tensor) -> Option<f64> {
    if a.shape() != b.shape() || !b.dtype().is_float() {
        return (a == b).then_some(0.0);
    }
    let (a, b) = (a.to_f64s()?, b.to_f64s()?);
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|e| e * e).sum::<f64>().sqrt();
    let off = norm(&mut a.iter().zip(&b).map(|(a, b)| a - b));
    let size = norm(&mut b.iter().copied());
    Some(if off == 0.0 { 0.0 } else { off / size })
}

fn copy_beside(base: &Base, to: &Path) -> Result<Vec<String>> {
    let mut copied = Vec::new();
    for name in BESIDE {
        let named = match name {
            "tokenizer.json" => base.tokenizer.clone(),
            "preprocessor_config.json" => base.preprocessor.clone(),
            _ => None,
        };
        let around = [base.dir.join(name), base.dir.join("..").join(name)];
        let Some(from) = named.into_iter().chain(around).find(|p| p.is_file()) else { continue };
        std::fs::copy(&from, to.join(name)).map_err(|e| TaskError::Input {
            what: from.display().to_string(),
            detail: format!("copying it failed: {e}"),
        })?;
        copied.push(name.to_string());
    }
    Ok(copied)
}
