//! Cases of operators that work element by element.

use graft_graph::{Attr, DType, Tensor};
use graft_tests::Draw;
use graft_tests::differences::Tolerance::{Approximate, Close, Exact};
use graft_tests::differences::{Arg, Case};

use crate::{Row, case};

type Range = (f64, f64);

const ANY: Range = (-2.0, 2.0);
const POSITIVE: Range = (0.5, 2.5);

pub const CASES: &[Row] = &[
    ("Identity", Exact, |op, d| unary(op, d, ANY, &[])),
    ("Add", Exact, |op, d| several(op, d, &[ANY; 2])),
    ("Sub", Exact, |op, d| several(op, d, &[ANY; 2])),
    ("Mul", Exact, |op, d| several(op, d, &[ANY; 2])),
    ("Div", Close, |op, d| several(op, d, &[ANY, POSITIVE])),
    ("Neg", Exact, |op, d| unary(op, d, ANY, &[])),
    ("Sum", Exact, |op, d| {
        let n = d.size(1..=3);
        several(op, d, &[ANY; 3][..n])
    }),
    ("Mean", Approximate, |op, d| {
        let n = d.size(1..=3);
        several(op, d, &[ANY; 3][..n])
    }),
    ("Pow", Close, pow),
    ("Sqrt", Close, |op, d| unary(op, d, POSITIVE, &[])),
    ("Reciprocal", Close, |op, d| unary(op, d, POSITIVE, &[])),
    ("Exp", Close, |op, d| unary(op, d, ANY, &[])),
    ("Log", Close, |op, d| unary(op, d, POSITIVE, &[])),
    ("Erf", Approximate, |op, d| unary(op, d, ANY, &[])),
    ("Tanh", Close, |op, d| unary(op, d, ANY, &[])),
    ("Sigmoid", Close, |op, d| unary(op, d, ANY, &[])),
    ("Relu", Exact, |op, d| unary(op, d, ANY, &[0.0])),
    ("Abs", Exact, |op, d| unary(op, d, ANY, &[0.0])),
    ("Sin", Close, |op, d| unary(op, d, ANY, &[])),
    ("Cos", Close, |op, d| unary(op, d, ANY, &[])),
    ("Tan", Approximate, |op, d| unary(op, d, (-1.0, 1.0), &[])),
    ("Asin", Approximate, |op, d| unary(op, d, (-0.8, 0.8), &[])),
    ("Acos", Approximate, |op, d| unary(op, d, (-0.8, 0.8), &[])),
    ("Atan", Approximate, |op, d| unary(op, d, ANY, &[])),
    ("Sinh", Approximate, |op, d| unary(op, d, ANY, &[])),
    ("Cosh", Approximate, |op, d| unary(op, d, ANY, &[])),
    ("Asinh", Approximate, |op, d| unary(op, d, ANY, &[])),
    ("Acosh", Approximate, |op, d| unary(op, d, (1.5, 3.0), &[])),
    ("Atanh", Approximate, |op, d| unary(op, d, (-0.8, 0.8), &[])),
    ("Mod", Exact, modulo),
    ("Gelu", Approximate, gelu),
    ("Max", Exact, extremum),
    ("Min", Exact, extremum),
    ("Where", Exact, choice),
    ("Cast", Approximate, cast),
    ("CastLike", Approximate, cast_like),
    ("Clip", Exact, clip),
];

fn unary(op: &'static str, d: &mut Draw<'_>, range: Range, kinks: &[f64]) -> Case {
    let shape = d.shape(0..=3);
    case(op, vec![Arg::Float(d.reals(&shape, range, kinks))], &[])
}

/// Inputs that broadcast against each other: stretched axes and missing leading axes on any side.
fn several(op: &'static str, d: &mut Draw<'_>, ranges: &[Range]) -> Case {
    let full = d.shape(0..=3);
    let shapes: Vec<_> = ranges.iter().map(|_| d.narrowed(&full)).collect();
    let args = shapes.iter().zip(ranges).map(|(s, r)| Arg::Float(d.reals(s, *r, &[]))).collect();
    case(op, args, &[])
}

