//! Gradients of operators that take and place elements by index.

use super::movement::{wrap_negative, zeros_like};
use super::{Grads, Row, Rule};
use crate::ir::{Attr, ValueId};
use crate::tensor::DType;

pub(super) const RULES: &[Row] = &[
    ("GatherElements", "", gather_elements),
    ("GatherND", "", copied),
    ("ScatterElements", "Without a reduction no index may occur twice. Of the reductions, add.", |r| {
        let at = [("axis", Attr::Int(r.node.int("axis", 0)))];
        placed(r, "ScatterElements", "GatherElements", &at)
    }),
    ("ScatterND", "Without a reduction no index may occur twice. Of the reductions, add.", |r| {
        placed(r, "ScatterND", "GatherND", &[])
    }),
    ("TopK", "Of equal elements those that the operator picks have the gradient.", top_k),
    ("Compress", "", copied),
];

/// The rule of operators whose output holds elements of input 0, each of them any number of times or never.
fn copied(r: &mut Rule<'_, '_>) -> Grads {
    let rest: Vec<Option<ValueId>> = r.node.inputs.get(1..).unwrap_or_default().to_vec();
    copied_with(r, &rest)
}

/// As [`copied`], for an operator whose other inputs are `rest`. The operator is applied to the numbers of its
/// input's elements, which tells where each element of the output came from, whatever the sizes are and however
/// indices are written; there its gradient is added.
pub(super) fn copied_with(r: &mut Rule<'_, '_>, rest: &[Option<ValueId>]) -> Grads {
    let (dy, x) = (r.dy()?, r.x(0)?);
    let (dy, known) = (r.wide(dy), r.shape(x)?);
    let whole = [("allowzero", Attr::Int(1))];
    let shape = r.b.shape_of(x, Some(&known));
    let (zero, one, count) = (r.b.scalar(0i64), r.b.scalar(1i64), r.op("Size", &[x]));
    let line = r.op("Range", &[zero, count, one]);
    let numbers = r.op_with("Reshape", &[line, shape], &whole);
    let inputs: Vec<Option<ValueId>> = std::iter::once(Some(numbers)).chain(rest.iter().copied()).collect();
    let taken = r.b.emit(&r.node.op, "", &inputs, r.node.attrs.clone(), 1)[0];
    let flat = r.b.ints(&[-1]);
    let (from, parts) = (r.op("Reshape", &[taken, flat]), r.op("Reshape", &[dy, flat]));
    let (nothing, size) = (r.c(0.0, dy), r.op("Shape", &[line]));
    let zeros = r.op("Expand", &[nothing, size]);
    let sum = r.op_with("ScatterElements", &[zeros, from, parts], &[("reduction", Attr::from("add"))]);
    let g = r.op_with("Reshape", &[sum, shape], &whole);
    r.b.graph.fact_mut(g).shape = Some(known);
    Ok(vec![Some(g)])
}

/// Indices along an axis of `x`, counted from its front.
fn from_front(r: &mut Rule<'_, '_>, index: ValueId, x: ValueId, axis: i64) -> Result<ValueId, String> {
    let rank = r.rank(x)?;
    let a = r.axis(axis, rank)? as i64;
    let written = r.b.graph.constant(index).and_then(|t| t.to_i64s());
    let index = r.b.cast(index, DType::I64);
    if written.is_some_and(|w| w.iter().all(|k| *k >= 0)) {
        return Ok(index);
    }
    let size = r.op_with("Shape", &[x], &[("start", Attr::Int(a)), ("end", Attr::Int(a + 1))]);
    Ok(wrap_negative(r, index, size))
}

fn gather_elements(r: &mut Rule<'_, '_>) -> Grads {
    let (dy, x, index) = (r.dy()?, r.x(0)?, r.x(1)?);
    let axis = r.node.int("axis", 0);
    let index = from_front(r, index, x, axis)?;
    let zeros = zeros_like(r, x);
    let (dy, zeros) = (r.wide(dy), r.wide(zeros));
    let attrs = [("axis", Attr::Int(axis)), ("reduction", Attr::from("add"))];
    Ok(vec![Some(r.op_with("ScatterElements", &[zeros, index, dy], &attrs)), None])
}

/// Of updates placed into a value: what is overwritten has no gradient, and each update has that of its place.
fn placed(r: &mut Rule<'_, '_>, scatter: &str, gather: &str, at: &[(&str, Attr)]) -> Grads {
    let (dy, index, updates) = (r.dy()?, r.x(1)?, r.x(2)?);
    let kept = match r.node.text("reduction").unwrap_or("none") {
        "add" => true,
        "none" => false,
        other => {
            return Err(format!("the reduction '{other}' is not derived; no reduction and 'add' are"));
        }
    };
    let dx = match (r.wants(0), kept) {
        (false, _) => None,
        (true, true) => Some(dy),
        (true, false) => {
            let zeros = zeros_like(r, updates);
            Some(r.op_with(scatter, &[dy, index, zeros], at))
        }
    };
    let du = if r.wants(2) { Some(r.op_with(gather, &[dy, index], at)) } else { None };
    if let Some(du) = du {
        r.b.graph.fact_mut(du).shape = r.b.graph.shape(updates).cloned();
    }
    Ok(vec![dx, None, du])
}

fn top_k(r: &mut Rule<'_, '_>) -> Grads {
    let (dy, x) = (r.dy()?, r.x(0)?);
    let index = match r.node.output(1) {
        Some(index) => index,
        None => r.b.emit("TopK", "", &r.node.inputs, r.node.attrs.clone(), 2)[1],
    };
    let zeros = zeros_like(r, x);
    let attrs = [("axis", Attr::Int(r.node.int("axis", -1)))];
    Ok(vec![Some(r.op_with("ScatterElements", &[zeros, index, dy], &attrs))])
}
