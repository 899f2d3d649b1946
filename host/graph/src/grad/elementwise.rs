//! Gradients of operators that work element by element. Broadcasting is undone by the engine.

use super::{Grads, Row, Rule};
use crate::fused;
use crate::ir::ValueId;
use crate::tensor::DType;

pub(super) const RULES: &[Row] = &[
    ("Identity", "", |r| Ok(vec![Some(r.dy()?)])),
    ("Add", "", |r| Ok(vec![Some(r.dy()?); 2])),
    ("Sub", "", |r| {
        let dy = r.dy()?;
        let minus = if r.wants(1) { Some(r.op("Neg", &[dy])) } else { None };
        Ok(vec![Some(dy), minus])
    }),
    ("Mul", "", mul),
    ("Div", "", div),
    ("Neg", "", |r| {
        let dy = r.dy()?;
        Ok(vec![Some(r.op("Neg", &[dy]))])
    }),
    ("Sum", "", |r| Ok(vec![Some(r.dy()?); r.node.inputs.len()])),
    ("Mean", "", |r| {
        let dy = r.dy()?;
        let n = r.node.inputs.len();
        let n = r.c(n as f64, dy);
        let share = r.op("Div", &[dy, n]);
        Ok(vec![Some(share); r.node.inputs.len()])
    }),
    (
        "Pow",
        "a power of 0 has no slope; neither has the exponent where the base is 0 and the power not negative",
        pow,
    ),
    ("Sqrt", "infinite at zero", |r| {
        // dy / (2y)
        let (dy, y) = (r.dy()?, r.y(0)?);
        let two = r.c(2.0, y);
        let d = r.op("Mul", &[y, two]);
        Ok(vec![Some(r.op("Div", &[dy, d]))])
    }),
    ("Reciprocal", "", |r| {
        // −dy·y²
        let (dy, y) = (r.dy()?, r.y(0)?);
        let square = r.op("Mul", &[y, y]);
        let p = r.op("Mul", &[dy, square]);
        Ok(vec![Some(r.op("Neg", &[p]))])
    }),
    ("Exp", "", |r| {
        let (dy, y) = (r.dy()?, r.y(0)?);
        Ok(vec![Some(r.op("Mul", &[dy, y]))])
    }),
    ("Log", "", |r| {
        let (dy, x) = (r.dy()?, r.x(0)?);
        Ok(vec![Some(r.op("Div", &[dy, x]))])
    }),
    ("Erf", "", |r| {
        // dy · 2/√π · exp(−x²)
        let (dy, x) = (r.dy()?, r.x(0)?);
        let square = r.op("Mul", &[x, x]);
        let minus = r.op("Neg", &[square]);
        let bell = r.op("Exp", &[minus]);
        let c = r.c(std::f64::consts::FRAC_2_SQRT_PI, x);
        let d = r.op("Mul", &[bell, c]);
        Ok(vec![Some(r.op("Mul", &[dy, d]))])
    }),
    ("Tanh", "", |r| {
        // dy · (1 − y²)
        let (dy, y) = (r.dy()?, r.y(0)?);
        let one = r.c(1.0, y);
        let square = r.op("Mul", &[y, y]);
        let d = r.op("Sub", &[one, square]);
        Ok(vec![Some(r.op("Mul", &[dy, d]))])
    }),
    ("Sigmoid", "", |r| {
        // dy · y·(1 − y)
        let (dy, y) = (r.dy()?, r.y(0)?);
        let one = r.c(1.0, y);
        let rest = r.op("Sub", &[one, y]);
        let d = r.op("Mul", &[y, rest]);
        Ok(vec![Some(r.op("Mul", &[dy, d]))])
    }),
    ("Relu", "zero at zero", |r| {
        // Zero at zero, as PyTorch has it.
        let (dy, x) = (r.dy()?, r.x(0)?);
        let zero = r.c(0.0, x);
        let on = r.op("Greater", &[x, zero]);
        Ok(vec![Some(r.op("Where", &[on, dy, zero]))])
    }),
    ("Abs", "zero at zero", |r| {
        // sign(x): zero at zero, as PyTorch has it.
        let (dy, x) = (r.dy()?, r.x(0)?);
        let sign = r.op("Sign", &[x]);
        Ok(vec![Some(r.op("Mul", &[dy, sign]))])
    }),
    ("Mod", "of floats; at a jump the slope beside it", modulo),
    ("Gelu", "", gelu),
    ("Max", "those that tie share the gradient evenly", extremum),
    ("Min", "those that tie share the gradient evenly", extremum),
    ("Where", "", |r| {
        let (c, dy) = (r.x(0)?, r.dy()?);
        let zero = r.c(0.0, dy);
        let a = if r.wants(1) { Some(r.op("Where", &[c, dy, zero])) } else { None };
        let b = if r.wants(2) { Some(r.op("Where", &[c, zero, dy])) } else { None };
        Ok(vec![None, a, b])
    }),
    ("Cast", "", cast),
    ("CastLike", "only the type of the second input is used", cast),
    ("Clip", "on a bound the slope is 1, and the bounds have none", clip),
];