/// A constant exponent (0, 1 and 2 among them, as a scalar or as one element of higher rank, as a float or an
/// integer) or one that is computed.
fn pow(op: &'static str, d: &mut Draw<'_>) -> Case {
    let mut c = several(op, d, &[POSITIVE, ANY]);
    let p = d.pick(&[2.0, 0.0, 1.0, 3.0, 0.5, -1.0]);
    c.args[1] = match d.below(4) {
        0 => Arg::Fixed(graft_tests::Array { shape: vec![], values: vec![p] }),
        1 => Arg::Fixed(graft_tests::Array { shape: vec![1, 1, 1, 1], values: vec![p] }),
        2 => Arg::Constant(Tensor::scalar(d.pick(&[2i64, 0, 1, 3]))),
        _ => return c,
    };
    c
}

/// Quotients that are not near a whole number, where a remainder jumps.
fn modulo(op: &'static str, d: &mut Draw<'_>) -> Case {
    let full = d.shape(0..=3);
    let divisor = d.narrowed(&full);
    let mut x = d.reals(&full, (-6.0, 6.0), &[]);
    x.values.iter_mut().for_each(|v| *v = 1.5 * (v.floor() + 0.5) + 0.1 * (*v - v.floor()));
    let mut b = d.reals(&divisor, (1.45, 1.55), &[]);
    if d.flag() {
        b.values.iter_mut().for_each(|v| *v = -*v);
    }
    case(op, vec![Arg::Float(x), Arg::Float(b)], &[("fmod", Attr::Int(1))])
}

fn gelu(op: &'static str, d: &mut Draw<'_>) -> Case {
    let mut c = unary(op, d, ANY, &[]);
    if let Some(kind) = d.pick(&[None, Some("none"), Some("tanh")]) {
        c.attrs.insert("approximate".into(), Attr::from(kind));
    }
    c
}

/// One to three inputs; each has numbers of its own remainder, so that none ties with another's.
fn extremum(op: &'static str, d: &mut Draw<'_>) -> Case {
    let count = d.size(1..=3);
    let mut c = several(op, d, &[ANY; 3][..count]);
    for (k, arg) in c.args.iter_mut().enumerate() {
        let Arg::Float(a) = arg else { continue };
        a.values.iter_mut().for_each(|v| *v = v.round() + 0.25 * k as f64 + 0.1 * (*v - v.round()));
    }
    c
}

fn choice(op: &'static str, d: &mut Draw<'_>) -> Case {
    let full = d.shape(0..=3);
    let (c, a, b) = (d.narrowed(&full), d.narrowed(&full), d.narrowed(&full));
    let flags: Vec<bool> = d.reals(&c, ANY, &[]).values.iter().map(|v| *v > 0.0).collect();
    let condition = Tensor::new(c, &flags).expect("as many as the shape asks for");
    let args = vec![
        if d.flag() { Arg::Constant(condition) } else { Arg::Held(condition) },
        Arg::Float(d.reals(&a, ANY, &[])),
        Arg::Float(d.reals(&b, ANY, &[])),
    ];
    case(op, args, &[])
}

fn cast_like(op: &'static str, d: &mut Draw<'_>) -> Case {
    let like = if d.below(2) == 0 { Tensor::scalar(0.0f32) } else { Tensor::scalar(0.0f64) };
    let mut c = unary(op, d, ANY, &[]);
    c.args.push(Arg::Constant(like));
    c
}

fn cast(op: &'static str, d: &mut Draw<'_>) -> Case {
    let to = d.pick(&[DType::F32, DType::F64]);
    let mut c = unary(op, d, ANY, &[]);
    c.attrs.insert("to".into(), Attr::Int(i64::from(to.onnx())));
    c
}

/// With and without bounds, which are fixed or have gradients themselves.
fn clip(op: &'static str, d: &mut Draw<'_>) -> Case {
    let (low, high) = (-0.6, 0.7);
    let mut c = unary(op, d, ANY, &[low, high]);
    for bound in [low, high] {
        let a = graft_tests::Array { shape: vec![], values: vec![bound] };
        c.args.push(match d.below(3) {
            0 => Arg::Missing,
            1 => Arg::Fixed(a),
            _ => Arg::Float(a),
        });
    }
    c
}
