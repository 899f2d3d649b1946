//! Gradients of matrix products and of softmax.

use super::{Grads, Row, Rule};
use crate::fused;
use crate::ir::{Attr, ValueId};

pub(super) const RULES: &[Row] =
    &[("MatMul", "", matmul), ("Gemm", "", gemm), ("Softmax", "", softmax), ("LogSoftmax", "", log_softmax)];

/// `A·B` with either side transposed, as a `Gemm`: two-dimensional operands, no transposed copy.
fn product(r: &mut Rule<'_, '_>, a: ValueId, ta: bool, b: ValueId, tb: bool) -> ValueId {
    let attrs = [("transA", Attr::Int(i64::from(ta))), ("transB", Attr::Int(i64::from(tb)))];
    r.op_with("Gemm", &[a, b], &attrs)
}

/// The last two axes swapped.
pub(super) fn flipped(r: &mut Rule<'_, '_>, x: ValueId) -> Result<ValueId, String> {
    let n = r.rank(x)? as i64;
    let mut perm: Vec<i64> = (0..n).collect();
    perm.swap(n as usize - 1, n as usize - 2);
    Ok(r.op_with("Transpose", &[x], &[("perm", Attr::Ints(perm))]))
}

fn matmul(r: &mut Rule<'_, '_>) -> Grads {
    let (dy, a, b) = (r.dy()?, r.x(0)?, r.x(1)?);
    match (r.rank(a)?, r.rank(b)?) {
        (1, _) | (_, 1) => matmul_vector(r, dy, a, b),
        (_, 2) => {
            // A weight: rows of any batch shape times a matrix.
            let flat = r.b.as_matrix(dy);
            let da = if r.wants(0) {
                let d = product(r, flat, false, b, true);
                Some(r.b.reshape_like(d, a))
            } else {
                None
            };
            let db = if r.wants(1) {
                let rows = r.b.as_matrix(a);
                Some(product(r, rows, true, flat, false))
            } else {
                None
            };
            Ok(vec![da, db])
        }
        _ => {
            let da = if r.wants(0) {
                let bt = flipped(r, b)?;
                Some(r.op("MatMul", &[dy, bt]))
            } else {
                None
            };
            let db = if r.wants(1) {
                let at = flipped(r, a)?;
                Some(r.op("MatMul", &[at, dy]))
            } else {
                None
            };
            Ok(vec![da, db])
        }
    }
}

/// A product with a vector on a side: the vector becomes a matrix of one row or column, and the rule for matrices
/// gives the rest.
fn matmul_vector(r: &mut Rule<'_, '_>, dy: ValueId, a: ValueId, b: ValueId) -> Grads {
    let (row, column) = (r.rank(a)? == 1, r.rank(b)? == 1);
    let mut axes = Vec::new();
    let (first, last) = (r.b.ints(&[0]), r.b.ints(&[-1]));
    let am = if row { r.op("Unsqueeze", &[a, first]) } else { a };
    let bm = if column { r.op("Unsqueeze", &[b, last]) } else { b };
    if row {
        axes.push(if column { -1 } else { -2 });
    }
    if column {
        axes.push(if row { -2 } else { -1 });
    }
    let axes = r.b.ints(&axes);
    let dm = r.op("Unsqueeze", &[dy, axes]);
    let bt = flipped(r, bm)?;
    let at = flipped(r, am)?;
    let mut da = r.op("MatMul", &[dm, bt]);
    let mut db = r.op("MatMul", &[at, dm]);
    if row {
        let axes = r.b.ints(&[-2]);
        da = r.op("Squeeze", &[da, axes]);
    }
    if column {
        db = r.op("Squeeze", &[db, last]);
    }
    Ok(vec![Some(da), Some(db)])
}

fn gemm(r: &mut Rule<'_, '_>) -> Grads {
    let (dy, a, b) = (r.dy()?, r.x(0)?, r.x(1)?);
    let (ta, tb) = (r.node.int("transA", 0) != 0, r.node.int("transB", 0) != 0);
    let (alpha, beta) = (f64::from(r.node.float("alpha", 1.0)), f64::from(r.node.float("beta", 1.0)));
    let scaled = |r: &mut Rule<'_, '_>, v: ValueId, by: f64| {
        if by == 1.0 {
            return v;
        }
        let c = r.c(by, v);
        r.op("Mul", &[v, c])
    };
    let g = scaled(r, dy, alpha);
    let da = match (r.wants(0), ta) {
        (false, _) => None,
        (_, false) => Some(product(r, g, false, b, !tb)),
        (_, true) => Some(product(r, b, tb, g, true)),
    };
    let db = match (r.wants(1), tb) {
        (false, _) => None,
        (_, false) => Some(product(r, a, !ta, g, false)),
        (_, true) => Some(product(r, g, true, a, ta)),
    };
    let dc = if r.wants(2) { Some(scaled(r, dy, beta)) } else { None };
    Ok(vec![da, db, dc])
}

fn softmax(r: &mut Rule<'_, '_>) -> Grads {
    let (dy, y) = (r.dy()?, r.y(0)?);
    let rank = r.rank(y)?;
    let (dy, y) = (r.wide(dy), r.wide(y));
    let axis = r.axis(r.node.int("axis", -1), rank)?;
    if axis + 1 == rank {
        return Ok(vec![Some(fused::emit(r.b, "SoftmaxGrad", &[dy, y], &[]))]);
    }
    let p = r.op("Mul", &[dy, y]);
    let axes = r.b.ints(&[axis as i64]);
    let sum = r.op("ReduceSum", &[p, axes]);
    let d = r.op("Sub", &[dy, sum]);
    Ok(vec![Some(r.op("Mul", &[y, d]))])
}

fn log_softmax(r: &mut Rule<'_, '_>) -> Grads {
    // dy − softmax·Σdy
    let (dy, y) = (r.dy()?, r.y(0)?);
    let (dy, y) = (r.wide(dy), r.wide(y));
    let axes = r.b.ints(&[r.node.int("axis", -1)]);
    let sum = r.op("ReduceSum", &[dy, axes]);
    let soft = r.op("Exp", &[y]);
    let p = r.op("Mul", &[soft, sum]);
    Ok(vec![Some(r.op("Sub", &[dy, p]))])
}
