//! `graft grad`: the gradient of any model, computed and, if wanted, saved as a model.

use std::path::Path;

use graft_graph::grad::gradient_model;
use graft_graph::{Graph, Tensor, functions, onnx};
use graft_runtime::SessionOptions;
use indexmap::IndexMap;

use crate::base::Base;
use crate::error::{Result, TaskError};

/// What [`gradients`] computed.
pub struct GradientRun {
    /// `out:NAME` for each output and `grad:NAME` for each wanted value.
    pub tensors: IndexMap<String, Tensor>,
    /// Nodes of the forward model.
    pub forward_nodes: usize,
    /// Nodes of the gradient model.
    pub gradient_nodes: usize,
}

/// Runs the gradient model of `base` on `in:NAME` and `ct:OUTPUT` of `tensors`. Outputs without a cotangent get
/// zeros. `save` writes the gradient model in standard operators.
///
/// # Errors
/// [`TaskError`]: an operator without a rule, a missing or unfit tensor, what ONNX Runtime says.
pub fn gradients(
    base: &Base,
    tensors: &IndexMap<String, Tensor>,
    wrt: Option<&[String]>,
    save: Option<&Path>,
    options: &SessionOptions,
) -> Result<GradientRun> {
    let model = gradient_model(&base.graph, wrt)?;
    if let Some(path) = save {
        save_standard(&model.graph, path)?;
    }
    let mut session = base.session(&model.graph, options)?;
    let mut fed: Vec<(String, Tensor)> = Vec::new();
    for input in &model.graph.inputs {
        let name = model.graph.name_of(*input);
        let key = if name.starts_with("ct:") { name.to_string() } else { format!("in:{name}") };
        let tensor = tensors.get(&key).cloned().ok_or_else(|| TaskError::Input {
            what: key.clone(),
            detail: format!("the tensors file lacks it; it has {}", names(tensors)),
        })?;
        fed.push((name.to_string(), tensor));
    }
    let inputs: Vec<(&str, &Tensor)> = fed.iter().map(|(n, t)| (n.as_str(), t)).collect();
    let outputs: Vec<&str> = model.graph.outputs.iter().map(|o| model.graph.name_of(*o)).collect();
    let run = session.run(&inputs, &outputs)?;
    let mut result = IndexMap::new();
    for (name, tensor) in run.tensors()? {
        let key = if name.starts_with("grad:") { name } else { format!("out:{name}") };
        result.insert(key, tensor);
    }
    Ok(GradientRun {
        tensors: result,
        forward_nodes: base.graph.nodes.len(),
        gradient_nodes: model.graph.nodes.len(),
    })
}

/// Writes a graph in standard operators only: functions of Graft's own domain are inlined.
///
/// # Errors
/// When the file can't be written.
pub fn save_standard(graph: &Graph, path: &Path) -> Result<()> {
    let mut plain = graph.clone();
    functions::inline(&mut plain, &|_| true)
        .map_err(|detail| TaskError::Input { what: path.display().to_string(), detail })?;
    Ok(onnx::write(&plain, path, onnx::Placement::Inline)?)
}

fn names(tensors: &IndexMap<String, Tensor>) -> String {
    tensors.keys().take(40).map(String::as_str).collect::<Vec<_>>().join(", ")
}
