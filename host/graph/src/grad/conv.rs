//! Gradients of convolutions.
//!
//! A convolution reads its image through windows; a transposed one lays its input over them. Each is the gradient of
//! the other, and the gradient of either kernel is what the one side and the windows of the other have in common.

use super::sliding::{Pads, Windows, exchanged, list, part, reshaped, spatial_sizes};
use super::{Grads, Row, Rule};
use crate::ir::{Attr, ValueId};

/// Positions of a kernel up to which a matrix product for each is faster than a convolution with a kernel of the size of
/// the image.
const MOST_PRODUCTS: i64 = 9;

pub(super) const RULES: &[Row] = &[("Conv", "", conv), ("ConvTranspose", "", conv_transpose)];

fn group(r: &Rule<'_, '_>) -> Result<i64, String> {
    let group = r.node.int("group", 1);
    (1..=1 << 20).contains(&group).then_some(group).ok_or_else(|| format!("{group} groups"))
}

fn conv(r: &mut Rule<'_, '_>) -> Grads {
    let (dy, x, w, group) = (r.dy()?, r.x(0)?, r.x(1)?, group(r)?);
    let windows = Windows::of(r, x, dy, Some(w))?;
    let dx = if r.wants(0) {
        let g = match backwards(&windows, group) {
            Some(pads) => {
                let w = turned(r, &windows, w, group);
                let attrs = [
                    ("kernel_shape", windows.each(|a| a.kernel)),
                    ("dilations", windows.each(|a| a.dilation)),
                    ("group", Attr::Int(group)),
                    ("pads", Attr::Ints(pads)),
                ];
                r.op_with("Conv", &[dy, w], &attrs)
            }
            None => windows.lay_back(r, (dy, w, group), x),
        };
        Some(of_shape(r, g, x)?)
    } else {
        None
    };
    let dw = if r.wants(1) {
        let g = kernel_gradient(r, &windows, (x, dy), group, false);
        Some(of_shape(r, g, w)?)
    } else {
        None
    };
    let db = if r.wants(2) { Some(bias_gradient(r, dy, &windows)) } else { None };
    Ok(vec![dx, dw, db])
}

fn conv_transpose(r: &mut Rule<'_, '_>) -> Grads {
    let (dy, x, w, group) = (r.dy()?, r.x(0)?, r.x(1)?, group(r)?);
    let mut windows = Windows::of(r, dy, x, Some(w))?;
    let n = windows.axes.len();
    let more = list(r, "output_padding", n, 0, 0)?;
    let mut fixed = Vec::with_capacity(n);
    for ((k, a), more) in windows.axes.iter().enumerate().zip(&more) {
        fixed.push(match (r.node.ints("output_shape"), r.node.text("auto_pad").unwrap_or("NOTSET")) {
            (Some(_), auto) => {
                // The padding is what makes the image of that size.
                let rest = a.rest((0, 0)).ok_or("output_shape over an input whose size is not known")?;
                halves((more - rest).max(0), auto == "SAME_UPPER")
            }
            (None, auto @ ("SAME_UPPER" | "SAME_LOWER")) => {
                halves((a.reach() + more - a.stride).max(0), auto == "SAME_UPPER")
            }
            _ => match &windows.pads {
                Pads::Fixed(p) => p[k],
                Pads::AtRunTime { .. } => return Err("padding that is not known".into()),
            },
        });
    }
    // With an output_padding of a stride or more, or any output_shape, windows have place behind the last one.
    let wide = windows.axes.iter().zip(&more).any(|(a, more)| *more >= a.stride);
    let beyond = wide || r.node.ints("output_shape").is_some();
    windows.pads = Pads::Fixed(fixed.clone());
    let pads = fixed.iter().map(|p| p.0).chain(fixed.iter().map(|p| p.1)).collect();
    let dx = if r.wants(0) {
        let attrs = [
            ("kernel_shape", windows.each(|a| a.kernel)),
            ("strides", windows.each(|a| a.stride)),
            ("dilations", windows.each(|a| a.dilation)),
            ("group", Attr::Int(group)),
            ("pads", Attr::Ints(pads)),
        ];
        let mut g = r.op_with("Conv", &[dy, w], &attrs);
        if beyond {
            let (start, end, axes) =
                (r.b.ints(&vec![0; n]), spatial_sizes(r, x), r.b.ints(&windows.spatial()));
            g = r.op("Slice", &[g, start, end, axes]);
        }
        Some(of_shape(r, g, x)?)
    } else {
        None
    };
    let dw = if r.wants(1) {
        let g = kernel_gradient(r, &windows, (dy, x), group, beyond);
        Some(of_shape(r, g, w)?)
    } else {
        None
    };
    let db = if r.wants(2) { Some(bias_gradient(r, dy, &windows)) } else { None };
    Ok(vec![dx, dw, db])
}

