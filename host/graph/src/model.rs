//! What a graph is to a user: which input is what, and where the hidden states are.

use crate::dim::Dim;
use crate::ir::{Graph, ValueId};
use crate::sites::{Site, SiteKind, sites};
use crate::tensor::DType;

/// What an input of a base is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Role {
    /// Token ids `[batch, sequence]`.
    Ids,
    /// 1 for tokens, 0 for padding `[batch, sequence]`.
    Mask,
    /// Segment of each token `[batch, sequence]`.
    Types,
    /// Position of each token `[batch, sequence]`.
    Positions,
    /// Images `[batch, channels, height, width]`.
    Pixels,
    /// Anything else.
    Other,
}

impl Role {
    /// The word for tables and for the plugin boundary.
    pub fn name(self) -> &'static str {
        match self {
            Role::Ids => "ids",
            Role::Mask => "mask",
            Role::Types => "types",
            Role::Positions => "positions",
            Role::Pixels => "pixels",
            Role::Other => "other",
        }
    }
}

/// Inputs with their roles, and the values that objectives build on.
#[derive(Clone, Debug)]
pub struct Model {
    /// Each input with its role.
    pub inputs: Vec<(ValueId, Role)>,
    /// Hidden states `[batch, sequence, width]`.
    pub hidden: Option<ValueId>,
    /// Pooled output `[batch, width]`; for a base of images that only shows logits, what its last layer reads.
    pub pooled: Option<ValueId>,
    /// What is looked up for the token ids `[batch, sequence, width]`, where they enter a table.
    pub words: Option<ValueId>,
    /// The base's own logits `[batch, labels]`, where it is a classifier.
    pub logits: Option<ValueId>,
}

impl Model {
    /// The input of that role.
    pub fn input(&self, role: Role) -> Option<ValueId> {
        self.inputs.iter().find(|(_, r)| *r == role).map(|(v, _)| *v)
    }
}

/// Why the hidden states can't be told.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The value that was named is not there or has no fitting shape.
    #[error("--hidden {name}: {detail}. Candidates: {candidates}")]
    Hidden {
        /// What was named.
        name: String,
        /// What is wrong with it.
        detail: String,
        /// Values that fit.
        candidates: String,
    },
    /// There is no output with hidden states.
    #[error(
        "the base has no output with hidden states [batch, sequence, width] (outputs: {outputs}). Name the value with \
         --hidden VALUE; candidates: {candidates}"
    )]
    NoHidden {
        /// The outputs there are.
        outputs: String,
        /// Values that fit.
        candidates: String,
    },
}

fn role(graph: &Graph, v: ValueId) -> Role {
    let name = graph.name_of(v).to_ascii_lowercase();
    let integer = graph.dtype(v).is_some_and(|d| matches!(d, DType::I64 | DType::I32));
    let rank = graph.shape(v).map_or(0, Vec::len);
    match name.as_str() {
        n if n.contains("mask") => Role::Mask,
        n if n.contains("type") || n.contains("segment") => Role::Types,
        n if n.contains("position") => Role::Positions,
        n if n.contains("pixel") || (rank == 4 && !integer) => Role::Pixels,
        n if integer && rank == 2 && (n.contains("ids") || n.contains("input") || n.contains("token")) => {
            Role::Ids
        }
        _ => Role::Other,
    }
}

fn width(graph: &Graph, v: ValueId, rank: usize) -> Option<i64> {
    let shape = graph.shape(v).filter(|s| s.len() == rank)?;
    graph.dtype(v).filter(|d| d.is_float())?;
    shape.last().and_then(Dim::known)
}

/// Values that may be the hidden states of a model whose outputs do not show them: what its last normalisations give,
/// the last first.
pub fn hidden_candidates(graph: &Graph) -> Vec<ValueId> {
    let norms = ["LayerNormalization", "RMSNormalization", "RMSNorm"];
    let fits = |v: &ValueId| width(graph, *v, 3).is_some_and(|w| w > 1);
    let made = |n: &crate::ir::Node| n.output(0).filter(fits);
    let normed = graph.nodes.iter().rev().filter(|n| norms.contains(&n.op.as_str())).filter_map(made);
    normed.take(3).collect()
}

