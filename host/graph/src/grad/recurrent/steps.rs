//! What runs step by step, and what each step begins with.

use super::super::Rule;
use crate::builder::Builder;
use crate::dim::Dim;
use crate::ir::{Attr, Fact, Graph, ValueId};
use crate::tensor::DType;

/// Which steps are in a row and which lie behind its end.
#[derive(Clone)]
pub(super) struct Mask {
    /// One where the step is in the row, else zero `[T, N, 1]`.
    pub(super) real: ValueId,
    /// One where it is not `[T, N, 1]`.
    pub(super) padded: ValueId,
    /// One for rows that have a step at all: the operator gives zeros for others `[N, 1]`.
    pub(super) begun: ValueId,
}

impl Mask {
    /// Rows of `lengths` `[N]` steps, in the float type of `y` `[T, D, N, H]`.
    pub(super) fn new(r: &mut Rule<'_, '_>, lengths: ValueId, y: ValueId) -> Mask {
        let shape = r.op_with("Shape", &[y], &[("end", Attr::Int(1))]);
        let (zero, one) = (r.b.scalar(0i64), r.b.scalar(1i64));
        let count = r.op("Squeeze", &[shape]);
        let steps = r.op("Range", &[zero, count, one]);
        let behind = r.b.ints(&[1]);
        let steps = r.op("Unsqueeze", &[steps, behind]);
        let lengths = r.b.cast(lengths, DType::I64);
        let real = r.op("Less", &[steps, lengths]);
        let dtype = r.dtype(y);
        let real = r.b.cast(real, dtype);
        let last = r.b.ints(&[2]);
        let real = r.op("Unsqueeze", &[real, last]);
        let padded = super::complement(r, real);
        let begun = r.op("Gather", &[real, zero]);
        Mask { real, padded, begun }
    }

    /// `v` `[T, N, ..]`, and zero behind the end of a row.
    pub(super) fn cut(mask: Option<&Mask>, r: &mut Rule<'_, '_>, v: ValueId) -> ValueId {
        mask.map_or(v, |m| r.op("Mul", &[v, m.real]))
    }

    /// By how much a state is kept: `v` `[T, N, H]`, and one behind the end of a row.
    pub(super) fn keep(mask: Option<&Mask>, r: &mut Rule<'_, '_>, v: ValueId) -> ValueId {
        let Some(m) = mask else { return v };
        let cut = r.op("Mul", &[v, m.real]);
        r.op("Add", &[cut, m.padded])
    }
}

/// Direction `k` of `count`, which are along `axis`; the axis goes.
pub(super) fn direction(r: &mut Rule<'_, '_>, v: ValueId, axis: i64, k: usize, count: usize) -> ValueId {
    if count == 1 {
        let axes = r.b.ints(&[axis]);
        return r.op("Squeeze", &[v, axes]);
    }
    let at = r.b.scalar(k as i64);
    r.op_with("Gather", &[v, at], &[("axis", Attr::Int(axis))])
}

/// Cuts an axis into parts of the given sizes.
pub(super) fn split<const N: usize>(
    r: &mut Rule<'_, '_>,
    v: ValueId,
    axis: i64,
    sizes: [i64; N],
) -> [ValueId; N] {
    let parts = r.b.ints(&sizes);
    let attrs = [("axis".to_string(), Attr::Int(axis))].into();
    let made = r.b.emit("Split", "", &[Some(v), Some(parts)], attrs, N);
    std::array::from_fn(|k| made[k])
}

/// Zeros `[N, H]` for `y` `[T, N, H]`.
pub(super) fn blank(r: &mut Rule<'_, '_>, y: ValueId) -> ValueId {
    let shape = r.op_with("Shape", &[y], &[("start", Attr::Int(1))]);
    let zero = r.c(0.0, y);
    let zeros = r.op("Expand", &[zero, shape]);
    r.b.graph.fact_mut(zeros).shape = r.b.graph.shape(y).and_then(|s| s.get(1..)).map(<[Dim]>::to_vec);
    zeros
}

