//! Products and normalisation.

use super::{Infer, Rule, one};
use crate::dim::{Dim, Shape, broadcast};
use crate::ir::Fact;

pub(super) const RULES: &[(&str, Rule)] = &[
    ("DFT", |i| {
        // A complex signal of the same length: its own length and the half of a spectrum are not followed.
        if i.node.input(1).is_some() || i.node.int("onesided", 0) != 0 {
            return None;
        }
        let mut shape = i.shape(0)?.clone();
        *shape.last_mut()? = Dim::from(2);
        one(i.dtype(0), Some(shape))
    }),
    ("MatMul", |i| one(i.dtype(0), matmul(i.shape(0)?, i.shape(1)?))),
    ("Gemm", gemm),
    ("LayerNormalization", layer_norm),
    ("RMSNormalization", |i| one(i.dtype(0), i.shape(0).cloned())),
    ("BatchNormalization", |i| one(i.dtype(0), i.shape(0).cloned())),
    ("InstanceNormalization", |i| one(i.dtype(0), i.shape(0).cloned())),
    ("GroupNormalization", |i| one(i.dtype(0), i.shape(0).cloned())),
    ("LpNormalization", |i| one(i.dtype(0), i.shape(0).cloned())),
];

/// The shape of a matrix product as numpy defines it.
pub(crate) fn matmul(a: &Shape, b: &Shape) -> Option<Shape> {
    let (mut a, mut b) = (a.clone(), b.clone());
    let (row, column) = (a.len() == 1, b.len() == 1);
    if a.is_empty() || b.is_empty() {
        return None;
    }
    if row {
        a.insert(0, Dim::from(1));
    }
    if column {
        b.push(Dim::from(1));
    }
    let (ra, rb) = (a.len(), b.len());
    let mut out = broadcast(&a[..ra - 2], &b[..rb - 2])?;
    if !row {
        out.push(a[ra - 2].clone());
    }
    if !column {
        out.push(b[rb - 1].clone());
    }
    Some(out)
}

fn gemm(i: &Infer<'_>) -> Option<Vec<Fact>> {
    let (a, b) = (i.shape(0)?, i.shape(1)?);
    let at = |s: &Shape, flipped: i64, k: usize| s.get(if flipped != 0 { 1 - k } else { k }).cloned();
    let (ta, tb) = (i.node.int("transA", 0), i.node.int("transB", 0));
    one(i.dtype(0), Some(vec![at(a, ta, 0)?, at(b, tb, 1)?]))
}

fn layer_norm(i: &Infer<'_>) -> Option<Vec<Fact>> {
    let shape = i.shape(0).cloned();
    let y = Fact { dtype: i.dtype(0), shape: shape.clone(), elements: None };
    let statistics = shape.and_then(|mut s| {
        let axis = i.axis(i.node.int("axis", -1), s.len())?;
        s[axis..].iter_mut().for_each(|d| *d = Dim::from(1));
        Some(s)
    });
    let s = Fact { dtype: Some(crate::tensor::DType::F32), shape: statistics, elements: None };
    Some(vec![y, s.clone(), s])
}
