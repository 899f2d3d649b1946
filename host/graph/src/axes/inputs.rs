//! What the inputs tell: which of their axes are the batch, which are sequences.

use super::level::Level;
use super::state::{Axis, Cause, State, Tag};
use crate::dim::Dim;
use crate::ir::{Graph, ValueId};
use crate::model::Role;

/// Inputs that are 1 for tokens and 0 for padding. Other masks may mark anything.
const PADDING_MASKS: [&str; 6] = [
    "attention_mask",
    "mask",
    "input_mask",
    "padding_mask",
    "encoder_attention_mask",
    "decoder_attention_mask",
];

/// A sequence that inputs have.
pub(crate) struct Sequence {
    pub(super) dim: Dim,
    pub(super) input: ValueId,
}

/// What the inputs told.
pub(super) struct Known {
    pub(super) batch: Option<Dim>,
    pub(super) sequences: Vec<Sequence>,
    /// Symbols of inputs that are neither the batch nor a sequence.
    pub(super) others: Vec<String>,
}

impl Known {
    pub(super) fn sequence(&self, dim: &Dim) -> Option<usize> {
        self.sequences.iter().position(|s| s.dim == *dim && dim.known().is_none())
    }

    /// True where `dim` may depend on the number of rows.
    pub(super) fn counts_rows(&self, dim: &Dim) -> bool {
        let clean = |s: &str| {
            self.others.iter().any(|o| o == s) || self.sequences.iter().any(|q| q.dim == Dim::symbol(s))
        };
        !dim.symbols().all(clean)
    }

    /// True where `dim` may depend on the length of a sequence.
    pub(super) fn counts_positions(&self, dim: &Dim) -> bool {
        let clean = |s: &str| {
            self.others.iter().any(|o| o == s) || self.batch.as_ref().is_some_and(|b| *b == Dim::symbol(s))
        };
        !dim.symbols().all(clean)
    }
}

/// A dimension as the file names it: reading gives dimensions of the same name in another input that input's name behind
/// theirs. All inputs are fed the same rows, and the inputs of one side the same tokens.
fn plain(dim: &Dim, input: &str) -> Dim {
    dim.renamed(&|s| s.strip_suffix(input)?.strip_suffix('_').filter(|s| !s.is_empty()).map(str::to_string))
}

/// Gives each input its axes, and each axis that is neither the batch nor a known sequence a symbol of its own.
pub(super) fn read_inputs(
    graph: &mut Graph,
    roles: &[(ValueId, Role)],
    states: &mut [Option<State>],
) -> Known {
    let role_of = |v: ValueId| roles.iter().find(|(r, _)| *r == v).map_or(Role::Other, |(_, r)| *r);
    let of_role = |r: Role| graph.inputs.iter().copied().filter(move |v| role_of(*v) == r);
    let order = [Role::Ids, Role::Pixels, Role::Mask, Role::Types, Role::Positions];
    let first = order.into_iter().flat_map(of_role).next();
    let of_first = first.and_then(|v| Some(plain(graph.shape(v)?.first()?, graph.name_of(v))));
    let batch = of_first.filter(|d| !d.is(1));
    let mut known = Known { batch, sequences: Vec::new(), others: Vec::new() };
    let mut keys: Vec<(Dim, bool)> = Vec::new();
    for v in graph.inputs.clone() {
        let Some(mut shape) = graph.shape(v).cloned() else { continue };
        let role = role_of(v);
        let name = graph.name_of(v).to_string();
        let rank = shape.len();
        let masks = role == Role::Mask && PADDING_MASKS.contains(&name.as_str());
        shape.iter_mut().for_each(|d| *d = plain(d, &name));
        let mut s = State::free(None).level(Level::Tame);
        let mut axes = Vec::new();
        for (k, d) in shape.iter_mut().enumerate() {
            let batched = known.batch.as_ref() == Some(&*d) && (role != Role::Other || d.known().is_none());
            let token = rank == 2 && matches!(role, Role::Ids | Role::Mask | Role::Types | Role::Positions);
            let tag = if k == 0 && batched {
                s.rows = true;
                Tag::Batch
            } else if k == 1 && token && !d.is(1) {
                let key = (d.clone(), name.contains("decoder"));
                let pad = if masks { Level::Number(0.0) } else { Level::Tame };
                let number = keys.iter().position(|q| *q == key).unwrap_or_else(|| {
                    let taken = known.batch.as_ref() == Some(&key.0) || keys.iter().any(|q| q.0 == key.0);
                    let dim = if taken && d.known().is_none() {
                        Dim::symbol(format!("{d}'{name}"))
                    } else {
                        d.clone()
                    };
                    keys.push(key);
                    known.sequences.push(Sequence { dim, input: v });
                    keys.len() - 1
                });
                *d = known.sequences[number].dim.clone();
                Tag::Seq(number, pad)
            } else {
                if d.known().is_none() {
                    let own = format!("{d}'{name}:{k}");
                    known.others.push(own.clone());
                    *d = Dim::symbol(own);
                    if k == 0 {
                        let why = "its first dimension is not the batch";
                        s.mix(Cause { node: None, why });
                        s.show(Cause { node: None, why });
                    }
                }
                if d.is(1) { Tag::Same } else { Tag::Own }
            };
            axes.push(Axis::new(tag, d.clone()));
        }
        // A mask is 1 wherever it is not 0.
        if masks && axes.iter().any(Axis::has_seq) {
            (s.kept, s.diagonal) = (Level::Number(1.0), Level::Number(1.0));
        }
        if role != Role::Other && !s.rows {
            let fixed = known.batch.is_none() || shape.first().is_some_and(|d| !d.is(1));
            if fixed {
                s.mix(Cause { node: None, why: "no dimension of it is a batch" });
            }
        }
        s.axes = Some(axes);
        states[v.index()] = Some(s);
        graph.fact_mut(v).shape = Some(shape);
    }
    known
}