/// Padding divided among front and back; the odd element is behind with `upper`.
fn halves(total: i64, upper: bool) -> (i64, i64) {
    let before = if upper { total / 2 } else { total - total / 2 };
    (before, total - before)
}

/// What is known to have the shape of `like` says so.
pub(super) fn of_shape(r: &mut Rule<'_, '_>, g: ValueId, like: ValueId) -> Result<ValueId, String> {
    let shape = r.shape(like)?;
    r.b.graph.fact_mut(g).shape = Some(shape);
    Ok(g)
}

fn bias_gradient(r: &mut Rule<'_, '_>, dy: ValueId, windows: &Windows) -> ValueId {
    let axes: Vec<i64> = [0].into_iter().chain(windows.spatial()).collect();
    let axes = r.b.ints(&axes);
    r.op_with("ReduceSum", &[dy, axes], &[("keepdims", Attr::Int(0))])
}

/// Padding of the convolution of a gradient with the turned kernel that gives the gradient of the image. `None` where
/// there is no such convolution (windows a stride apart, or an image that is padded by more than a kernel reaches), or
/// where a transposed one is as fast: runtimes have fast paths for convolutions that are depthwise or of size 1.
fn backwards(windows: &Windows, group: i64) -> Option<Vec<i64>> {
    let Pads::Fixed(pads) = &windows.pads else { return None };
    if group == 1 && windows.axes.iter().any(|a| a.kernel > 1) {
        return None;
    }
    let mut back = vec![0; 2 * pads.len()];
    for (k, (a, p)) in windows.axes.iter().zip(pads).enumerate() {
        let room = a.reach() - 1;
        if a.stride != 1 || p.0.max(p.1) > room {
            return None;
        }
        (back[k], back[k + pads.len()]) = (room - p.0, room - p.1);
    }
    Some(back)
}

/// The kernel `[M, C/group, ..]` as `[C, M/group, ..]`, last element first along each spatial axis.
fn turned(r: &mut Rule<'_, '_>, windows: &Windows, w: ValueId, group: i64) -> ValueId {
    let spatial = windows.spatial();
    let flipped: Vec<i64> =
        spatial.iter().copied().zip(&windows.axes).filter(|(_, a)| a.kernel > 1).map(|(k, _)| k).collect();
    let mut y = w;
    if !flipped.is_empty() {
        let each = |r: &mut Rule<'_, '_>, v: i64| r.b.ints(&vec![v; flipped.len()]);
        let (start, end, step) = (each(r, -1), each(r, i64::MIN), each(r, -1));
        let axes = r.b.ints(&flipped);
        y = r.op("Slice", &[w, start, end, axes, step]);
    }
    let is = |k: usize, n: i64| r.b.graph.shape(w).and_then(|s| s.get(k)).is_some_and(|d| d.is(n));
    match group {
        1 => exchanged(r, y, &spatial),
        // Depthwise: one in, one out.
        _ if is(0, group) && is(1, 1) => y,
        _ => {
            let (groups, free, width) = (r.b.ints(&[group]), r.b.ints(&[-1]), part(r, w, 1, 1));
            let kernel: Vec<i64> = windows.axes.iter().map(|a| a.kernel).collect();
            let kernel = r.b.ints(&kernel);
            let y = reshaped(r, y, &[groups, free, width, kernel]);
            let perm = [0, 2, 1].into_iter().chain(spatial.iter().map(|k| k + 1)).collect();
            let y = r.op_with("Transpose", &[y], &[("perm", Attr::Ints(perm))]);
            let height = part(r, w, 0, group);
            reshaped(r, y, &[free, height, kernel])
        }
    }
}

