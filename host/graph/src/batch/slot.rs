//! What of an adapter is kept in a bank: where parameters meet rows.
//!
//! Whatever depends on parameters and weights of the base alone is computed once, when an adapter is loaded; what it gives
//! to the work on rows is what the bank keeps.

use std::collections::HashMap;

use ndarray::{ArrayViewD, ArrayViewMutD, CowArray, IxDyn};

use super::fragment::{Fragment, Kind, Neutral, kinds};
use crate::dim::Dim;
use crate::ir::{Graph, Node, ValueId};
use crate::tensor::Tensor;

/// A value of an adapter on its way into a bank: its elements stay where they are as long as axes only change places.
type Moving<'t> = CowArray<'t, f32, IxDyn>;

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

    /// Appends the rows that a bank keeps of an adapter with these leaves, one after the other, each of [`Bank::row`]'s
    /// size; `None` where it takes more than moving elements, and then nothing of use is appended.
    pub fn rows_of(&self, bank: &Bank, leaves: &[&Tensor], into: &mut Vec<f32>) -> Option<()> {
        let producers = self.graph.producers();
        let mut path: Vec<&Node> = Vec::new();
        let mut v = bank.value;
        let leaf = loop {
            if let Some(i) = self.leaves.iter().position(|l| *l == v) {
                break *leaves.get(i)?;
            }
            let node = producers[v.index()].map(|i| &self.graph.nodes[i])?;
            v = node.input(0).filter(|_| moves(node))?;
            path.push(node);
        };
        let values = leaf.values::<f32>().ok()?;
        let mut moving = Moving::from(ArrayViewD::from_shape(leaf.shape(), &values).ok()?);
        for node in path.into_iter().rev() {
            moving = self.step(node, moving)?;
        }
        bank.lay_down(moving, into)
    }

    fn step<'t>(&self, node: &Node, t: Moving<'t>) -> Option<Moving<'t>> {
        match node.op.as_str() {
            "Identity" => Some(t),
            "Transpose" => {
                let perm: Vec<usize> = match node.ints("perm") {
                    Some(p) => p.iter().map(|a| usize::try_from(*a).ok()).collect::<Option<_>>()?,
                    None => (0..t.ndim()).rev().collect(),
                };
                permuted(t, perm)
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
                let to = to.iter().map(size).collect::<Option<Vec<usize>>>()?;
                t.into_shape_clone(to).ok()
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
                let to = to.iter().map(size).collect::<Option<Vec<usize>>>()?;
                t.into_shape_clone(to).ok()
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

/// The value with its axes in another order.
fn permuted(t: Moving<'_>, perm: Vec<usize>) -> Option<Moving<'_>> {
    let each_once = perm.len() == t.ndim() && (0..t.ndim()).all(|a| perm.contains(&a));
    each_once.then(|| t.permuted_axes(perm))
}

impl Bank {
    /// Appends the rows that a value fills, one after the other, each of [`Bank::row`]'s size; `None` where it does not.
    pub fn rows_of(&self, shape: &[usize], values: &[f32], into: &mut Vec<f32>) -> Option<()> {
        self.lay_down(ArrayViewD::from_shape(shape, values).ok()?.into(), into)
    }

    fn lay_down(&self, value: Moving<'_>, into: &mut Vec<f32>) -> Option<()> {
        let whole = match self.layout {
            Layout::Rows(axis) if axis > 0 => {
                let first = std::iter::once(axis).chain((0..value.ndim()).filter(|a| *a != axis));
                permuted(value, first.collect())?
            }
            _ => value,
        };
        if !whole.len().is_multiple_of(self.row.iter().product::<usize>().max(1)) {
            return None;
        }
        if let Some(values) = whole.as_slice() {
            into.extend_from_slice(values);
            return Some(());
        }
        let start = into.len();
        into.resize(start + whole.len(), 0.0);
        ArrayViewMutD::from_shape(whole.shape(), &mut into[start..]).ok()?.assign(&whole);
        Some(())
    }
}
