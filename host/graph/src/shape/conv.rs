//! Shapes of convolutions and poolings.

use super::{Infer, Rule, one};
use crate::dim::{Dim, Shape};
use crate::ir::{Fact, Node};
use crate::tensor::DType;

pub(super) const RULES: &[(&str, Rule)] = &[
    ("Conv", conv),
    ("ConvTranspose", conv_transpose),
    ("MaxPool", |i| {
        let shape = pooled(i)?;
        let values = Fact { dtype: i.dtype(0), shape: Some(shape.clone()), elements: None };
        Some(vec![values, Fact { dtype: Some(DType::I64), shape: Some(shape), elements: None }])
    }),
    ("AveragePool", |i| one(i.dtype(0), Some(pooled(i)?))),
    ("GlobalAveragePool", global_pool),
    ("GlobalMaxPool", global_pool),
];

fn attribute(node: &Node, name: &str, k: usize, default: i64) -> i64 {
    node.ints(name).and_then(|v| v.get(k).copied()).unwrap_or(default)
}

/// How windows lie along one spatial axis where `auto_pad` is not SAME, in elements.
pub(crate) struct Span {
    pub(crate) stride: i64,
    /// From a window's first element to behind its last.
    pub(crate) reach: i64,
    /// Padding in front of the image and behind it.
    pub(crate) pads: (i64, i64),
}

impl Span {
    /// Along spatial axis `k` of `rank`; `None` for numbers beyond all measure.
    pub(crate) fn of(node: &Node, kernel: i64, k: usize, rank: usize) -> Option<Span> {
        let pads = match node.text("auto_pad") {
            Some("VALID") => (0, 0),
            _ => (attribute(node, "pads", k, 0), attribute(node, "pads", k + rank, 0)),
        };
        let reach = attribute(node, "dilations", k, 1).checked_mul(kernel.checked_sub(1)?)?.checked_add(1)?;
        Some(Span { stride: attribute(node, "strides", k, 1).max(1), reach, pads })
    }
}

pub(crate) fn is_same(node: &Node) -> bool {
    node.text("auto_pad").is_some_and(|auto| auto.starts_with("SAME"))
}

/// Size of the kernel along spatial axis `k`, as the attribute or the weight `w` says it.
fn kernel(i: &Infer<'_>, w: Option<&Shape>, k: usize) -> Option<i64> {
    match i.node.ints("kernel_shape") {
        Some(sizes) => sizes.get(k).copied(),
        None => w?.get(k + 2)?.known(),
    }
}

/// Number of windows over `input`, along spatial axis `k` of `rank`.
fn windows(i: &Infer<'_>, input: &Dim, kernel: Option<i64>, k: usize, rank: usize) -> Option<Dim> {
    if is_same(i.node) {
        let stride = attribute(i.node, "strides", k, 1).max(1);
        return Some(input.plus(&Dim::from(stride - 1)).floor_div(&Dim::from(stride)));
    }
    let Span { stride, reach, pads: (before, after) } = Span::of(i.node, kernel?, k, rank)?;
    let step = Dim::from(stride);
    let free = input.plus(&Dim::from(before.checked_add(after)?.checked_sub(reach)?));
    if i.node.int("ceil_mode", 0) == 0 || stride == 1 {
        return Some(free.floor_div(&step).plus(&Dim::from(1)));
    }
    // A window that begins behind the image and the padding in front of it is left out.
    let (free, size) = (free.known()?, input.known()?);
    let count = free.checked_add(stride - 1)?.div_euclid(stride).checked_add(1)?;
    let beyond = count.checked_sub(1)?.checked_mul(stride)? >= size.checked_add(before)?;
    Some(Dim::from(count - i64::from(beyond)))
}

pub(super) fn conv(i: &Infer<'_>) -> Option<Vec<Fact>> {
    let (x, w) = (i.shape(0)?, i.shape(1));
    let rank = x.len().checked_sub(2)?;
    let mut out = vec![x[0].clone(), w.and_then(|w| w.first().cloned()).unwrap_or_else(|| i.unknown(1))];
    for k in 0..rank {
        let n = windows(i, &x[k + 2], kernel(i, w, k), k, rank);
        out.push(n.unwrap_or_else(|| i.unknown(k + 2)));
    }
    one(i.dtype(0), Some(out))
}

fn pooled(i: &Infer<'_>) -> Option<Shape> {
    let x = i.shape(0)?;
    let rank = x.len().checked_sub(2)?;
    let mut out = x[..2].to_vec();
    for k in 0..rank {
        let n = windows(i, &x[k + 2], Some(kernel(i, None, k)?), k, rank);
        out.push(n.unwrap_or_else(|| i.unknown(k + 2)));
    }
    Some(out)
}

/// Size of what a transposed convolution lays `input` over, along spatial axis `k` of `rank`.
fn covered(i: &Infer<'_>, input: &Dim, kernel: Option<i64>, k: usize, rank: usize) -> Option<Dim> {
    // output_shape may be that of the whole output.
    if let Some(sizes) = i.node.ints("output_shape") {
        return sizes.get((k + sizes.len()).checked_sub(rank)?).map(|n| Dim::from(*n));
    }
    let (stride, dilation) = (attribute(i.node, "strides", k, 1), attribute(i.node, "dilations", k, 1));
    let reach = dilation.checked_mul(kernel?.checked_sub(1)?)?.checked_add(1)?;
    let more = reach.checked_add(attribute(i.node, "output_padding", k, 0))?.checked_sub(stride)?;
    let pads = match i.node.text("auto_pad").unwrap_or("NOTSET") {
        // Each element covers a stride, at least.
        "SAME_UPPER" | "SAME_LOWER" => more.max(0),
        "VALID" => 0,
        _ => attribute(i.node, "pads", k, 0).checked_add(attribute(i.node, "pads", k + rank, 0))?,
    };
    Some(input.times(&Dim::from(stride)).plus(&Dim::from(more.checked_sub(pads)?)))
}

fn conv_transpose(i: &Infer<'_>) -> Option<Vec<Fact>> {
    let (x, w) = (i.shape(0)?, i.shape(1));
    let rank = x.len().checked_sub(2)?;
    let width = w.and_then(|w| w.get(1)).map(|d| d.times(&Dim::from(i.node.int("group", 1))));
    let mut out = vec![x[0].clone(), width.unwrap_or_else(|| i.unknown(1))];
    for k in 0..rank {
        let n = covered(i, &x[k + 2], kernel(i, w, k), k, rank);
        out.push(n.unwrap_or_else(|| i.unknown(k + 2)));
    }
    one(i.dtype(0), Some(out))
}

fn global_pool(i: &Infer<'_>) -> Option<Vec<Fact>> {
    let mut out = i.shape(0)?.clone();
    out.iter_mut().skip(2).for_each(|d| *d = Dim::from(1));
    one(i.dtype(0), Some(out))
}
