//! What of an adapter is kept in a bank: where parameters meet rows.
//!
//! Whatever depends on parameters and weights of the base alone is computed once, when an adapter is loaded; what it gives
//! to the work on rows is what the bank keeps.

use std::collections::HashMap;

use super::fragment::{Fragment, Kind, Neutral, kinds};
use crate::dim::Dim;
use crate::ir::{Graph, Node, ValueId};
use crate::tensor::{DType, Tensor};

/// How a value of an adapter lies in a bank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layout {
    /// A number, fed for each row of the batch: `[batch]`.
    Number,
    /// The whole value is one row of the bank.
    Row,
    /// Each place along this axis is a row of the bank.
    Rows(usize),
}

/// A bank: an input of the joined graph, `[rows, …]` f32, or `[batch]` for numbers. Its first row is nobody's and has
/// [`Bank::null`] everywhere.
#[derive(Debug, Clone, PartialEq)]
pub struct Bank {
    /// Name of the input.
    pub input: String,
    /// How values lie in it.
    pub layout: Layout,
    /// Sizes of one row.
    pub row: Vec<usize>,
    /// Name of the input that says for each row of the batch which rows of the bank are its own, i64: `[batch]` for
    /// [`Layout::Row`], `[batch, most]` for [`Layout::Rows`], filled up with 0; empty for numbers. Banks with one index are
    /// filled in step.
    pub index: String,
    /// What rows without an adapter find.
    pub null: f32,
    /// Which value of the fragment it keeps.
    pub(super) value: ValueId,
}

/// What a value is for rows that have no adapter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Null {
    /// Zeros.
    Zeros,
    /// Ones.
    Ones,
    /// Anything.
    Any,
}

impl Fragment {
    /// The kinds of its values. `is_fixed` says it of values of the base.
    pub(super) fn kinds(&self, of_base: &dyn Fn(ValueId) -> Kind) -> Vec<Kind> {
        let from: HashMap<ValueId, ValueId> = self.reads.iter().map(|r| (r.value, r.from)).collect();
        kinds(&self.graph, &|v| from.get(&v).map_or(Kind::Param, |f| of_base(*f)))
    }

    /// The axis of a value that may be padded, if it has one.
    pub(super) fn padded_axis(&self, v: ValueId) -> Option<usize> {
        let padded = |d: &Dim| d.known().is_none();
        self.graph.shape(v)?.iter().position(padded)
    }

    /// What the value of parameters `v` is where nothing is done, as far as its way from one parameter shows.
    pub(super) fn null_of(&self, v: ValueId) -> Null {
        let mut v = v;
        let producers = self.graph.producers();
        loop {
            if let Some(i) = self.leaves.iter().position(|l| *l == v) {
                return match self.neutral[i] {
                    Neutral::Zeros => Null::Zeros,
                    Neutral::Ones => Null::Ones,
                    Neutral::Other => Null::Any,
                };
            }
            let Some(node) = producers[v.index()].map(|i| &self.graph.nodes[i]) else { return Null::Any };
            match node.input(0).filter(|_| moves(node)) {
                Some(from) => v = from,
                None => return Null::Any,
            }
        }
    }

    /// The values that `wanted` of its parameters are, given its leaves; `None` where it takes more than moving them.
    ///
    /// # Errors
    /// Never for leaves of the shapes that they were declared with.
    pub fn moved(&self, bank: &Bank, leaves: &[&Tensor]) -> Option<Tensor> {
        let producers = self.graph.producers();
        let mut path: Vec<&Node> = Vec::new();
        let mut v = bank.value;
        let leaf = loop {
            if let Some(i) = self.leaves.iter().position(|l| *l == v) {
                break i;
            }
            let node = producers[v.index()].map(|i| &self.graph.nodes[i])?;
            v = node.input(0).filter(|_| moves(node))?;
            path.push(node);
        };
        let mut tensor = (*leaves.get(leaf)?).clone();
        for node in path.into_iter().rev() {
            tensor = self.step(node, &tensor)?;
        }
        Some(tensor)
    }

