//! Operators that work element by element, broadcasting included.

use super::{Infer, Rule, one};
use crate::dim::{Dim, broadcast};
use crate::ir::{Attr, Fact};
use crate::tensor::DType;

pub(super) const RULES: &[(&str, Rule)] = &[
    ("Add", |i| arithmetic(i, |a, b| Some(a.plus(b)))),
    ("Sub", |i| arithmetic(i, |a, b| Some(a.minus(b)))),
    ("Mul", |i| arithmetic(i, |a, b| Some(a.times(b)))),
    ("Div", |i| arithmetic(i, |a, b| Some(a.floor_div(b)))),
    ("Mod", |i| arithmetic(i, |a, b| Some(Dim::from(a.known()?.checked_rem_euclid(b.known()?)?)))),
    ("Max", |i| arithmetic(i, |a, b| Some(a.known()?.max(b.known()?).into()))),
    ("Min", |i| arithmetic(i, |a, b| Some(a.known()?.min(b.known()?).into()))),
    ("Pow", |i| arithmetic(i, |_, _| None)),
    ("Sum", |i| arithmetic(i, |_, _| None)),
    ("Mean", |i| arithmetic(i, |_, _| None)),
    ("PRelu", |i| arithmetic(i, |_, _| None)),
    ("BitShift", |i| arithmetic(i, |_, _| None)),
    ("BitwiseAnd", |i| arithmetic(i, |_, _| None)),
    ("BitwiseOr", |i| arithmetic(i, |_, _| None)),
    ("BitwiseXor", |i| arithmetic(i, |_, _| None)),
    ("Equal", |i| comparison(i, |a, b| a.equals(b))),
    ("Greater", |i| comparison(i, |a, b| Some(a.known()? > b.known()?))),
    ("GreaterOrEqual", |i| comparison(i, |a, b| Some(a.known()? >= b.known()?))),
    ("Less", |i| comparison(i, |a, b| Some(a.known()? < b.known()?))),
    ("LessOrEqual", |i| comparison(i, |a, b| Some(a.known()? <= b.known()?))),
    ("And", |i| comparison(i, |a, b| Some(a.known()? != 0 && b.known()? != 0))),
    ("Or", |i| comparison(i, |a, b| Some(a.known()? != 0 || b.known()? != 0))),
    ("Xor", |i| comparison(i, |a, b| Some((a.known()? != 0) ^ (b.known()? != 0)))),
    ("Not", |i| unary(i, Some(DType::Bool), |a| Some(Dim::from(i64::from(a.known()? == 0))))),
    ("IsNaN", |i| unary(i, Some(DType::Bool), |_| None)),
    ("IsInf", |i| unary(i, Some(DType::Bool), |_| None)),
    ("Where", where_),
    ("Cast", cast),
    ("CastLike", |i| unary(i, i.dtype(1), |a| Some(a.clone()))),
    ("Identity", |i| Some(vec![i.fact(0)?.clone()])),
    ("Neg", |i| unary(i, i.dtype(0), |a| Some(Dim::from(0).minus(a)))),
    ("Dropout", |i| {
        let shape = i.shape(0).cloned();
        let mask = Fact { dtype: Some(DType::Bool), shape: shape.clone(), elements: None };
        Some(vec![Fact { dtype: i.dtype(0), shape, elements: None }, mask])
    }),
    ("Abs", same),
    ("Acos", same),
    ("Acosh", same),
    ("Asin", same),
    ("Asinh", same),
    ("Atan", same),
    ("Atanh", same),
    ("BitwiseNot", same),
    ("Ceil", same),
    ("Celu", same),
    ("Clip", same),
    ("Cos", same),
    ("Cosh", same),
    ("CumSum", same),
    ("Elu", same),
    ("Erf", same),
    ("Exp", same),
    ("Floor", same),
    ("Gelu", same),
    ("HardSigmoid", same),
    ("HardSwish", same),
    ("Hardmax", same),
    ("Shrink", same),
    ("LeakyRelu", same),
    ("Log", same),
    ("LogSoftmax", same),
    ("Mish", same),
    ("Reciprocal", same),
    ("Relu", same),
    ("Round", same),
    ("Selu", same),
    ("Sigmoid", same),
    ("Sign", same),
    ("Sin", same),
    ("Sinh", same),
    ("Softmax", same),
    ("Softplus", same),
    ("Softsign", same),
    ("Sqrt", same),
    ("Tan", same),
    ("Tanh", same),
    ("ThresholdedRelu", same),
    ("Trilu", same),
];

