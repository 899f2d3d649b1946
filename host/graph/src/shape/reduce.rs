//! Reductions.

use super::{Infer, Rule, one};
use crate::dim::{Dim, Shape, product};
use crate::ir::Fact;
use crate::tensor::DType;

pub(super) const RULES: &[(&str, Rule)] = &[
    ("ReduceSum", reduce),
    ("ReduceMean", reduce),
    ("ReduceMax", reduce),
    ("ReduceMin", reduce),
    ("ReduceProd", reduce),
    ("ReduceL1", reduce),
    ("ReduceL2", reduce),
    ("ReduceLogSum", reduce),
    ("ReduceLogSumExp", reduce),
    ("ReduceSumSquare", reduce),
    ("ArgMax", arg),
    ("ArgMin", arg),
    ("TopK", top_k),
];

fn without(i: &Infer<'_>, axes: &[i64], keep: bool) -> Option<Shape> {
    let x = i.shape(0)?;
    let axes: Vec<usize> = axes.iter().map(|a| i.axis(*a, x.len())).collect::<Option<_>>()?;
    let left = |(k, d): (usize, &Dim)| match (axes.contains(&k), keep) {
        (false, _) => Some(d.clone()),
        (true, true) => Some(Dim::from(1)),
        (true, false) => None,
    };
    Some(x.iter().enumerate().filter_map(left).collect())
}

fn reduce(i: &Infer<'_>) -> Option<Vec<Fact>> {
    let keep = i.node.int("keepdims", 1) != 0;
    let x = i.shape(0)?;
    let axes: Vec<i64> = if i.has(1) { i.numbers(1)? } else { Vec::new() };
    if axes.is_empty() && i.node.int("noop_with_empty_axes", 0) != 0 {
        return one(i.dtype(0), Some(x.clone()));
    }
    let axes = if axes.is_empty() { (0..x.len() as i64).collect() } else { axes };
    let shape = without(i, &axes, keep);
    let elements = match (i.node.op.as_str(), i.elements(0), &shape) {
        ("ReduceProd", Some(e), Some(s)) if s.len() <= 1 => Some(vec![product(e)]),
        ("ReduceSum", Some(e), Some(s)) if s.len() <= 1 => {
            Some(vec![e.iter().fold(Dim::from(0), |a, d| a.plus(d))])
        }
        _ => None,
    };
    Some(vec![Fact { dtype: i.dtype(0), shape, elements }])
}

fn arg(i: &Infer<'_>) -> Option<Vec<Fact>> {
    one(Some(DType::I64), without(i, &[i.node.int("axis", 0)], i.node.int("keepdims", 1) != 0))
}

fn top_k(i: &Infer<'_>) -> Option<Vec<Fact>> {
    let mut shape = i.shape(0)?.clone();
    let axis = i.axis(i.node.int("axis", -1), shape.len())?;
    shape[axis] = i.elements(1).and_then(|e| e.first().cloned()).unwrap_or_else(|| i.unknown(axis));
    let values = Fact { dtype: i.dtype(0), shape: Some(shape.clone()), elements: None };
    Some(vec![values, Fact { dtype: Some(DType::I64), shape: Some(shape), elements: None }])
}