/// The state before each step, of the states `y` `[T, N, H]` behind them and the `first` one `[N, H]` (or zeros).
pub(super) fn before(
    r: &mut Rule<'_, '_>,
    y: ValueId,
    first: Option<ValueId>,
    reverse: bool,
    mask: Option<&Mask>,
) -> ValueId {
    let mut behind = y;
    if let (true, Some(first), Some(mask)) = (reverse, first, mask) {
        // The operator gives zeros behind the end of a row, where backwards the first state still stands.
        let there = r.op("Mul", &[mask.padded, first]);
        behind = r.op("Add", &[y, there]);
    }
    let first = first.unwrap_or_else(|| blank(r, y));
    let axes = r.b.ints(&[0]);
    let first = r.op("Unsqueeze", &[first, axes]);
    let (start, end) = if reverse { (1, i64::MAX) } else { (0, -1) };
    let (start, end) = (r.b.ints(&[start]), r.b.ints(&[end]));
    let rest = r.op("Slice", &[behind, start, end, axes]);
    let parts = if reverse { [rest, first] } else { [first, rest] };
    let all = r.op_with("Concat", &parts, &[("axis", Attr::Int(0))]);
    r.b.graph.fact_mut(all).shape = r.b.graph.shape(y).cloned();
    all
}

/// What a body of [`scan`] works with, all of it values of the body.
pub(super) struct Step<'a, 'g> {
    pub(super) b: &'a mut Builder<'g>,
    /// States before the step.
    pub(super) states: Vec<ValueId>,
    /// This step's part of each sequence.
    pub(super) parts: Vec<ValueId>,
    /// Values from outside that are the same in every step.
    pub(super) fixed: Vec<ValueId>,
}

/// What [`scan`] runs over.
pub(super) struct Over<'a> {
    /// States before the first step.
    pub(super) states: &'a [ValueId],
    /// Values whose first axis is the steps.
    pub(super) sequences: &'a [ValueId],
    /// Values that are the same in every step.
    pub(super) fixed: &'a [ValueId],
    /// The last step comes first.
    pub(super) reverse: bool,
}

/// Runs `body` for each step; it gives the states behind the step and the step's results. Gives the states behind all
/// steps, and of each result those of all steps along a new first axis, in the order of the sequences.
pub(super) fn scan(
    r: &mut Rule<'_, '_>,
    over: &Over<'_>,
    body: impl FnOnce(&mut Step<'_, '_>) -> (Vec<ValueId>, Vec<ValueId>),
) -> (Vec<ValueId>, Vec<ValueId>) {
    // Values of the body must not have the name of one outside.
    let scope = format!("{}/step/", over.states.first().map_or("", |v| r.b.graph.name_of(*v)));
    let mut inner = Graph::new("step", r.b.graph.opset());
    let outer: &Graph = r.b.graph;
    let steps = over.sequences.first().and_then(|v| outer.shape(*v)?.first().cloned());
    let mut input = |v: &ValueId, skip: usize| {
        let fact = outer.fact(*v);
        let shape = fact.shape.as_ref().and_then(|s| s.get(skip..)).map(<[Dim]>::to_vec);
        let id = inner.add_value(&format!("{scope}in"), Fact { dtype: fact.dtype, shape, elements: None });
        inner.inputs.push(id);
        id
    };
    let states: Vec<ValueId> = over.states.iter().map(|v| input(v, 0)).collect();
    let parts: Vec<ValueId> = over.sequences.iter().map(|v| input(v, 1)).collect();
    let fixed =
        over.fixed.iter().map(|v| inner.add_value(outer.name_of(*v), outer.fact(*v).clone())).collect();
    let mut b = Builder::new(&mut inner, scope);
    let (next, results) = body(&mut Step { b: &mut b, states, parts, fixed });
    let facts: Vec<Fact> = next.iter().chain(&results).map(|v| inner.fact(*v).clone()).collect();
    let (count, outputs) = (next.len(), next.len() + results.len());
    inner.outputs = next.into_iter().chain(results).collect();
    let way = i64::from(over.reverse);
    let attrs = [
        ("body", Attr::Graph(Box::new(inner))),
        ("num_scan_inputs", Attr::Int(over.sequences.len() as i64)),
        ("scan_input_directions", Attr::Ints(vec![way; over.sequences.len()])),
        ("scan_output_directions", Attr::Ints(vec![way; outputs - count])),
    ];
    let inputs: Vec<Option<ValueId>> = over.states.iter().chain(over.sequences).copied().map(Some).collect();
    let attrs = attrs.into_iter().map(|(k, v)| (k.to_string(), v)).collect();
    let mut made = r.b.emit("Scan", "", &inputs, attrs, outputs);
    for (k, (v, mut fact)) in made.iter().zip(facts).enumerate() {
        if k >= count {
            fact.shape = fact.shape.zip(steps.clone()).map(|(s, n)| std::iter::once(n).chain(s).collect());
        }
        *r.b.graph.fact_mut(*v) = Fact { elements: None, ..fact };
    }
    let results = made.split_off(count);
    (made, results)
}
