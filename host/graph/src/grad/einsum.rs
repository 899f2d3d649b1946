//! Gradients of Einsum.

use super::{Row, Rule};
use crate::ir::{Attr, ValueId};
use crate::shape::einsum::{Equation, alphabet};

pub(super) const RULES: &[Row] = &[("Einsum", "", |r| {
    let operands: Vec<ValueId> =
        r.node.inputs.iter().copied().collect::<Option<_>>().ok_or("an operand is missing")?;
    let ranks: Vec<usize> = operands.iter().map(|v| r.rank(*v)).collect::<Result<_, _>>()?;
    let equation = Equation::parse(r.node.text("equation").unwrap_or_default(), &ranks)?;
    (0..operands.len())
        .map(|k| if r.wants(k) { operand(r, &equation, &operands, k).map(Some) } else { Ok(None) })
        .collect()
})];

/// The gradient of operand `k`: an Einsum of the result's gradient and the other operands, to the axes of operand `k`.
fn operand(r: &mut Rule<'_, '_>, e: &Equation, operands: &[ValueId], k: usize) -> Result<ValueId, String> {
    let (dy, x) = (r.dy()?, operands[k]);
    let mut factors = vec![(dy, e.output.clone())];
    let others = operands.iter().zip(&e.terms).enumerate().filter(|(i, _)| *i != k);
    factors.extend(others.map(|(_, (v, t))| (*v, t.clone())));
    // A letter that is there twice picks a diagonal: the second one becomes a letter of its own, tied to the first
    // by an identity matrix.
    let mut own: Vec<char> = Vec::with_capacity(e.terms[k].len());
    for (a, c) in e.terms[k].iter().enumerate() {
        if !own.contains(c) {
            own.push(*c);
            continue;
        }
        let used = |l: &char| own.contains(l) || e.terms.iter().any(|t| t.contains(l));
        let fresh = alphabet().find(|l| !used(l)).ok_or("the equation needs more letters than there are")?;
        let identity = identity(r, x, a);
        factors.push((identity, vec![*c, fresh]));
        own.push(fresh);
    }
    let (scalars, factors): (Vec<_>, Vec<_>) = factors.into_iter().partition(|(_, t)| t.is_empty());
    let known = |c: &char| factors.iter().any(|(_, t)| t.contains(c));
    let made: Vec<char> = own.iter().copied().filter(known).collect();
    let mut product = match factors.as_slice() {
        [] => None,
        [(v, t)] if *t == made => Some(*v),
        _ => {
            let terms: Vec<String> = factors.iter().map(|(_, t)| t.iter().collect()).collect();
            let equation = format!("{}->{}", terms.join(","), made.iter().collect::<String>());
            let values: Vec<ValueId> = factors.iter().map(|(v, _)| *v).collect();
            Some(r.op_with("Einsum", &values, &[("equation", Attr::from(equation.as_str()))]))
        }
    };
    for (v, _) in scalars {
        product = Some(product.map_or(v, |p| r.op("Mul", &[p, v])));
    }
    let g = product.ok_or("an equation without operands")?;
    spread(r, g, x, &own, &made)
}

/// `g`, whose axes are `made`, over the axes `own` of `x`: a letter that was summed alone, or met an axis of size one
/// elsewhere, gets the same gradient everywhere.
fn spread(
    r: &mut Rule<'_, '_>,
    g: ValueId,
    x: ValueId,
    own: &[char],
    made: &[char],
) -> Result<ValueId, String> {
    let absent: Vec<i64> = (0..own.len()).filter(|a| !made.contains(&own[*a])).map(|a| a as i64).collect();
    let g = if absent.is_empty() {
        g
    } else {
        let axes = r.b.ints(&absent);
        r.op("Unsqueeze", &[g, axes])
    };
    let (have, want) = (r.shape(g)?, r.shape(x)?);
    if have.iter().zip(&want).all(|(h, w)| h == w || w.is(1)) {
        return Ok(g);
    }
    let shape = r.b.shape_of(x, Some(&want));
    Ok(r.op("Expand", &[g, shape]))
}

/// An identity matrix of the size of axis `a` of `x`.
fn identity(r: &mut Rule<'_, '_>, x: ValueId, a: usize) -> ValueId {
    let a = a as i64;
    let size = r.op_with("Shape", &[x], &[("start", Attr::Int(a)), ("end", Attr::Int(a + 1))]);
    let square = r.op_with("Concat", &[size, size], &[("axis", Attr::Int(0))]);
    let zero = r.c(0.0, x);
    let blank = r.op("Expand", &[zero, square]);
    r.op("EyeLike", &[blank])
}
