//! Gradients of operators that pad, regroup and resample.

use super::movement::zeros_like;
use super::scatter::copied_with;
use super::{Grads, Row, Rule};
use crate::ir::{Attr, ValueId};
use crate::shape::window::known_scales;
use crate::tensor::{DType, Tensor};

pub(super) const RULES: &[Row] = &[
    ("Pad", "", pad),
    ("Resize", "Not with tf_crop_and_resize, and sizes are taken as they are (stretch).", resize),
    ("DepthToSpace", "", depth_to_space),
    ("SpaceToDepth", "", |r| {
        let (dy, x) = (r.dy()?, r.x(0)?);
        let shape = r.shape(x)?;
        let g = r.op_with("DepthToSpace", &[dy], &[("blocksize", Attr::Int(block(r)?))]);
        r.b.graph.fact_mut(g).shape = Some(shape);
        Ok(vec![Some(g)])
    }),
];

/// Constants around the value are cut off again, and what was cut off (negative amounts) has gradient zero. The
/// constant gets what flows to its copies. Other modes copy elements of the value.
fn pad(r: &mut Rule<'_, '_>) -> Grads {
    let pads = r.x(1)?;
    let axes = r.node.input(3);
    if r.node.text("mode").unwrap_or("constant") != "constant" {
        let rest = [Some(pads), None, axes];
        return copied_with(r, if axes.is_some() { &rest } else { &rest[..1] });
    }
    let (dy, x) = (r.dy()?, r.x(0)?);
    let padded = |r: &mut Rule<'_, '_>, v: ValueId, pads: ValueId, with: ValueId| {
        let inputs: Vec<_> = [v, pads, with].into_iter().chain(axes).collect();
        r.op("Pad", &inputs)
    };
    let dx = if r.wants(0) {
        let known: Option<Vec<i64>> =
            r.numbers(1).ok().and_then(|p| p.iter().map(|n| n.checked_neg()).collect());
        let back = match known {
            Some(back) => r.b.ints(&back),
            None => r.op("Neg", &[pads]),
        };
        let zero = r.c(0.0, x);
        let g = padded(r, dy, back, zero);
        r.b.graph.fact_mut(g).shape = r.b.graph.shape(x).cloned();
        Some(g)
    } else {
        None
    };
    let dvalue = match r.node.input(2).filter(|_| r.wants(2)) {
        None => None,
        Some(value) => {
            let (inside, one) = (zeros_like(r, x), r.c(1.0, x));
            let frame = padded(r, inside, pads, one);
            let around = r.op("Mul", &[dy, frame]);
            let sum = r.op_with("ReduceSum", &[around], &[("keepdims", Attr::Int(0))]);
            Some(r.b.reshape_like(sum, value))
        }
    };
    Ok(vec![dx, None, dvalue])
}

fn block(r: &Rule<'_, '_>) -> Result<i64, String> {
    let n = r.node.int("blocksize", 0);
    if (1..=1 << 15).contains(&n) { Ok(n) } else { Err(format!("a blocksize of {n}")) }
}

fn depth_to_space(r: &mut Rule<'_, '_>) -> Grads {
    let (dy, x, n) = (r.dy()?, r.x(0)?, block(r)?);
    let shape = r.shape(x)?;
    let deep = r.op_with("SpaceToDepth", &[dy], &[("blocksize", Attr::Int(n))]);
    let g = match r.node.text("mode").unwrap_or("DCR") {
        "DCR" => deep,
        "CRD" => {
            // The place in a block is the outer part of the channels now, and has to become the inner one.
            let part = |r: &mut Rule<'_, '_>, from: i64, to: i64| {
                r.op_with("Shape", &[x], &[("start", Attr::Int(from)), ("end", Attr::Int(to))])
            };
            let (batch, place, picture) = (part(r, 0, 1), r.b.ints(&[n * n, -1]), part(r, 2, 4));
            let split = r.op_with("Concat", &[batch, place, picture], &[("axis", Attr::Int(0))]);
            let split = r.op("Reshape", &[deep, split]);
            let swapped = r.op_with("Transpose", &[split], &[("perm", Attr::Ints(vec![0, 2, 1, 3, 4]))]);
            let whole = r.b.shape_of(x, Some(&shape));
            r.op("Reshape", &[swapped, whole])
        }
        other => return Err(format!("no mode '{other}' is known")),
    };
    r.b.graph.fact_mut(g).shape = Some(shape);
    Ok(vec![Some(g)])
}

