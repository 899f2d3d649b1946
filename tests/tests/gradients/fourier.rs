//! Cases of the Fourier transform.

use graft_graph::{Attr, Tensor};
use graft_tests::Draw;
use graft_tests::differences::Tolerance::Exact;
use graft_tests::differences::{Arg, Case};

use crate::{Row, case};

pub const CASES: &[Row] = &[("DFT", Exact, dft)];

/// Real and complex signals along any axis, forwards and back.
fn dft(op: &'static str, d: &mut Draw<'_>) -> Case {
    let mut shape = d.shape(2..=3);
    let axis = d.below(shape.len());
    shape.push(if d.flag() { 1 } else { 2 });
    let signed = if d.flag() { axis as i64 - shape.len() as i64 } else { axis as i64 };
    let x = d.reals(&shape, (-1.0, 1.0), &[]);
    let args = vec![Arg::Float(x), Arg::Missing, Arg::Constant(Tensor::scalar(signed))];
    case(op, args, &[("inverse", Attr::Int(i64::from(d.flag())))])
}
