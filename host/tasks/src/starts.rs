//! First values that are computed from the base's weights.

use graft_graph::Tensor;
use graft_plugins::Adapted;
use graft_runtime::SessionOptions;

use crate::base::Base;
use crate::error::{Result, TaskError};
use crate::program::Program;

/// What the parameters of `adapted` begin as that are computed from the base's weights, in their order.
///
/// # Errors
/// What ONNX Runtime says; [`TaskError::Input`] for a beginning that is not finite.
pub fn starts(base: &Base, adapted: &Adapted, options: &SessionOptions) -> Result<Vec<Tensor>> {
    let graph = &adapted.starts;
    if graph.outputs.is_empty() {
        return Ok(Vec::new());
    }
    let options = SessionOptions { name: "first values".into(), ..options.clone() };
    let made = Program::new(base, graph, &options)?.run(&|_| None)?.tensors()?;
    let names = graph.outputs.iter().map(|v| graph.name_of(*v));
    let one = |name: &str| {
        let tensor = made.iter().find(|(n, _)| n == name).map(|(_, t)| t.clone());
        let finite = |t: &Tensor| t.to_f64s().is_some_and(|v| v.iter().all(|e| e.is_finite()));
        tensor.filter(finite).ok_or_else(|| TaskError::Input {
            what: format!("value '{name}'"),
            detail: "a parameter begins as what it is on this base, which is not a finite number".into(),
        })
    };
    names.map(one).collect()
}