/// The gradient `[M, C/group, ..]` of a kernel through which the image `[N, C, ..]` was read, for the gradient `g`
/// `[N, M, ..]` of what was read: a convolution whose kernel is `g`, that sums over the batch. Strides and dilations
/// change places. With `beyond`, more windows may have place in the image than `g` has elements.
fn kernel_gradient(
    r: &mut Rule<'_, '_>,
    windows: &Windows,
    (image, g): (ValueId, ValueId),
    group: i64,
    beyond: bool,
) -> ValueId {
    let spatial = windows.spatial();
    let n = spatial.len();
    let (mut x, mut pads) = (image, vec![0; 2 * n]);
    match &windows.pads {
        Pads::Fixed(p) => {
            p.iter().enumerate().for_each(|(k, p)| (pads[k], pads[k + n]) = *p);
        }
        Pads::AtRunTime { .. } => {
            let (before, after) = windows.pads_of(r, image, g);
            let amounts = r.op_with("Concat", &[before, after], &[("axis", Attr::Int(0))]);
            let (zero, axes) = (r.c(0.0, image), r.b.ints(&spatial));
            x = r.op("Pad", &[image, amounts, zero, axes]);
        }
    }
    // What no window reaches would give a larger kernel: it is left out, by less padding or by a cut.
    let fixed = matches!(windows.pads, Pads::Fixed(_));
    let (mut crop, mut exact) = (false, fixed);
    for (k, a) in windows.axes.iter().enumerate() {
        let rest = a.rest((pads[k], pads[k + n])).filter(|_| fixed);
        exact &= rest.map_or(!beyond, |rest| rest < a.stride);
        match rest {
            Some(rest) if (0..=pads[k + n]).contains(&rest) => pads[k + n] -= rest,
            Some(rest) if rest < a.dilation => {}
            None if a.stride == 1 => {}
            _ => crop = true,
        }
    }
    let positions = windows.axes.iter().try_fold(1i64, |n, a| n.checked_mul(a.kernel));
    if group == 1 && exact && positions.is_some_and(|n| n <= MOST_PRODUCTS) {
        return by_position(r, windows, (x, g), &pads);
    }
    let x = match group {
        1 => exchanged(r, x, &spatial),
        _ => {
            // [N, C, ..] → [C/group, group·N, ..]: the batch is what a group sums over.
            let (same, groups, free) = (r.b.ints(&[0]), r.b.ints(&[group]), r.b.ints(&[-1]));
            let width = part(r, image, 1, group);
            let size = spatial_sizes(r, x);
            let x = reshaped(r, x, &[same, groups, width, free]);
            let x = r.op_with("Transpose", &[x], &[("perm", Attr::Ints(vec![2, 1, 0, 3]))]);
            reshaped(r, x, &[width, free, size])
        }
    };
    let kernel = exchanged(r, g, &spatial);
    let attrs = [
        ("strides", windows.each(|a| a.dilation)),
        ("dilations", windows.each(|a| a.stride)),
        ("group", Attr::Int(group)),
        ("pads", Attr::Ints(pads)),
    ];
    let mut dw = r.op_with("Conv", &[x, kernel], &attrs);
    if crop {
        let size: Vec<i64> = windows.axes.iter().map(|a| a.kernel).collect();
        let (start, end, axes) = (r.b.ints(&vec![0; n]), r.b.ints(&size), r.b.ints(&spatial));
        dw = r.op("Slice", &[dw, start, end, axes]);
    }
    exchanged(r, dw, &spatial)
}

/// The gradient of a small kernel: for each of its positions one matrix product, over batch and windows, of `g` and the
/// elements of the image that stand at that position.
fn by_position(
    r: &mut Rule<'_, '_>,
    windows: &Windows,
    (image, g): (ValueId, ValueId),
    pads: &[i64],
) -> ValueId {
    let spatial = windows.spatial();
    let axes = r.b.ints(&spatial);
    let rows = |r: &mut Rule<'_, '_>, v: ValueId| r.op_with("Flatten", &[v], &[("axis", Attr::Int(1))]);
    let mut x = exchanged(r, image, &spatial);
    if pads.iter().any(|p| *p != 0) {
        let (amounts, zero) = (r.b.ints(pads), r.c(0.0, image));
        x = r.op("Pad", &[x, amounts, zero, axes]);
    }
    let g = exchanged(r, g, &spatial);
    let g = rows(r, g);
    let steps: Vec<i64> = windows.axes.iter().map(|a| a.stride).collect();
    let whole = windows.axes.iter().all(|a| a.kernel == 1 && a.stride == 1);
    let steps = r.b.ints(&steps);
    let mut at = vec![0; spatial.len()];
    let mut products = Vec::new();
    loop {
        let mut seen = x;
        if !whole {
            let start: Vec<i64> = windows.axes.iter().zip(&at).map(|(a, i)| i * a.dilation).collect();
            // The end counts from the end of the image, whose size need not be known.
            let end = windows.axes.iter().zip(&start).map(|(a, s)| match a.reach() - 1 - s {
                0 => i64::MAX,
                left => -left,
            });
            let end: Vec<i64> = end.collect();
            let (start, end) = (r.b.ints(&start), r.b.ints(&end));
            seen = r.op("Slice", &[x, start, end, axes, steps]);
        }
        let seen = rows(r, seen);
        let product = r.op_with("Gemm", &[g, seen], &[("transB", Attr::Int(1))]);
        products.push(r.op("Unsqueeze", &[product, axes]));
        // The next position, the last axis first.
        let Some(k) = (0..at.len()).rev().find(|k| at[*k] + 1 < windows.axes[*k].kernel) else { break };
        at[k] += 1;
        at[k + 1..].fill(0);
    }
    // Row by row: positions of the last axis are joined first.
    for (k, a) in windows.axes.iter().enumerate().rev().filter(|(_, a)| a.kernel > 1) {
        let join = |part: &[ValueId]| r.op_with("Concat", part, &[("axis", Attr::Int(k as i64 + 2))]);
        products = products.chunks(a.kernel as usize).map(join).collect();
    }
    products[0]
}
