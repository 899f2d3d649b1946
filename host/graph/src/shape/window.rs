//! Shapes of operators that pad, regroup and resample.

use super::{Infer, Rule, one};
use crate::dim::Dim;
use crate::ir::{Fact, Graph, ValueId};

pub(super) const RULES: &[(&str, Rule)] =
    &[("Resize", resize), ("DepthToSpace", depth_to_space), ("SpaceToDepth", space_to_depth)];

/// The factors of a constant list of scales.
pub(crate) fn known_scales(graph: &Graph, scales: ValueId) -> Option<Vec<f32>> {
    Some(graph.constant(scales)?.to_f64s()?.iter().map(|s| *s as f32).collect())
}

fn resize(i: &Infer<'_>) -> Option<Vec<Fact>> {
    let x = i.shape(0)?;
    let axes: Vec<usize> = match i.node.ints("axes") {
        Some(axes) => axes.iter().map(|a| i.axis(*a, x.len())).collect::<Option<_>>()?,
        None => (0..x.len()).collect(),
    };
    let scales = i.input(2).and_then(|v| known_scales(i.graph, v)).filter(|s| !s.is_empty());
    let stretched = i.node.text("keep_aspect_ratio_policy").unwrap_or("stretch") == "stretch";
    let sizes = if stretched { i.elements(3) } else { None };
    let mut out = x.clone();
    for (k, a) in axes.into_iter().enumerate() {
        let made = match (&scales, sizes) {
            (Some(s), _) => scaled(&x[a], *s.get(k)?),
            (None, Some(sizes)) => Some(sizes.get(k)?.clone()),
            (None, None) => None,
        };
        out[a] = made.unwrap_or_else(|| i.unknown(a));
    }
    one(i.dtype(0), Some(out))
}

fn scaled(size: &Dim, by: f32) -> Option<Dim> {
    match size.known() {
        // As ONNX Runtime rounds: in single precision, downwards.
        Some(n) => Some(Dim::from((n as f32 * by) as i64)),
        None if by >= 1.0 && by.fract() == 0.0 && by < 1e6 => Some(size.times(&Dim::from(by as i64))),
        None => None,
    }
}

fn picture(i: &Infer<'_>) -> Option<([Dim; 4], Dim)> {
    let x: [Dim; 4] = i.shape(0)?.clone().try_into().ok()?;
    let block = i.node.int("blocksize", 0);
    (1..=1 << 15).contains(&block).then(|| (x, Dim::from(block)))
}

fn depth_to_space(i: &Infer<'_>) -> Option<Vec<Fact>> {
    let ([b, c, h, w], n) = picture(i)?;
    one(i.dtype(0), Some(vec![b, c.floor_div(&n.times(&n)), h.times(&n), w.times(&n)]))
}

fn space_to_depth(i: &Infer<'_>) -> Option<Vec<Fact>> {
    let ([b, c, h, w], n) = picture(i)?;
    one(i.dtype(0), Some(vec![b, c.times(&n).times(&n), h.floor_div(&n), w.floor_div(&n)]))
}