fn same(i: &Infer<'_>) -> Option<Vec<Fact>> {
    one(i.dtype(0), i.shape(0).cloned())
}

fn unary(i: &Infer<'_>, dtype: Option<DType>, f: impl Fn(&Dim) -> Option<Dim>) -> Option<Vec<Fact>> {
    let elements = i.elements(0).and_then(|e| e.iter().map(f).collect());
    Some(vec![Fact { dtype, shape: i.shape(0).cloned(), elements }])
}

fn arithmetic(i: &Infer<'_>, f: impl Fn(&Dim, &Dim) -> Option<Dim>) -> Option<Vec<Fact>> {
    let mut fact = Fact { dtype: i.dtype(0), shape: i.shape(0).cloned(), elements: None };
    for k in 1..i.node.inputs.len() {
        fact.shape = fact.shape.zip(i.shape(k)).and_then(|(a, b)| broadcast(&a, b));
    }
    if i.node.inputs.len() == 2 && fact.dtype.is_some_and(|d| !d.is_float()) {
        fact.elements = pairs(i, 0, 1, &f);
    }
    Some(vec![fact])
}

fn comparison(i: &Infer<'_>, f: impl Fn(&Dim, &Dim) -> Option<bool>) -> Option<Vec<Fact>> {
    let shape = i.shape(0).zip(i.shape(1)).and_then(|(a, b)| broadcast(a, b));
    let elements = pairs(i, 0, 1, &|a, b| f(a, b).map(|t| Dim::from(i64::from(t))));
    Some(vec![Fact { dtype: Some(DType::Bool), shape, elements }])
}

/// `f` on the elements of two inputs of at most one dimension, one of which may have a single element.
fn pairs(i: &Infer<'_>, a: usize, b: usize, f: &dyn Fn(&Dim, &Dim) -> Option<Dim>) -> Option<Vec<Dim>> {
    let (a, b) = (i.elements(a)?, i.elements(b)?);
    let n = a.len().max(b.len());
    let at = |e: &'_ [Dim], k: usize| if e.len() == 1 { e.first().cloned() } else { e.get(k).cloned() };
    (0..n).map(|k| f(&at(a, k)?, &at(b, k)?)).collect()
}

fn where_(i: &Infer<'_>) -> Option<Vec<Fact>> {
    let shape = (|| broadcast(&broadcast(i.shape(0)?, i.shape(1)?)?, i.shape(2)?))();
    let elements = (|| {
        let (c, a, b) = (i.elements(0)?, i.elements(1)?, i.elements(2)?);
        let n = c.len().max(a.len()).max(b.len());
        let at = |e: &'_ [Dim], k: usize| if e.len() == 1 { e.first().cloned() } else { e.get(k).cloned() };
        (0..n).map(|k| if at(c, k)?.known()? != 0 { at(a, k) } else { at(b, k) }).collect()
    })();
    Some(vec![Fact { dtype: i.dtype(1).or(i.dtype(2)), shape, elements }])
}

fn cast(i: &Infer<'_>) -> Option<Vec<Fact>> {
    let to = match i.node.attrs.get("to") {
        Some(Attr::Int(t)) => DType::from_onnx(i32::try_from(*t).ok()?),
        _ => None,
    };
    let keeps = to.is_some_and(|t| matches!(t, DType::I64 | DType::I32));
    unary(i, to, |e| keeps.then(|| e.clone()))
}
