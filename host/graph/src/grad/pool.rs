//! Gradients of poolings.

use super::movement::zeros_like;
use super::sliding::{Pads, Windows, reshaped, spatial_sizes};
use super::{Grads, Row, Rule};
use crate::dim::product;
use crate::ir::{Attr, Attrs, ValueId};
use crate::tensor::DType;

pub(super) const RULES: &[Row] = &[
    ("MaxPool", "the first of equal maxima in a window has the gradient", max_pool),
    ("AveragePool", "", average_pool),
    ("GlobalAveragePool", "", |r| {
        let (dy, x, y) = (r.dy()?, r.x(0)?, r.y(0)?);
        let n = elements_each(r, x, y)?;
        let g = r.op("Div", &[dy, n]);
        let known = r.b.graph.shape(x).cloned();
        let shape = r.b.shape_of(x, known.as_ref());
        Ok(vec![Some(r.op("Expand", &[g, shape]))])
    }),
    ("GlobalMaxPool", "the first of equal maxima has the gradient", global_max_pool),
];

/// How many elements of `x` there are for each one of `y`, as a float scalar of the type of `x`.
fn elements_each(r: &mut Rule<'_, '_>, x: ValueId, y: ValueId) -> Result<ValueId, String> {
    let n = product(&r.shape(x)?).divided_exactly(&product(&r.shape(y)?));
    if let Some(n) = n.and_then(|n| n.known()) {
        return Ok(r.c(n as f64, x));
    }
    let sizes = spatial_sizes(r, x);
    let n = r.op_with("ReduceProd", &[sizes], &[("keepdims", Attr::Int(0))]);
    let dtype = r.dtype(x);
    Ok(r.b.cast(n, dtype))
}

/// Padding must be less than a window reaches: else there are windows of padding alone.
fn no_empty_window(windows: &Windows) -> Result<(), String> {
    let Pads::Fixed(pads) = &windows.pads else { return Ok(()) };
    let wide = windows.axes.iter().zip(pads).any(|(a, p)| p.0.max(p.1) >= a.reach());
    if wide { Err("padding of a window's size or more".into()) } else { Ok(()) }
}

/// Where windows of `auto_pad` SAME leave two elements or more between them, the padding that the operator's
/// definition asks for is negative. Implementations differ in whether the first window then begins behind the first
/// element.
fn no_gap_to_share(r: &Rule<'_, '_>, windows: &Windows) -> Result<(), String> {
    let same = r.node.text("auto_pad").is_some_and(|a| a.starts_with("SAME"));
    if same && windows.axes.iter().any(|a| a.stride > a.reach() + 1) {
        return Err(
            "auto_pad SAME with strides beyond the windows; give the padding as numbers in pads".into()
        );
    }
    Ok(())
}

fn max_pool(r: &mut Rule<'_, '_>) -> Grads {
    let (dy, x, y) = (r.dy()?, r.x(0)?, r.y(0)?);
    let windows = Windows::of(r, x, dy, None)?;
    no_empty_window(&windows)?;
    // Where each maximum was, counted over all of x. The forward node's own output may be missing or count otherwise.
    let mut attrs: Attrs = r.node.attrs.clone();
    attrs.remove("storage_order");
    let mut at = r.b.emit("MaxPool", "", &[Some(x)], attrs, 2)[1];
    let mut g = dy;
    if windows.axes.iter().any(|a| a.dilation > 1 && a.size.is_none_or(|n| n < a.dilation)) {
        // All of a dilated window may lie outside a small image. It then has the least number and no place.
        let least = match r.dtype(x) {
            DType::F64 => f64::MIN,
            DType::F16 => f64::from(half::f16::MIN),
            _ => f64::from(f32::MIN),
        };
        let (zero, first, least) = (r.c(0.0, x), r.b.scalar(0i64), r.c(least, x));
        let nowhere = r.op("Equal", &[y, least]);
        at = r.op("Max", &[at, first]);
        g = r.op("Where", &[nowhere, zero, g]);
    }
    let flat = r.b.ints(&[-1]);
    let (at, g) = (r.op("Reshape", &[at, flat]), r.op("Reshape", &[g, flat]));
    let zeros = zeros_like(r, x);
    let zeros = r.op("Reshape", &[zeros, flat]);
    let (zeros, g) = (r.wide(zeros), r.wide(g));
    let attrs = [("axis", Attr::Int(0)), ("reduction", Attr::from("add"))];
    let sum = r.op_with("ScatterElements", &[zeros, at, g], &attrs);
    Ok(vec![Some(r.b.reshape_like(sum, x))])
}

