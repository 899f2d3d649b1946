//! Cases of matrix products and of softmax.

use graft_graph::Attr;
use graft_tests::Draw;
use graft_tests::differences::Tolerance::{Close, Exact};
use graft_tests::differences::{Arg, Case};

use crate::{Row, case};

const RANGE: (f64, f64) = (-2.0, 2.0);

pub const CASES: &[Row] = &[
    ("MatMul", Exact, matmul),
    ("Gemm", Exact, gemm),
    ("Softmax", Close, softmax),
    ("LogSoftmax", Close, softmax),
];

/// Vectors, matrices and stacks of them on either side; stacks broadcast.
fn matmul(op: &'static str, d: &mut Draw<'_>) -> Case {
    let (m, k, n) = (d.size(1..=3), d.size(1..=3), d.size(1..=3));
    let stack = d.shape(0..=2);
    let (mut a, mut b) = match d.below(4) {
        // A weight is the commonest.
        0 => (stack, Vec::new()),
        1 => (Vec::new(), stack),
        _ => (d.narrowed(&stack), d.narrowed(&stack)),
    };
    match d.below(5) {
        3 => a = vec![k],
        _ => a.extend([m, k]),
    }
    match d.below(5) {
        4 => b = vec![k],
        _ => b.extend([k, n]),
    }
    case(op, vec![Arg::Float(d.reals(&a, RANGE, &[])), Arg::Float(d.reals(&b, RANGE, &[]))], &[])
}

fn gemm(op: &'static str, d: &mut Draw<'_>) -> Case {
    let (m, k, n) = (d.size(1..=3), d.size(1..=3), d.size(1..=3));
    let (ta, tb) = (d.flag(), d.flag());
    let a = if ta { [k, m] } else { [m, k] };
    let b = if tb { [n, k] } else { [k, n] };
    let mut args = vec![Arg::Float(d.reals(&a, RANGE, &[])), Arg::Float(d.reals(&b, RANGE, &[]))];
    let bias =
        d.pick(&[None, Some(vec![n]), Some(vec![]), Some(vec![1, n]), Some(vec![m, 1]), Some(vec![m, n])]);
    args.extend(bias.map(|s| Arg::Float(d.reals(&s, RANGE, &[]))));
    let mut c = case(op, args, &[]);
    for (name, on) in [("transA", ta), ("transB", tb)] {
        if on || d.flag() {
            c.attrs.insert(name.into(), Attr::Int(i64::from(on)));
        }
    }
    for name in ["alpha", "beta"] {
        if d.flag() {
            let factor = d.pick(&[0.5, -1.25, 0.0, 2.0]);
            c.attrs.insert(name.into(), Attr::Float(factor));
        }
    }
    c
}

fn softmax(op: &'static str, d: &mut Draw<'_>) -> Case {
    let shape = d.shape(1..=3);
    let mut c = case(op, vec![Arg::Float(d.reals(&shape, RANGE, &[]))], &[]);
    if d.flag() {
        let (_, axis) = d.axis(shape.len());
        c.attrs.insert("axis".into(), Attr::Int(axis));
    }
    c
}
