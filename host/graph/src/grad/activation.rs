//! Gradients of activation functions.

use super::{Grads, Row, Rule};
use crate::ir::ValueId;

pub(super) const RULES: &[Row] = &[
    ("LeakyRelu", "at zero the slope of the negative side", |r| {
        let (dy, x) = (r.dy()?, r.x(0)?);
        let alpha = attr(r, "alpha", 0.01, x);
        let low = r.op("Mul", &[dy, alpha]);
        Ok(vec![Some(where_positive(r, x, dy, low))])
    }),
    ("Elu", "at zero the slope of the negative side", |r| {
        // dy for x > 0, else dy·α·exp(x).
        let (dy, x) = (r.dy()?, r.x(0)?);
        let alpha = attr(r, "alpha", 1.0, x);
        let exp = r.op("Exp", &[x]);
        let slope = r.op("Mul", &[exp, alpha]);
        let low = r.op("Mul", &[dy, slope]);
        Ok(vec![Some(where_positive(r, x, dy, low))])
    }),
    ("Selu", "at zero the slope of the negative side", |r| {
        // γ·dy for x > 0, else γ·dy·α·exp(x).
        let (dy, x) = (r.dy()?, r.x(0)?);
        let alpha = attr(r, "alpha", 1.673_263_2, x);
        let gamma = attr(r, "gamma", 1.050_701, x);
        let high = r.op("Mul", &[dy, gamma]);
        let exp = r.op("Exp", &[x]);
        let slope = r.op("Mul", &[exp, alpha]);
        let low = r.op("Mul", &[high, slope]);
        Ok(vec![Some(where_positive(r, x, high, low))])
    }),
    ("Celu", "", |r| {
        // dy for x > 0, else dy·exp(x/α).
        let (dy, x) = (r.dy()?, r.x(0)?);
        let alpha = attr(r, "alpha", 1.0, x);
        let scaled = r.op("Div", &[x, alpha]);
        let slope = r.op("Exp", &[scaled]);
        let low = r.op("Mul", &[dy, slope]);
        Ok(vec![Some(where_positive(r, x, dy, low))])
    }),
    ("PRelu", "at zero the slope of the negative side", |r| {
        let (dy, x, slope) = (r.dy()?, r.x(0)?, r.x(1)?);
        let dx = if r.wants(0) {
            let low = r.op("Mul", &[dy, slope]);
            Some(where_positive(r, x, dy, low))
        } else {
            None
        };
        let dslope = if r.wants(1) {
            let low = r.op("Mul", &[dy, x]);
            let zero = r.c(0.0, x);
            Some(where_positive(r, x, zero, low))
        } else {
            None
        };
        Ok(vec![dx, dslope])
    }),
    ("ThresholdedRelu", "zero at the threshold", |r| {
        let (dy, x) = (r.dy()?, r.x(0)?);
        let alpha = attr(r, "alpha", 1.0, x);
        let on = r.op("Greater", &[x, alpha]);
        let zero = r.c(0.0, x);
        Ok(vec![Some(r.op("Where", &[on, dy, zero]))])
    }),
    ("Softplus", "", |r| {
        let (dy, x) = (r.dy()?, r.x(0)?);
        let slope = r.op("Sigmoid", &[x]);
        Ok(vec![Some(r.op("Mul", &[dy, slope]))])
    }),
    ("Softsign", "", |r| {
        // dy / (1 + |x|)²
        let (dy, x) = (r.dy()?, r.x(0)?);
        let (abs, one) = (r.op("Abs", &[x]), r.c(1.0, x));
        let d = r.op("Add", &[abs, one]);
        let once = r.op("Div", &[dy, d]);
        Ok(vec![Some(r.op("Div", &[once, d]))])
    }),
    ("HardSigmoid", "zero at both ends of the slope", |r| {
        let (dy, x, y) = (r.dy()?, r.x(0)?, r.y(0)?);
        let (alpha, zero, one) = (attr(r, "alpha", 0.2, x), r.c(0.0, x), r.c(1.0, x));
        let (above, below) = (r.op("Greater", &[y, zero]), r.op("Less", &[y, one]));
        let inside = r.op("And", &[above, below]);
        let g = r.op("Mul", &[dy, alpha]);
        Ok(vec![Some(r.op("Where", &[inside, g, zero]))])
    }),
    ("HardSwish", "at −3 the slope is 0, at 3 it is 1", hard_swish),
    ("Mish", "", mish),
    ("Swish", "", swish),
];

/// A float attribute as a constant of the type of `like`.
fn attr(r: &mut Rule<'_, '_>, name: &str, default: f32, like: ValueId) -> ValueId {
    let value = r.node.float(name, default);
    r.c(f64::from(value), like)
}

/// `high` where `x > 0`, else `low`.
fn where_positive(r: &mut Rule<'_, '_>, x: ValueId, high: ValueId, low: ValueId) -> ValueId {
    let zero = r.c(0.0, x);
    let on = r.op("Greater", &[x, zero]);
    r.op("Where", &[on, high, low])
}

fn hard_swish(r: &mut Rule<'_, '_>) -> Grads {
    // y = x·clip(x/6 + ½, 0, 1): 0 up to −3, x/3 + ½ between, 1 from 3 on.
    let (dy, x) = (r.dy()?, r.x(0)?);
    let (zero, one, three, half) = (r.c(0.0, x), r.c(1.0, x), r.c(3.0, x), r.c(0.5, x));
    let third = r.op("Div", &[x, three]);
    let slope = r.op("Add", &[third, half]);
    let high = r.op("GreaterOrEqual", &[x, three]);
    let slope = r.op("Where", &[high, one, slope]);
    let minus = r.c(-3.0, x);
    let low = r.op("LessOrEqual", &[x, minus]);
    let slope = r.op("Where", &[low, zero, slope]);
    Ok(vec![Some(r.op("Mul", &[dy, slope]))])
}

fn mish(r: &mut Rule<'_, '_>) -> Grads {
    // y = x·t, t = tanh(softplus x): dy·(t + x·σ(x)·(1 − t²))
    let (dy, x) = (r.dy()?, r.x(0)?);
    let soft = r.op("Softplus", &[x]);
    let t = r.op("Tanh", &[soft]);
    let square = r.op("Mul", &[t, t]);
    let one = r.c(1.0, x);
    let rest = r.op("Sub", &[one, square]);
    let sigmoid = r.op("Sigmoid", &[x]);
    let second = r.op("Mul", &[x, sigmoid]);
    let second = r.op("Mul", &[second, rest]);
    let slope = r.op("Add", &[t, second]);
    Ok(vec![Some(r.op("Mul", &[dy, slope]))])
}

fn swish(r: &mut Rule<'_, '_>) -> Grads {
    // y = x·s, s = σ(αx): dy·(s + αx·s·(1 − s))
    let (dy, x) = (r.dy()?, r.x(0)?);
    let alpha = attr(r, "alpha", 1.0, x);
    let scaled = r.op("Mul", &[x, alpha]);
    let s = r.op("Sigmoid", &[scaled]);
    let one = r.c(1.0, x);
    let rest = r.op("Sub", &[one, s]);
    let second = r.op("Mul", &[scaled, rest]);
    let slope = r.op("Add", &[second, one]);
    let slope = r.op("Mul", &[s, slope]);
    Ok(vec![Some(r.op("Mul", &[dy, slope]))])
}