/// Resampling is one matrix an axis: y = M₁·x·M₂ᵀ. Each matrix is what the operator makes of the columns of an
/// identity matrix, and the gradient is multiplied by their transposes.
fn resize(r: &mut Rule<'_, '_>) -> Grads {
    const COORDINATES: &[&str] =
        &["half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric"];
    let (dy, x) = (r.dy()?, r.x(0)?);
    let coordinates = r.node.text("coordinate_transformation_mode").unwrap_or("half_pixel");
    if !COORDINATES.contains(&coordinates) {
        return Err(format!("the coordinates of '{coordinates}' are not derived"));
    }
    let scales = r.node.input(2).filter(|v| r.shape(*v).is_ok_and(|s| s.first().is_none_or(|n| !n.is(0))));
    let policy = r.node.text("keep_aspect_ratio_policy").unwrap_or("stretch");
    if scales.is_none() && policy != "stretch" {
        return Err(format!("sizes with the policy '{policy}' are not derived; 'stretch' is"));
    }
    let shape = r.shape(x)?;
    let axes: Vec<i64> = match r.node.ints("axes") {
        Some(axes) => axes.to_vec(),
        None => (0..shape.len() as i64).collect(),
    };
    let factors = scales.and_then(|v| known_scales(r.b.graph, v));
    let mut g = dy;
    for (k, axis) in axes.iter().enumerate() {
        let a = r.axis(*axis, shape.len())?;
        let stays = match scales {
            Some(_) => factors.as_ref().is_some_and(|f| f.get(k) == Some(&1.0)),
            None => r.b.graph.fact(r.x(3)?).vector().and_then(|e| e.get(k)) == Some(&shape[a]),
        };
        if stays {
            continue;
        }
        let matrix = axis_matrix(r, x, k, a, scales)?;
        g = times(r, g, matrix, a, shape.len());
    }
    r.b.graph.fact_mut(g).shape = Some(shape);
    Ok(vec![Some(g)])
}

/// What the operator does to axis `a`, number `k` of its list: a matrix [size of y, size of x].
fn axis_matrix(
    r: &mut Rule<'_, '_>,
    x: ValueId,
    k: usize,
    a: usize,
    scales: Option<ValueId>,
) -> Result<ValueId, String> {
    let first = [("axis", Attr::Int(0))];
    let size = r.op_with("Shape", &[x], &[("start", Attr::Int(a as i64)), ("end", Attr::Int(a as i64 + 1))]);
    let square = r.op_with("Concat", &[size, size], &first);
    let zero = r.c(0.0, x);
    let blank = r.op("Expand", &[zero, square]);
    let identity = r.op("EyeLike", &[blank]);
    let at = r.b.ints(&[k as i64]);
    let mut inputs = vec![Some(identity), None];
    match scales {
        Some(scales) => {
            let (own, same) = (r.op("Gather", &[scales, at]), r.b.constant(Tensor::vector(&[1f32])));
            inputs.push(Some(r.op_with("Concat", &[own, same], &first)));
        }
        None => {
            let sizes = r.x(3)?;
            let sizes = r.b.cast(sizes, DType::I64);
            let own = r.op("Gather", &[sizes, at]);
            inputs.extend([None, Some(r.op_with("Concat", &[own, size], &first))]);
        }
    }
    let mut attrs = r.node.attrs.clone();
    attrs.remove("axes");
    attrs.remove("keep_aspect_ratio_policy");
    Ok(r.b.emit("Resize", "", &inputs, attrs, 1)[0])
}

/// `g` with its axis `a` multiplied by the transpose of `matrix`.
fn times(r: &mut Rule<'_, '_>, g: ValueId, matrix: ValueId, a: usize, rank: usize) -> ValueId {
    if a + 1 == rank {
        return r.op("MatMul", &[g, matrix]);
    }
    if a + 2 == rank {
        let back = r.op_with("Transpose", &[matrix], &[("perm", Attr::Ints(vec![1, 0]))]);
        return r.op("MatMul", &[back, g]);
    }
    let mut perm: Vec<i64> = (0..rank as i64).collect();
    perm.swap(a, rank - 1);
    let perm = [("perm", Attr::Ints(perm))];
    let last = r.op_with("Transpose", &[g], &perm);
    let done = r.op("MatMul", &[last, matrix]);
    r.op_with("Transpose", &[done], &perm)
}
