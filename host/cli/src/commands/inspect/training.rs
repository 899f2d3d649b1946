//! `graft inspect --train`: what stands between a user and a training run.

use std::collections::HashMap;

use graft_graph::cse::join_equal;
use graft_graph::grad::{GradError, cotangents, expose, grad};
use graft_graph::memory::{Memory, estimate};
use graft_graph::model::Role;
use graft_graph::{DType, Graph, ValueId};
use graft_plugins::Adapted;
use graft_tasks::Base;
use serde::Serialize;

/// The batch that memory is estimated for.
#[derive(Debug, Clone, Copy)]
pub struct Batch {
    /// Rows.
    pub rows: i64,
    /// Tokens of each row.
    pub length: i64,
}

/// One training step of a method, without the objective's head: derived, not run.
#[derive(Serialize, Default)]
pub struct StepGraph {
    /// Nodes of the adapted graph.
    pub forward_nodes: usize,
    /// Nodes with the gradients of every parameter.
    pub nodes: usize,
    /// Bytes of weights, which are mapped from the base's files and shared.
    pub weight_bytes: u64,
    /// Bytes of everything else at the worst moment of a step.
    pub activation_bytes: u64,
    /// Values whose size could not be told and that count as nothing.
    pub unknown_sizes: usize,
    /// What stands in the way.
    pub obstacle: Option<Obstacle>,
}

/// Why a method can't train this base.
#[derive(Serialize)]
pub struct Obstacle {
    /// Operator, where it is one.
    pub op: Option<String>,
    /// Name of the node.
    pub node: Option<String>,
    /// Module path of the node.
    pub module: Option<String>,
    /// The whole sentence.
    pub message: String,
}

impl Obstacle {
    fn of(e: &GradError) -> Obstacle {
        let (op, node, module) = match e {
            GradError::NoRule { op, node, module } | GradError::Unsupported { op, node, module, .. } => {
                (Some(op.clone()), Some(node.clone()), Some(module.clone()))
            }
            _ => (None, None, None),
        };
        Obstacle { op, node, module, message: e.to_string() }
    }
}

/// Derives the training graph of what a method made of `base`: gradients of the hidden states, or else of the pooled
/// output, or else of every float output.
pub fn step(base: &Base, adapted: &Adapted, batch: Batch) -> StepGraph {
    let (mut graph, targets, trained) = reached(adapted);
    let forward_nodes = graph.nodes.len();
    let obstacle = match with_gradients(&mut graph, &targets, &trained) {
        Ok(()) => None,
        Err(e) => Some(Obstacle::of(&e)),
    };
    let sizes = sizes(base, batch);
    let Memory { weights, activations, unknown } = match obstacle {
        None => estimate(&graph, &|s| sizes.get(s).copied()),
        Some(_) => Memory::default(),
    };
    StepGraph {
        forward_nodes,
        nodes: graph.nodes.len(),
        weight_bytes: weights,
        activation_bytes: activations,
        unknown_sizes: unknown,
        obstacle,
    }
}

/// The graph up to what a head would read, that, and the parameters on the way to it: the hidden states, or else the
/// pooled output, or else every float output. A parameter behind all of these is trained by no head.
fn reached(adapted: &Adapted) -> (Graph, Vec<ValueId>, Vec<(ValueId, String)>) {
    let is_float = |v: &ValueId| adapted.graph.dtype(*v).is_none_or(DType::is_float);
    let outputs: Vec<ValueId> = adapted.graph.outputs.iter().copied().filter(is_float).collect();
    let heads = adapted.hidden.into_iter().chain(adapted.pooled).map(|v| vec![v]);
    // A method that leaves the base alone needs no gradient of it.
    let used: Vec<_> = adapted.params.iter().filter(|p| p.trained()).collect();
    let mut last = None;
    for targets in heads.chain(std::iter::once(outputs)) {
        let graph = adapted.graph.cut_to(&targets);
        let readers = graph.consumers();
        let trained: Vec<(ValueId, String)> = used
            .iter()
            .filter(|p| !readers[p.value.index()].is_empty())
            .map(|p| (p.value, p.name.clone()))
            .collect();
        let found = !trained.is_empty() || used.is_empty();
        last = Some((graph, targets, trained));
        if found {
            break;
        }
    }
    last.unwrap_or_default()
}

fn with_gradients(
    graph: &mut Graph,
    targets: &[ValueId],
    trained: &[(ValueId, String)],
) -> Result<(), GradError> {
    if trained.is_empty() {
        return Ok(());
    }
    let (values, names): (Vec<ValueId>, Vec<String>) = trained.iter().cloned().unzip();
    let seeds = cotangents(graph, targets, &values)?;
    let grads = grad(graph, &seeds, &values, &[])?;
    graph.outputs.clear();
    expose(graph, &grads, &names);
    join_equal(graph);
    Ok(())
}

/// What each symbol in the shapes of the base's inputs is: the first axis counts rows, every other one tokens.
fn sizes(base: &Base, batch: Batch) -> HashMap<String, i64> {
    let mut sizes = HashMap::new();
    for (v, role) in base.model.inputs.iter().filter(|(_, role)| *role != Role::Other) {
        for (k, d) in base.graph.shape(*v).into_iter().flatten().enumerate() {
            if let Some(name) = d.as_symbol().filter(|_| k == 0 || *role != Role::Pixels) {
                sizes.entry(name.to_string()).or_insert(if k == 0 { batch.rows } else { batch.length });
            }
        }
    }
    sizes
}
