//! Gradients of reductions.

use super::{Row, Rule};
use crate::ir::{Attr, ValueId};

pub(super) const RULES: &[Row] = &[
    ("ReduceSum", "", |r| {
        let (dy, x) = (kept(r)?, r.x(0)?);
        Ok(vec![Some(spread(r, dy, x))])
    }),
    ("ReduceMean", "", |r| {
        let (dy, x) = (kept(r)?, r.x(0)?);
        let g = spread(r, dy, x);
        let n = reduced_count(r, x, r.y(0)?)?;
        Ok(vec![Some(r.op("Div", &[g, n]))])
    }),
];

/// The gradient of the output with the reduced axes back in place as ones.
fn kept(r: &mut Rule<'_, '_>) -> Result<ValueId, String> {
    let dy = r.dy()?;
    if r.node.int("keepdims", 1) != 0 {
        return Ok(dy);
    }
    match r.node.input(1) {
        Some(axes) if r.node.int("noop_with_empty_axes", 0) == 0 || !r.numbers(1)?.is_empty() => {
            // Axes count within the input's rank, which is the rank of the result here, too.
            Ok(r.op("Unsqueeze", &[dy, axes]))
        }
        _ => Ok(dy),
    }
}

/// `dy` repeated over the shape of `x`.
fn spread(r: &mut Rule<'_, '_>, dy: ValueId, x: ValueId) -> ValueId {
    let known = r.b.graph.shape(x).cloned();
    let shape = r.b.shape_of(x, known.as_ref());
    let g = r.op("Expand", &[dy, shape]);
    r.b.graph.fact_mut(g).shape = known;
    g
}

/// How many elements went into each one of the result, as a float scalar of the type of `x`.
fn reduced_count(r: &mut Rule<'_, '_>, x: ValueId, y: ValueId) -> Result<ValueId, String> {
    let count = |v: ValueId, r: &Rule<'_, '_>| r.shape(v).map(|s| crate::dim::product(&s));
    if let Some(n) = count(x, r)?.divided_exactly(&count(y, r)?).and_then(|d| d.known()) {
        return Ok(r.c(n as f64, x));
    }
    let dtype = r.dtype(x);
    let to = [("to", Attr::Int(i64::from(dtype.onnx())))];
    let (all, left) = (r.op("Size", &[x]), r.op("Size", &[y]));
    let n = r.op("Div", &[all, left]);
    Ok(r.op_with("Cast", &[n], &to))
}
