//! Products, normalisation, convolution and pooling.

use super::{Infer, Rule, one};
use crate::dim::{Dim, Shape, broadcast};
use crate::ir::Fact;

pub(super) const RULES: &[(&str, Rule)] = &[
    ("MatMul", |i| one(i.dtype(0), matmul(i.shape(0)?, i.shape(1)?))),
    ("Gemm", gemm),
    ("LayerNormalization", layer_norm),
    ("RMSNormalization", |i| one(i.dtype(0), i.shape(0).cloned())),
    ("BatchNormalization", |i| one(i.dtype(0), i.shape(0).cloned())),
    ("InstanceNormalization", |i| one(i.dtype(0), i.shape(0).cloned())),
    ("GroupNormalization", |i| one(i.dtype(0), i.shape(0).cloned())),
    ("LpNormalization", |i| one(i.dtype(0), i.shape(0).cloned())),
    ("Conv", conv),
    ("MaxPool", |i| pool(i)),
    ("AveragePool", |i| pool(i)),
    ("GlobalAveragePool", global_pool),
    ("GlobalMaxPool", global_pool),
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

/// Size of a sliding window's result along one axis.
fn window(i: &Infer<'_>, input: &Dim, kernel: i64, k: usize, rank: usize) -> Option<Dim> {
    let at = |name: &str, k: usize, default: i64| {
        i.node.ints(name).and_then(|v| v.get(k).copied()).unwrap_or(default)
    };
    let (stride, dilation) = (at("strides", k, 1).max(1), at("dilations", k, 1));
    let reach = dilation.checked_mul(kernel.checked_sub(1)?)?.checked_add(1)?;
    let auto = i.node.text("auto_pad").unwrap_or("NOTSET");
    if auto.starts_with("SAME") {
        return Some(input.plus(&Dim::from(stride - 1)).floor_div(&Dim::from(stride)));
    }
    let pads = if auto == "VALID" { 0 } else { at("pads", k, 0).checked_add(at("pads", k + rank, 0))? };
    let mut free = input.plus(&Dim::from(pads.checked_sub(reach)?));
    if i.node.int("ceil_mode", 0) != 0 {
        free = free.plus(&Dim::from(stride - 1));
    }
    Some(free.floor_div(&Dim::from(stride)).plus(&Dim::from(1)))
}

fn conv(i: &Infer<'_>) -> Option<Vec<Fact>> {
    let (x, w) = (i.shape(0)?, i.shape(1)?);
    let rank = x.len().checked_sub(2)?;
    let mut out = vec![x[0].clone(), w.first()?.clone()];
    for k in 0..rank {
        out.push(window(i, &x[k + 2], w.get(k + 2)?.known()?, k, rank)?);
    }
    one(i.dtype(0), Some(out))
}

fn pool(i: &Infer<'_>) -> Option<Vec<Fact>> {
    let x = i.shape(0)?;
    let rank = x.len().checked_sub(2)?;
    let kernel = i.node.ints("kernel_shape")?;
    let mut out = x[..2].to_vec();
    for k in 0..rank {
        out.push(window(i, &x[k + 2], *kernel.get(k)?, k, rank)?);
    }
    one(i.dtype(0), Some(out))
}

fn global_pool(i: &Infer<'_>) -> Option<Vec<Fact>> {
    let mut out = i.shape(0)?.clone();
    out.iter_mut().skip(2).for_each(|d| *d = Dim::from(1));
    one(i.dtype(0), Some(out))
}
