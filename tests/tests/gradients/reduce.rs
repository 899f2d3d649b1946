//! Cases of reductions.

use graft_graph::{Attr, Tensor};
use graft_tests::Draw;
use graft_tests::differences::Tolerance::Exact;
use graft_tests::differences::{Arg, Case};

use crate::{Row, case};

pub const CASES: &[Row] = &[("ReduceSum", Exact, reduction), ("ReduceMean", Exact, reduction)];

/// Some axes, all by leaving them out, or none by an empty list; with the axes kept or not.
fn reduction(op: &'static str, d: &mut Draw<'_>) -> Case {
    let shape = d.shape(0..=3);
    let mut args = vec![Arg::Float(d.reals(&shape, (-2.0, 2.0), &[]))];
    if d.below(4) != 3 {
        let axes = d.axes(shape.len());
        let written: Vec<i64> = axes.iter().map(|a| d.written(*a, shape.len())).collect();
        args.push(Arg::Constant(Tensor::vector(&written)));
    }
    let mut c = case(op, args, &[]);
    if let Some(keep) = d.pick(&[None, Some(0), Some(1)]) {
        c.attrs.insert("keepdims".into(), Attr::Int(keep));
    }
    if d.flag() {
        c.attrs.insert("noop_with_empty_axes".into(), Attr::Int(1));
    }
    c
}