/// Reads the model's inputs and finds its hidden states: the value called `hidden` if given, else an output of rank 3
/// that is not as wide as a vocabulary.
///
/// # Errors
/// [`ModelError::Hidden`] where `hidden` names no fitting value.
pub fn describe(graph: &Graph, hidden: Option<&str>) -> Result<Model, ModelError> {
    let inputs: Vec<(ValueId, Role)> = graph.inputs.iter().map(|v| (*v, role(graph, *v))).collect();
    let outputs = &graph.outputs;
    let named = |wanted: &str| outputs.iter().copied().find(|v| graph.name_of(*v).contains(wanted));
    let is_logits = |v: &ValueId| graph.name_of(*v).contains("logits");
    let found = match hidden {
        Some(name) => Some(named_hidden(graph, name)?),
        None => named("hidden")
            .filter(|v| width(graph, *v, 3).is_some())
            .or_else(|| outputs.iter().copied().find(|v| width(graph, *v, 3).is_some() && !is_logits(v))),
    };
    let flat = |v: &ValueId| width(graph, *v, 2).is_some();
    let pooled = named("pool").filter(flat);
    // A model's only output, if it is flat, is its logits, whatever it is called.
    let only = match outputs.as_slice() {
        [only] => Some(*only).filter(|v| flat(v) && pooled.is_none()),
        _ => None,
    };
    let logits = named("logits").filter(flat).or(only);
    let images = inputs.iter().any(|(_, r)| *r == Role::Pixels);
    let pooled = pooled.or_else(|| features(graph, logits.filter(|_| images)?).filter(flat));
    let ids = inputs.iter().find(|(_, r)| *r == Role::Ids).map(|(v, _)| *v);
    let words = ids.and_then(|ids| words(graph, ids));
    Ok(Model { inputs, hidden: found, pooled, words, logits })
}

/// What leaves the table that `ids` enter, as they are or in another shape or integer type.
fn words(graph: &Graph, ids: ValueId) -> Option<ValueId> {
    let same = ["Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze"];
    let producers = graph.producers();
    let is_ids = |mut v: ValueId| {
        // A path back through single inputs cannot be longer than the graph.
        for _ in 0..graph.nodes.len() {
            let node = producers[v.index()].map(|i| &graph.nodes[i]);
            match node
                .filter(|n| n.domain.is_empty() && same.contains(&n.op.as_str()))
                .and_then(|n| n.input(0))
            {
                Some(from) => v = from,
                None => break,
            }
        }
        v == ids
    };
    sites(graph).iter().find(|s| s.kind == SiteKind::Embedding && is_ids(s.input)).map(|s| s.output)
}

/// What the linear layer reads that gives the logits.
fn features(graph: &Graph, logits: ValueId) -> Option<ValueId> {
    let last = |s: &Site| s.kind == SiteKind::Linear && s.output == logits;
    sites(graph).iter().find(|s| last(s)).map(|s| s.input)
}

/// The hidden states, or an error that lists what might be meant.
///
/// # Errors
/// [`ModelError::NoHidden`].
pub fn require_hidden(graph: &Graph, model: &Model) -> Result<ValueId, ModelError> {
    let names = |vs: &[ValueId]| vs.iter().map(|v| graph.name_of(*v)).collect::<Vec<_>>().join(", ");
    model.hidden.ok_or_else(|| ModelError::NoHidden {
        outputs: names(&graph.outputs),
        candidates: names(&hidden_candidates(graph)),
    })
}

fn named_hidden(graph: &Graph, name: &str) -> Result<ValueId, ModelError> {
    let candidates = || {
        let names: Vec<&str> = hidden_candidates(graph).into_iter().map(|v| graph.name_of(v)).collect();
        names.join(", ")
    };
    let fail = |detail: &str| ModelError::Hidden {
        name: name.into(),
        detail: detail.into(),
        candidates: candidates(),
    };
    let v = graph.find(name).ok_or_else(|| fail("the graph has no value of that name"))?;
    width(graph, v, 3).ok_or_else(|| fail("it is no float value of shape [batch, sequence, width]"))?;
    Ok(v)
}
