//! Gradient of the discrete Fourier transform.

use super::{Grads, Row, Rule};
use crate::ir::{Attr, Attrs};

pub(super) const RULES: &[Row] =
    &[("DFT", "without `onesided`, and without a `dft_length` that pads or cuts the signal", dft)];

/// The transform is a symmetric complex matrix `F`, and its inverse the conjugate of `F` by the length `n`: what flows
/// back through `F` is `n` times the inverse of it, and through the inverse the transform by `n`. Of a real signal
/// (last axis 1) the real part counts.
fn dft(r: &mut Rule<'_, '_>) -> Grads {
    let (dy, x) = (r.dy()?, r.x(0)?);
    if r.node.int("onesided", 0) != 0 {
        return Err("gradients of a one-sided transform are not derived".into());
    }
    if r.node.input(1).is_some() {
        return Err("gradients of a transform with its own length (dft_length) are not derived".into());
    }
    let shape = r.shape(x)?;
    let axis = match r.node.input(2) {
        Some(_) => r.numbers(2)?.first().copied().ok_or("the axis is empty")?,
        None => -2,
    };
    let axis = r.axis(axis, shape.len())?;
    let inverse = r.node.int("inverse", 0) != 0;
    let other: Attrs = [("inverse".to_string(), Attr::Int(i64::from(!inverse)))].into();
    let at = r.b.scalar(axis as i64);
    let back = r.b.emit("DFT", "", &[Some(dy), None, Some(at)], other, 1)[0];
    let dtype = r.dtype(x);
    let sizes = r.op("Shape", &[x]);
    let n = r.op("Gather", &[sizes, at]);
    let n = r.b.cast(n, dtype);
    let dx = r.op(if inverse { "Div" } else { "Mul" }, &[back, n]);
    if shape.last().is_some_and(|d| d.is(2)) {
        return Ok(vec![Some(dx)]);
    }
    let [from, last] = [0, -1].map(|k| r.b.ints(&[k]));
    let parts = r.op("Gather", &[sizes, last]);
    Ok(vec![Some(r.op("Slice", &[dx, from, parts, last]))])
}