fn global_max_pool(r: &mut Rule<'_, '_>) -> Grads {
    let (dy, x) = (r.dy()?, r.x(0)?);
    let rows = r.b.ints(&[0, 0, -1]);
    let (flat, g) = (r.op("Reshape", &[x, rows]), r.op("Reshape", &[dy, rows]));
    let at = r.op_with("ArgMax", &[flat], &[("axis", Attr::Int(2)), ("keepdims", Attr::Int(1))]);
    let zeros = zeros_like(r, flat);
    let dx = r.op_with("ScatterElements", &[zeros, at, g], &[("axis", Attr::Int(2))]);
    Ok(vec![Some(r.b.reshape_like(dx, x))])
}

/// Each element of the gradient is divided by the number of elements in its window and laid over the window. All
/// channels are images of one channel.
fn average_pool(r: &mut Rule<'_, '_>) -> Grads {
    let (dy, x) = (r.dy()?, r.x(0)?);
    let windows = Windows::of(r, x, dy, None)?;
    no_empty_window(&windows)?;
    no_gap_to_share(r, &windows)?;
    let kernel: Vec<i64> = windows.axes.iter().map(|a| a.kernel).collect();
    let ones_shape: Vec<i64> = [1, 1].into_iter().chain(kernel.iter().copied()).collect();
    let (one, ones_shape) = (r.c(1.0, x), r.b.ints(&ones_shape));
    let ones = r.op("Expand", &[one, ones_shape]);
    let (free, single) = (r.b.ints(&[-1]), r.b.ints(&[1]));
    let count = spatial_sizes(r, dy);
    let g = reshaped(r, dy, &[free, single, count]);
    let members = members(r, &windows, (x, dy), ones)?;
    let g = r.op("Div", &[g, members]);
    let dx = windows.lay_back(r, (g, ones, 1), x);
    Ok(vec![Some(r.b.reshape_like(dx, x))])
}

/// How many elements each window has that count: a scalar, or `[1, 1, ..]`.
fn members(
    r: &mut Rule<'_, '_>,
    windows: &Windows,
    (x, dy): (ValueId, ValueId),
    ones: ValueId,
) -> Result<ValueId, String> {
    let (padded, beyond) = (r.node.int("count_include_pad", 0) != 0, r.node.int("ceil_mode", 0) != 0);
    let none = matches!(&windows.pads, Pads::Fixed(p) if p.iter().all(|p| *p == (0, 0)));
    if (padded || none) && !beyond {
        let n: i64 = windows
            .axes
            .iter()
            .try_fold(1i64, |n, a| n.checked_mul(a.kernel))
            .ok_or("a kernel of that size")?;
        return Ok(r.c(n as f64, x));
    }
    // A one for each element that counts, behind which there is room for a window that goes beyond them.
    let one = r.b.ints(&[1, 1]);
    let size = spatial_sizes(r, x);
    let shape = r.op_with("Concat", &[one, size], &[("axis", Attr::Int(0))]);
    let value = r.c(1.0, x);
    let image = r.op("Expand", &[value, shape]);
    let (before, after) = windows.pads_of(r, x, dy);
    let axes = r.b.ints(&windows.spatial());
    let pad = |r: &mut Rule<'_, '_>, image: ValueId, before: ValueId, after: ValueId, with: f64| {
        let amounts = r.op_with("Concat", &[before, after], &[("axis", Attr::Int(0))]);
        let with = r.c(with, x);
        r.op("Pad", &[image, amounts, with, axes])
    };
    let image = pad(r, image, before, after, if padded { 1.0 } else { 0.0 });
    let room: Vec<i64> = windows.axes.iter().map(|a| if beyond { a.stride } else { 0 }).collect();
    let (nothing, room) = (r.b.ints(&vec![0; room.len()]), r.b.ints(&room));
    let image = pad(r, image, nothing, room, 0.0);
    let attrs = [("strides", windows.each(|a| a.stride)), ("dilations", windows.each(|a| a.dilation))];
    let counts = r.op_with("Conv", &[image, ones], &attrs);
    let (start, end) = (r.b.ints(&vec![0; windows.axes.len()]), spatial_sizes(r, dy));
    Ok(r.op("Slice", &[counts, start, end, axes]))
}