fn cast(r: &mut Rule<'_, '_>) -> Grads {
    let (dy, x) = (r.dy()?, r.x(0)?);
    // The gradient that a quantised integer carries is a float.
    let dtype = Some(r.dtype(x)).filter(|d| d.is_float());
    Ok(vec![Some(dtype.map_or(dy, |d| r.b.cast(dy, d)))])
}

/// `x − b·trunc(x/b)`, whose sign is that of `x`: the only remainder that ONNX has of floats.
fn modulo(r: &mut Rule<'_, '_>) -> Grads {
    let (dy, x, b, y) = (r.dy()?, r.x(0)?, r.x(1)?, r.y(0)?);
    if r.node.int("fmod", 0) == 0 {
        return Err("a remainder of floats needs fmod=1".into());
    }
    let db = if r.wants(1) {
        // The quotient of what is divided without a rest is whole but for rounding.
        let whole = r.op("Sub", &[x, y]);
        let quotient = r.op("Div", &[whole, b]);
        let quotient = r.op("Round", &[quotient]);
        let g = r.op("Mul", &[dy, quotient]);
        Some(r.op("Neg", &[g]))
    } else {
        None
    };
    Ok(vec![Some(dy), db])
}

fn mul(r: &mut Rule<'_, '_>) -> Grads {
    let (dy, a, b) = (r.dy()?, r.x(0)?, r.x(1)?);
    let da = if r.wants(0) { Some(r.op("Mul", &[dy, b])) } else { None };
    let db = if r.wants(1) { Some(r.op("Mul", &[dy, a])) } else { None };
    Ok(vec![da, db])
}

fn div(r: &mut Rule<'_, '_>) -> Grads {
    // d(a/b) = dy/b, −dy·y/b
    let (dy, b, y) = (r.dy()?, r.x(1)?, r.y(0)?);
    let da = r.op("Div", &[dy, b]);
    let db = if r.wants(1) {
        let p = r.op("Mul", &[da, y]);
        Some(r.op("Neg", &[p]))
    } else {
        None
    };
    Ok(vec![Some(da), db])
}

/// The exponent's value, where it is a constant scalar.
fn constant_scalar(r: &Rule<'_, '_>, v: ValueId) -> Option<f64> {
    let t = r.b.graph.constant(v)?;
    let values = t.to_f64s().or_else(|| Some(t.to_i64s()?.into_iter().map(|v| v as f64).collect()))?;
    if values.len() == 1 { values.first().copied() } else { None }
}

fn pow(r: &mut Rule<'_, '_>) -> Grads {
    let (dy, x, p) = (r.dy()?, r.x(0)?, r.x(1)?);
    let dtype = r.dtype(x);
    let dx = match constant_scalar(r, p) {
        Some(0.0) => Some(r.op("Sub", &[dy, dy])),
        Some(2.0) => {
            let two = r.c(2.0, x);
            let d = r.op("Mul", &[x, two]);
            Some(r.op("Mul", &[dy, d]))
        }
        _ if r.wants(0) => {
            // p·x^(p−1); a power of 0 has no slope even at x = 0, where x^(−1) is infinite (as PyTorch has it).
            let p = r.b.cast(p, dtype);
            let (one, zero) = (r.c(1.0, x), r.c(0.0, x));
            let less = r.op("Sub", &[p, one]);
            let power = r.op("Pow", &[x, less]);
            let d = r.op("Mul", &[p, power]);
            let flat = r.op("Equal", &[p, zero]);
            let d = r.op("Where", &[flat, zero, d]);
            Some(r.op("Mul", &[dy, d]))
        }
        _ => None,
    };
    let dp = if r.wants(1) {
        // y·ln x, and zero where x is 0 and the power is not negative (as PyTorch has it).
        let y = r.y(0)?;
        let zero = r.c(0.0, x);
        let one = r.c(1.0, x);
        let at_zero = r.op("Equal", &[x, zero]);
        let power = r.b.cast(p, dtype);
        let defined = r.op("GreaterOrEqual", &[power, zero]);
        let flat = r.op("And", &[at_zero, defined]);
        let safe = r.op("Where", &[flat, one, x]);
        let log = r.op("Log", &[safe]);
        let d = r.op("Mul", &[y, log]);
        Some(r.op("Mul", &[dy, d]))
    } else {
        None
    };
    Ok(vec![dx, dp])
}

