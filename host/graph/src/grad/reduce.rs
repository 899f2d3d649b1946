//! Gradients of reductions and running sums.

use super::{Grads, Row, Rule};
use crate::ir::{Attr, ValueId};

pub(super) const RULES: &[Row] = &[
    ("ReduceSum", "", |r| {
        let (dy, x) = (r.dy()?, r.x(0)?);
        let dy = kept(r, dy)?;
        Ok(vec![Some(spread(r, dy, x))])
    }),
    ("ReduceMean", "", |r| {
        let (dy, x) = (r.dy()?, r.x(0)?);
        let dy = kept(r, dy)?;
        // A count need not fit into a half-width float.
        let dy = r.wide(dy);
        let n = reduced_count(r, x, r.y(0)?, dy)?;
        let share = r.op("Div", &[dy, n]);
        let share = r.b.cast(share, r.dtype(x));
        Ok(vec![Some(spread(r, share, x))])
    }),
    ("ReduceMax", "those that tie share the gradient evenly, as with PyTorch's amax", extremum),
    ("ReduceMin", "those that tie share the gradient evenly, as with PyTorch's amin", extremum),
    ("ReduceProd", "right with zeros, too", prod),
    ("ReduceL1", "zero at zero", |r| {
        let (dy, x) = (r.dy()?, r.x(0)?);
        let (dy, sign) = (kept(r, dy)?, r.op("Sign", &[x]));
        Ok(vec![Some(r.op("Mul", &[dy, sign]))])
    }),
    ("ReduceL2", "zero where the norm is zero", |r| {
        // dy·x/y
        let (dy, x, y) = (r.dy()?, r.x(0)?, r.y(0)?);
        let (dy, y) = (kept(r, dy)?, kept(r, y)?);
        let (zero, one) = (r.c(0.0, x), r.c(1.0, x));
        let flat = r.op("Equal", &[y, zero]);
        let safe = r.op("Where", &[flat, one, y]);
        let unit = r.op("Div", &[x, safe]);
        Ok(vec![Some(r.op("Mul", &[dy, unit]))])
    }),
    ("ReduceSumSquare", "", |r| {
        let (dy, x) = (r.dy()?, r.x(0)?);
        let (dy, two) = (kept(r, dy)?, r.c(2.0, x));
        let twice = r.op("Mul", &[x, two]);
        Ok(vec![Some(r.op("Mul", &[dy, twice]))])
    }),
    ("ReduceLogSum", "", |r| {
        // dy / Σx
        let (dy, x) = (r.dy()?, r.x(0)?);
        let dy = kept(r, dy)?;
        let sum = again(r, "ReduceSum", x);
        let dy = r.wide(dy);
        let g = r.op("Div", &[dy, sum]);
        let g = r.b.cast(g, r.dtype(x));
        Ok(vec![Some(spread(r, g, x))])
    }),
    ("ReduceLogSumExp", "", |r| {
        // dy·exp(x − y)
        let (dy, x, y) = (r.dy()?, r.x(0)?, r.y(0)?);
        let (dy, y) = (kept(r, dy)?, kept(r, y)?);
        let below = r.op("Sub", &[x, y]);
        let share = r.op("Exp", &[below]);
        Ok(vec![Some(r.op("Mul", &[dy, share]))])
    }),
    ("CumSum", "", |r| {
        // Each element went into the sums behind it: summed from the other end.
        let (dy, axis) = (r.dy()?, r.x(1)?);
        let dy = r.wide(dy);
        let (exclusive, reverse) = (r.node.int("exclusive", 0), r.node.int("reverse", 0));
        let attrs = [("exclusive", Attr::Int(exclusive)), ("reverse", Attr::Int(i64::from(reverse == 0)))];
        Ok(vec![Some(r.op_with("CumSum", &[dy, axis], &attrs))])
    }),
];

