//! Operators that compute with sizes: what shapes are made of.

use super::{Infer, Rule, one};
use crate::dim::{Dim, product};
use crate::ir::{Attr, Fact};
use crate::tensor::DType;

pub(super) const RULES: &[(&str, Rule)] = &[
    ("Shape", shape),
    ("Size", |i| {
        let elements = i.shape(0).map(|s| vec![product(s)]);
        Some(vec![Fact { dtype: Some(DType::I64), shape: Some(vec![]), elements }])
    }),
    ("ConstantOfShape", constant_of_shape),
    ("Range", range),
    ("OneHot", one_hot),
    ("NonZero", |i| one(Some(DType::I64), Some(vec![Dim::from(i.shape(0)?.len()), i.unknown(1)]))),
    ("EyeLike", |i| one(asked_type(i).or(i.dtype(0)), i.shape(0).cloned())),
    ("Bernoulli", |i| one(asked_type(i).or(i.dtype(0)), i.shape(0).cloned())),
    ("RandomNormalLike", |i| one(asked_type(i).or(i.dtype(0)), i.shape(0).cloned())),
    ("RandomUniformLike", |i| one(asked_type(i).or(i.dtype(0)), i.shape(0).cloned())),
    ("RandomNormal", random),
    ("RandomUniform", random),
    ("Multinomial", |i| {
        let count = Dim::from(i.node.int("sample_size", 1));
        let shape = i.shape(0).and_then(|s| s.first().cloned()).map(|rows| vec![rows, count]);
        one(asked_type(i).or(Some(DType::I32)), shape)
    }),
    ("NonMaxSuppression", |i| one(Some(DType::I64), Some(vec![i.unknown(0), Dim::from(3)]))),
];

fn shape(i: &Infer<'_>) -> Option<Vec<Fact>> {
    let Some(x) = i.shape(0) else {
        return one(Some(DType::I64), Some(vec![i.unknown(0)]));
    };
    let rank = x.len() as i64;
    let at = |v: i64| (if v < 0 { v + rank } else { v }).clamp(0, rank) as usize;
    let (start, end) = (at(i.node.int("start", 0)), at(i.node.int("end", rank)));
    let elements = x.get(start..end.max(start))?.to_vec();
    Some(vec![Fact {
        dtype: Some(DType::I64),
        shape: Some(vec![Dim::from(elements.len())]),
        elements: Some(elements),
    }])
}

/// The type that the attribute `dtype` asks for.
fn asked_type(i: &Infer<'_>) -> Option<DType> {
    match i.node.attrs.get("dtype") {
        Some(Attr::Int(t)) => DType::from_onnx(i32::try_from(*t).ok()?),
        _ => None,
    }
}

fn random(i: &Infer<'_>) -> Option<Vec<Fact>> {
    let shape = i.node.ints("shape").map(|s| s.iter().map(|n| Dim::from(*n)).collect());
    one(asked_type(i).or(Some(DType::F32)), shape)
}

fn constant_of_shape(i: &Infer<'_>) -> Option<Vec<Fact>> {
    let (dtype, value) = match i.node.attrs.get("value") {
        Some(Attr::Tensor(t)) => (t.dtype(), t.to_i64s().and_then(|v| v.first().copied())),
        _ => (DType::F32, None),
    };
    let shape = match i.elements(0) {
        Some(e) => e.to_vec(),
        None => {
            let rank = i.shape(0)?.first()?.known().filter(|r| (0..=16).contains(r))?;
            (0..rank as usize).map(|k| i.unknown(k)).collect()
        }
    };
    let elements = match (value, shape.as_slice()) {
        (Some(v), []) => Some(vec![Dim::from(v)]),
        (Some(v), [n]) => n.known().filter(|n| (0..=256).contains(n)).map(|n| vec![Dim::from(v); n as usize]),
        _ => None,
    };
    Some(vec![Fact { dtype: Some(dtype), shape: Some(shape), elements }])
}

fn range(i: &Infer<'_>) -> Option<Vec<Fact>> {
    let first = |k: usize| i.elements(k).and_then(|e| e.first().cloned());
    let count = (|| {
        let (start, limit, step) = (first(0)?, first(1)?, first(2)?.known()?);
        let n = if step == 1 { limit.minus(&start) } else { limit.minus(&start).floor_div(&Dim::from(step)) };
        (step > 0).then_some((n, start))
    })();
    let n = count.as_ref().map_or_else(|| i.unknown(0), |c| c.0.clone());
    let elements = count.and_then(|(n, start)| {
        let (n, step) = (n.known().filter(|n| (0..=64).contains(n))?, first(2)?.known()?);
        (0..n).map(|k| Some(start.plus(&Dim::from(k.checked_mul(step)?)))).collect()
    });
    Some(vec![Fact { dtype: i.dtype(0), shape: Some(vec![n]), elements }])
}

fn one_hot(i: &Infer<'_>) -> Option<Vec<Fact>> {
    let mut shape = i.shape(0)?.clone();
    let axis = i.node.int("axis", -1);
    let at = if axis == -1 { shape.len() } else { i.axis(axis, shape.len() + 1)? };
    let depth = i.elements(1).and_then(|e| e.first().cloned()).unwrap_or_else(|| i.unknown(at));
    shape.insert(at, depth);
    one(i.dtype(2), Some(shape))
}
