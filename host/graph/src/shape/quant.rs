//! Shapes of quantised operators.

use super::linear::matmul;
use super::{Infer, Rule, one};
use crate::dim::Dim;
use crate::ir::{Attr, Fact};
use crate::tensor::DType;

pub(super) const RULES: &[(&str, Rule)] = &[
    ("QuantizeLinear", |i| {
        let asked = match i.node.attrs.get("output_dtype") {
            Some(Attr::Int(t)) if *t != 0 => DType::from_onnx(i32::try_from(*t).ok()?),
            _ => None,
        };
        one(i.dtype(2).or(asked).or(Some(DType::U8)), i.shape(0).cloned())
    }),
    ("DequantizeLinear", |i| one(i.dtype(1), i.shape(0).cloned())),
    ("DynamicQuantizeLinear", |i| {
        let fact = |dtype, shape| Fact { dtype: Some(dtype), shape, elements: None };
        let y = fact(DType::U8, i.shape(0).cloned());
        Some(vec![y, fact(DType::F32, Some(vec![])), fact(DType::U8, Some(vec![]))])
    }),
    ("MatMulInteger", |i| one(Some(DType::I32), matmul(i.shape(0)?, i.shape(1)?))),
    ("ConvInteger", |i| {
        let mut made = super::conv::conv(i)?;
        made.first_mut()?.dtype = Some(DType::I32);
        Some(made)
    }),
    ("BitwiseAnd", bitwise),
    ("BitwiseOr", bitwise),
    ("com.microsoft::MatMulNBits", |i| {
        let mut shape = i.shape(0)?.clone();
        *shape.last_mut()? = Dim::from(i.node.int("N", 0).max(0));
        one(i.dtype(0), Some(shape))
    }),
];

fn bitwise(i: &Infer<'_>) -> Option<Vec<Fact>> {
    one(i.dtype(0), i.shape(0).zip(i.shape(1)).and_then(|(a, b)| crate::dim::broadcast(a, b)))
}