/// A value of the output's shape with the reduced axes back in place as ones.
fn kept(r: &mut Rule<'_, '_>, v: ValueId) -> Result<ValueId, String> {
    if r.node.int("keepdims", 1) != 0 {
        return Ok(v);
    }
    match r.node.input(1) {
        Some(axes) if r.node.int("noop_with_empty_axes", 0) == 0 || !r.numbers(1)?.is_empty() => {
            // Axes count within the input's rank, which is the rank of the result here, too.
            Ok(r.op("Unsqueeze", &[v, axes]))
        }
        _ => Ok(v),
    }
}

/// A reduction of `x` over the node's own axes, which stay as ones; in float32 where `x` is of a half-width type.
fn again(r: &mut Rule<'_, '_>, op: &str, x: ValueId) -> ValueId {
    let x = r.wide(x);
    let inputs: Vec<ValueId> = std::iter::once(x).chain(r.node.input(1)).collect();
    let noop = r.node.int("noop_with_empty_axes", 0);
    r.op_with(op, &inputs, &[("keepdims", Attr::Int(1)), ("noop_with_empty_axes", Attr::Int(noop))])
}

/// `dy` repeated over the shape of `x`.
pub(super) fn spread(r: &mut Rule<'_, '_>, dy: ValueId, x: ValueId) -> ValueId {
    let known = r.b.graph.shape(x).cloned();
    let shape = r.b.shape_of(x, known.as_ref());
    let g = r.op("Expand", &[dy, shape]);
    r.b.graph.fact_mut(g).shape = known;
    g
}

/// How many elements of `x` went into each one of `y`, as a float scalar of the type of `like`.
pub(super) fn reduced_count(
    r: &mut Rule<'_, '_>,
    x: ValueId,
    y: ValueId,
    like: ValueId,
) -> Result<ValueId, String> {
    let count = |v: ValueId, r: &Rule<'_, '_>| r.shape(v).map(|s| crate::dim::product(&s));
    if let Some(n) = count(x, r)?.divided_exactly(&count(y, r)?).and_then(|d| d.known()) {
        return Ok(r.c(n as f64, like));
    }
    let (all, left) = (r.op("Size", &[x]), r.op("Size", &[y]));
    let n = r.op("Div", &[all, left]);
    let dtype = r.dtype(like);
    Ok(r.b.cast(n, dtype))
}

fn extremum(r: &mut Rule<'_, '_>) -> Grads {
    let (dy, x, y) = (r.dy()?, r.x(0)?, r.y(0)?);
    let (dy, y) = (kept(r, dy)?, kept(r, y)?);
    let hit = r.op("Equal", &[x, y]);
    let (hit, dy) = (r.b.cast(hit, r.dtype(x)), r.wide(dy));
    let count = again(r, "ReduceSum", hit);
    let share = r.op("Div", &[dy, count]);
    let share = r.b.cast(share, r.dtype(x));
    Ok(vec![Some(r.op("Mul", &[share, hit]))])
}

/// With z zeros among the factors of a product, a factor's gradient is the product of the others: of all that are not
/// zero, divided by itself, if z = 0; of all that are not zero, for the zero, if z = 1; else nothing.
fn prod(r: &mut Rule<'_, '_>) -> Grads {
    let (dy, x) = (r.dy()?, r.x(0)?);
    let dy = kept(r, dy)?;
    let (zero, one) = (r.c(0.0, x), r.c(1.0, x));
    let is_zero = r.op("Equal", &[x, zero]);
    let safe = r.op("Where", &[is_zero, one, x]);
    let product = again(r, "ReduceProd", safe);
    // Counted in floats: the numbers that matter are 0 and 1.
    let wide = r.wide(x);
    let is_zero = r.b.cast(is_zero, r.dtype(wide));
    let zeros = again(r, "ReduceSum", is_zero);
    let counts = r.op("Equal", &[zeros, is_zero]);
    let (dy, safe) = (r.wide(dy), r.wide(safe));
    let g = r.op("Mul", &[dy, product]);
    let g = r.op("Div", &[g, safe]);
    let zero = r.c(0.0, g);
    Ok(vec![Some(r.op("Where", &[counts, g, zero]))])
}