fn gelu(r: &mut Rule<'_, '_>) -> Grads {
    let (dy, x) = (r.dy()?, r.x(0)?);
    if r.node.text("approximate").unwrap_or("none") == "none" {
        return Ok(vec![Some(fused::emit(r.b, "GeluGrad", &[dy, x], &[]))]);
    }
    // y = x/2·(1 + tanh u), u = √(2/π)(x + 0.044715x³); dy·(½(1+t) + x/2·(1−t²)·u')
    let (a, c) = ((2.0 / std::f64::consts::PI).sqrt(), 0.044_715);
    let square = r.op("Mul", &[x, x]);
    let (ca, cc) = (r.c(a, x), r.c(c, x));
    let one = r.c(1.0, x);
    let inner = r.op("Mul", &[square, cc]);
    let inner = r.op("Add", &[inner, one]);
    let u = r.op("Mul", &[x, inner]);
    let u = r.op("Mul", &[u, ca]);
    let t = r.op("Tanh", &[u]);
    let three = r.c(3.0 * c, x);
    let slope = r.op("Mul", &[square, three]);
    let slope = r.op("Add", &[slope, one]);
    let slope = r.op("Mul", &[slope, ca]);
    let tt = r.op("Mul", &[t, t]);
    let rest = r.op("Sub", &[one, tt]);
    let second = r.op("Mul", &[rest, slope]);
    let second = r.op("Mul", &[second, x]);
    let first = r.op("Add", &[t, one]);
    let d = r.op("Add", &[first, second]);
    let half = r.c(0.5, x);
    let d = r.op("Mul", &[d, half]);
    Ok(vec![Some(r.op("Mul", &[dy, d]))])
}

/// Max and Min of any number of inputs: ties share the gradient equally, as PyTorch has it for two.
fn extremum(r: &mut Rule<'_, '_>) -> Grads {
    let (dy, y) = (r.dy()?, r.y(0)?);
    let dtype: DType = r.dtype(y);
    let inputs: Vec<ValueId> = r.node.inputs.iter().flatten().copied().collect();
    let mut hits = Vec::with_capacity(inputs.len());
    for x in &inputs {
        let hit = r.op("Equal", &[*x, y]);
        hits.push(r.b.cast(hit, dtype));
    }
    let mut count = hits[0];
    for h in &hits[1..] {
        count = r.op("Add", &[count, *h]);
    }
    let share = r.op("Div", &[dy, count]);
    let wanted: Vec<bool> = (0..inputs.len()).map(|i| r.wants(i)).collect();
    Ok(hits
        .into_iter()
        .zip(wanted)
        .map(|(h, w)| if w { Some(r.op("Mul", &[share, h])) } else { None })
        .collect())
}

fn clip(r: &mut Rule<'_, '_>) -> Grads {
    // Inside the bounds, bounds included, the slope is 1 (as PyTorch has it).
    let (dy, x) = (r.dy()?, r.x(0)?);
    let zero = r.c(0.0, x);
    let mut g = dy;
    for (i, op) in [(1, "GreaterOrEqual"), (2, "LessOrEqual")] {
        if let Some(bound) = r.node.input(i) {
            let inside = r.op(op, &[x, bound]);
            g = r.op("Where", &[inside, g, zero]);
        }
    }
    let mut out = vec![Some(g), None, None];
    for (i, op) in [(1, "Less"), (2, "Greater")] {
        if let (true, Some(bound)) = (r.wants(i), r.node.input(i)) {
            let outside = r.op(op, &[x, bound]);
            out[i] = Some(r.op("Where", &[outside, dy, zero]));
        }
    }
    Ok(out)
}