    fn step(&self, node: &Node, t: &Tensor) -> Option<Tensor> {
        match node.op.as_str() {
            "Identity" => Some(t.clone()),
            "Transpose" => {
                let rank = t.shape().len();
                let perm: Vec<usize> = match node.ints("perm") {
                    Some(p) => p.iter().map(|a| usize::try_from(*a).ok()).collect::<Option<_>>()?,
                    None => (0..rank).rev().collect(),
                };
                transposed(t, &perm)
            }
            "Reshape" => {
                let to = self.graph.constant(node.input(1)?)?.to_i64s()?;
                let kept = |(i, d): (usize, &i64)| {
                    if *d == 0 { t.shape().get(i).map(|d| *d as i64) } else { Some(*d) }
                };
                let to: Vec<i64> = to.iter().enumerate().map(kept).collect::<Option<_>>()?;
                let known: usize = to.iter().filter(|d| **d > 0).map(|d| *d as usize).product();
                let size = |d: &i64| match *d {
                    -1 => t.len().checked_div(known),
                    d => usize::try_from(d).ok(),
                };
                t.reshape(to.iter().map(size).collect::<Option<Vec<usize>>>()?).ok()
            }
            "Squeeze" | "Unsqueeze" => {
                // Sizes of 1 come or go: what is known of the output says where.
                let to = self.graph.shape(node.output(0)?)?;
                let mut left = t.shape().iter().filter(|d| **d != 1);
                let size = |d: &Dim| match d.known() {
                    Some(n) => usize::try_from(n).ok().inspect(|n| {
                        if *n != 1 {
                            left.next();
                        }
                    }),
                    None => left.next().copied(),
                };
                t.reshape(to.iter().map(size).collect::<Option<Vec<usize>>>()?).ok()
            }
            _ => None,
        }
    }

    /// A graph from the leaves (inputs `p0`, `p1` … in their order, those that it needs) to what the banks keep, over the
    /// weights of the base.
    pub fn recipe(&self, base: &Graph, banks: &[&Bank]) -> Option<Graph> {
        let mut graph = self.graph.clone();
        for r in &self.reads {
            let Some(t) = base.constant(r.from) else { continue };
            graph.inputs.retain(|v| *v != r.value);
            graph.set_constant(r.value, t.clone());
            // Under its own name, so that a session shares it.
            graph.rename(r.value, base.name_of(r.from));
        }
        graph.outputs = banks.iter().map(|b| b.value).collect();
        let graph = graph.cut_to(&graph.outputs.clone());
        let known = |v: &ValueId| self.leaves.contains(v);
        graph.inputs.iter().all(known).then_some(graph)
    }

    /// The name of leaf `i` in [`Fragment::recipe`], and of what it gives for a bank.
    pub fn recipe_names(&self, i: usize, bank: &Bank) -> (Option<&str>, &str) {
        (self.leaves.get(i).map(|v| self.graph.name_of(*v)), self.graph.name_of(bank.value))
    }
}

/// Whether a node only moves the elements of its first input.
fn moves(node: &Node) -> bool {
    node.domain.is_empty()
        && ["Identity", "Transpose", "Reshape", "Squeeze", "Unsqueeze"].contains(&node.op.as_str())
}

/// The tensor with its axes in another order.
pub(super) fn transposed(t: &Tensor, perm: &[usize]) -> Option<Tensor> {
    let from = t.shape();
    if perm.len() != from.len() || t.dtype() != DType::F32 || !(0..from.len()).all(|a| perm.contains(&a)) {
        return None;
    }
    let values = t.values::<f32>().ok()?;
    let mut strides = vec![1usize; from.len()];
    for a in (0..from.len().saturating_sub(1)).rev() {
        strides[a] = strides[a + 1] * from[a + 1];
    }
    let to: Vec<usize> = perm.iter().map(|a| from[*a]).collect();
    let steps: Vec<usize> = perm.iter().map(|a| strides[*a]).collect();
    let mut out = Vec::with_capacity(values.len());
    let mut place = vec![0usize; to.len()];
    for _ in 0..values.len() {
        out.push(values[place.iter().zip(&steps).map(|(p, s)| p * s).sum::<usize>()]);
        for a in (0..to.len()).rev() {
            place[a] += 1;
            if place[a] < to[a] {
                break;
            }
            place[a] = 0;
        }
    }
    Tensor::new(to, &out).ok()
}

impl Bank {
    /// The rows of the bank that a value fills, one after the other, each of [`Bank::row`]'s size.
    pub fn rows_of(&self, value: &Tensor) -> Option<Vec<f32>> {
        let whole = match self.layout {
            Layout::Rows(axis) if axis > 0 => {
                let rank = value.shape().len();
                let perm: Vec<usize> =
                    std::iter::once(axis).chain((0..rank).filter(|a| *a != axis)).collect();
                transposed(value, &perm)?
            }
            _ => value.clone(),
        };
        let (row, per) = (whole.values::<f32>().ok()?.into_owned(), self.row.iter().product::<usize>());
        (row.len() % per.max(1) == 0).then_some(row)
    }
}
