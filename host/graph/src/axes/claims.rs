//! What is proven, as it is told.

use std::collections::HashMap;

use super::inputs::Sequence;
use super::state::{Axis, Cause, State, Tag};
use crate::ir::ValueId;

/// Where the batch is in a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Batch {
    /// Along this axis.
    Axis(usize),
    /// Nowhere: the value does not depend on the batch.
    None,
    /// Folded into an axis with others, `position` of them outside of it.
    Merged {
        /// The axis that it is folded into.
        axis: usize,
        /// How many were folded in before it.
        position: usize,
    },
    /// It is not proven where.
    Unknown,
}

/// Where and why something could not be proven.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reason {
    /// The operator, or nothing for an input of the graph.
    pub op: String,
    /// The node's name.
    pub node: String,
    /// Module path of the node, where it has one.
    pub module: Option<String>,
    /// What it does.
    pub why: &'static str,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let place = self.module.as_deref().unwrap_or(&self.node);
        match self.op.as_str() {
            "" => write!(f, "input '{}': {}", self.node, self.why),
            op => write!(f, "{op} ({place}) {}", self.why),
        }
    }
}

/// What is proven of one value, for a table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Summary {
    /// Where the batch is.
    pub batch: Batch,
    /// Rows are proven to be independent.
    pub rows_independent: bool,
    /// Padding is proven not to reach it.
    pub padding_invisible: bool,
    /// The first operator that mixes rows, as far as can be told.
    pub mixed_by: Option<Reason>,
    /// The first operator that lets padding in, as far as can be told.
    pub padding_by: Option<Reason>,
}

/// What is proven of the values of a graph.
pub struct Axes {
    pub(super) states: Vec<Option<State>>,
    pub(super) sequences: Vec<Sequence>,
    pub(super) places: Vec<Reason>,
    pub(super) inputs: HashMap<ValueId, Reason>,
}

impl Axes {
    fn state(&self, v: ValueId) -> Option<&State> {
        self.states.get(v.index())?.as_ref()
    }

    /// Where the batch is in `v`.
    pub fn batch(&self, v: ValueId) -> Batch {
        let Some(s) = self.state(v).filter(|s| s.mixed.is_none() && !s.batch_size) else {
            return Batch::Unknown;
        };
        if !s.rows {
            return Batch::None;
        }
        for (axis, a) in s.axes.iter().flatten().enumerate() {
            let place = a.parts().iter().position(|p| matches!(p.tag, Tag::Batch));
            match (&a.tag, place) {
                (Tag::Batch, _) => return Batch::Axis(axis),
                (_, Some(position)) => return Batch::Merged { axis, position },
                _ => {}
            }
        }
        Batch::Unknown
    }

    /// The axes of `v` that are a sequence each, with the first input that has this sequence.
    pub fn sequences(&self, v: ValueId) -> Vec<(usize, ValueId)> {
        let axes = self.state(v).and_then(|s| s.axes.as_deref()).unwrap_or(&[]);
        let of = |(k, a): (usize, &Axis)| match a.tag {
            Tag::Seq(n, _) => self.sequences.get(n).map(|s| (k, s.input)),
            _ => None,
        };
        axes.iter().enumerate().filter_map(of).collect()
    }

    /// True where row `i` of `v` is proven to depend on row `i` of each batched input alone, wherever in the batch it is
    /// and however many rows there are.
    pub fn rows_independent(&self, v: ValueId) -> bool {
        self.batch(v) != Batch::Unknown
    }

    /// True where `v`, at positions that are not padded, is proven to depend neither on what inputs hold at padded ones
    /// nor on how many there are.
    pub fn padding_invisible(&self, v: ValueId) -> bool {
        self.state(v).is_some_and(|s| s.mixed.is_none() && s.visible.is_none() && !s.length && !s.batch_size)
    }

    /// All that is proven of `v`.
    pub fn summary(&self, v: ValueId) -> Summary {
        let reason = |c: Option<Cause>| match c {
            Some(Cause { node: Some(n), why }) => self.places.get(n).map(|r| Reason { why, ..r.clone() }),
            Some(Cause { node: None, why }) => {
                let fits = |i: &&ValueId| {
                    self.state(**i).is_some_and(|s| s.mixed.or(s.visible).is_some_and(|c| c.why == why))
                };
                let input = self.inputs.keys().filter(fits).min()?;
                Some(Reason { why, ..self.inputs[input].clone() })
            }
            None => None,
        };
        let s = self.state(v);
        Summary {
            batch: self.batch(v),
            rows_independent: self.rows_independent(v),
            padding_invisible: self.padding_invisible(v),
            mixed_by: reason(s.and_then(|s| s.mixed)),
            padding_by: reason(s.and_then(|s| s.visible.or(s.mixed))),
        }
    }
}
