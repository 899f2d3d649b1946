//! Where a gradient goes wrong.

use std::collections::HashMap;

use graft_graph::{Attr, Builder, DType, Graph, Tensor, ValueId};
use graft_plugins::Trial;
use graft_plugins::adapt::Param;
use graft_plugins::api::{Code, Error};
use graft_runtime::Runtime;

use super::{Both, Compared, STEPS, load, picked};
use crate::error::TaskError;

/// The error of a wrong gradient: it names the first operator of the plugin whose own derivative is wrong.
pub(super) fn wrong(
    runtime: &'static Runtime,
    trial: &Trial,
    fed: &HashMap<String, Tensor>,
    p: &Param,
    direction: &[f64],
    c: &Compared,
) -> TaskError {
    let a = &trial.adapted;
    let culprit = a.graph.nodes.iter().find_map(|n| {
        let made = n.outputs.iter().flatten().find(|o| a.places.contains_key(o))?;
        (!agrees_at(runtime, trial, fed, *made, p, direction)).then_some((n, *made))
    });
    let mut what = format!(
        "the gradient of `{}` is {:.4e} in one direction, and differences give {:.4e}",
        p.name, c.derivative, c.difference
    );
    if let Some((n, _)) = culprit {
        what += &format!("; it goes wrong at the operator {}", n.full_op());
    }
    let place = a.places.get(&culprit.map_or(p.value, |(_, made)| made)).cloned().unwrap_or_default();
    let help =
        "A result that jumps, or has a kink where it is used, has no derivative that training can follow";
    let e = Error {
        place,
        ..Error::new(Code::FAILED, what).help(help).at(p.site.as_deref().unwrap_or_default())
    };
    TaskError::Plugin(trial.fail(e))
}

/// True where a value's own derivative is what differences say, as far as can be told.
fn agrees_at(
    runtime: &'static Runtime,
    trial: &Trial,
    fed: &HashMap<String, Tensor>,
    value: ValueId,
    p: &Param,
    direction: &[f64],
) -> bool {
    let mut graph = trial.adapted.graph.clone();
    if graph.dtype(value) != Some(DType::F32) {
        return true;
    }
    let mut b = Builder::new(&mut graph, "check/");
    let square = b.op("Mul", &[value, value]);
    let both = b.op("Add", &[square, value]);
    let sum = b.op_with("ReduceSum", &[both], &[("keepdims", Attr::Int(0))]);
    let compared = match Both::new(runtime, trial, &graph, sum, &[p], fed) {
        Ok(mut both) => both.gradients(fed).and_then(|g| both.compare(fed, p, &g[0], direction)),
        // Without a gradient it is right only where the value does not change: what the next operators tell.
        Err(_) => return !changes(runtime, &graph, sum, fed, p, direction),
    };
    compared.is_ok_and(|c| c.agrees)
}

/// Whether the value `from` is another a step along the direction.
fn changes(
    runtime: &'static Runtime,
    graph: &Graph,
    from: ValueId,
    fed: &HashMap<String, Tensor>,
    p: &Param,
    direction: &[f64],
) -> bool {
    let graph = graph.cut_to(&[from]);
    let name = graph.name_of(from).to_owned();
    let Ok(mut session) = load(runtime, graph, fed) else { return false };
    let inputs = session.inputs().iter().map(|p| p.name.clone()).collect::<Vec<_>>();
    let mut at = |fed: &HashMap<String, Tensor>| {
        session.run(&picked(&inputs, fed), &[&name]).and_then(|r| r.scalar(&name)).ok()
    };
    let start = fed.get(&p.name).and_then(Tensor::to_f64s).unwrap_or_default();
    let values: Vec<f32> = start.iter().zip(direction).map(|(x, d)| (x + STEPS[0] * d) as f32).collect();
    let mut moved = fed.clone();
    if let Ok(t) = Tensor::new(p.shape.clone(), &values) {
        moved.insert(p.name.clone(), t);
    }
    at(fed) != at(&moved)
}
