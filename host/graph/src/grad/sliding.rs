//! The geometry of sliding windows, which convolutions and poolings share.

use super::Rule;
use crate::dim::Dim;
use crate::ir::{Attr, ValueId};

/// Largest kernel, stride, dilation or padding: sums and products of them and of sizes stay far from overflow.
const LARGEST: i64 = 1 << 20;
/// Largest image size.
const LARGEST_SIZE: i64 = 1 << 40;

/// Windows along one spatial axis.
pub(super) struct Axis {
    pub(super) kernel: i64,
    pub(super) stride: i64,
    pub(super) dilation: i64,
    /// Size of the image, where known.
    pub(super) size: Option<i64>,
    /// Number of windows, where known.
    pub(super) count: Option<i64>,
}

impl Axis {
    /// Elements from the first that a window reads to its last.
    pub(super) fn reach(&self) -> i64 {
        (self.kernel - 1) * self.dilation + 1
    }

    /// How far the last window of an image that is padded by `pads` stays away from its end; negative where it goes
    /// beyond. `None` where it depends on sizes that are not known.
    pub(super) fn rest(&self, pads: (i64, i64)) -> Option<i64> {
        let covered = (self.count? - 1) * self.stride + self.reach();
        Some(self.size? + pads.0 + pads.1 - covered)
    }
}

/// Padding in front of and behind the image.
pub(super) enum Pads {
    /// Numbers, for each axis.
    Fixed(Vec<(i64, i64)>),
    /// As `auto_pad` SAME says, from sizes at run time. With `lower`, the odd element is in front.
    AtRunTime { lower: bool },
}

/// All spatial axes of a node.
pub(super) struct Windows {
    pub(super) axes: Vec<Axis>,
    pub(super) pads: Pads,
}

/// A spatial size: of any value, or a number that is none.
fn size(d: &Dim) -> Result<Option<i64>, String> {
    match d.known() {
        Some(n) if !(0..=LARGEST_SIZE).contains(&n) => Err(format!("an image of size {n}")),
        n => Ok(n),
    }
}

/// A list of attribute `name` with an element for each of `n`; `default` where there is no such attribute.
pub(super) fn list(
    r: &Rule<'_, '_>,
    name: &str,
    n: usize,
    low: i64,
    default: i64,
) -> Result<Vec<i64>, String> {
    let values = r.node.ints(name).map_or_else(|| vec![default; n], <[i64]>::to_vec);
    if values.len() != n || values.iter().any(|v| !(low..=LARGEST).contains(v)) {
        return Err(format!("{name} {values:?}, where {n} numbers from {low} to {LARGEST} are expected"));
    }
    Ok(values)
}

impl Windows {
    /// The windows of the node over `image` `[N, C, ..]`, of which `windows` `[N, M, ..]` has one element each. The
    /// kernel is that of the attribute or else the spatial axes of `weight`.
    pub(super) fn of(
        r: &Rule<'_, '_>,
        image: ValueId,
        windows: ValueId,
        weight: Option<ValueId>,
    ) -> Result<Windows, String> {
        let (image, count) = (r.shape(image)?, r.shape(windows)?);
        let n = image.len().checked_sub(2).filter(|n| *n > 0).ok_or("an image without spatial axes")?;
        if count.len() != image.len() {
            return Err("image and windows differ in rank".into());
        }
        let kernel = match (r.node.ints("kernel_shape"), weight) {
            (Some(k), _) => k.to_vec(),
            (None, Some(w)) => {
                let known = r.shape(w)?.iter().skip(2).map(Dim::known).collect::<Option<_>>();
                known.ok_or("the size of the kernel is not known")?
            }
            (None, None) => return Err("kernel_shape is missing".into()),
        };
        if kernel.len() != n || kernel.iter().any(|k| !(1..=LARGEST).contains(k)) {
            return Err(format!("a kernel of size {kernel:?} over {n} axes"));
        }
        let (strides, dilations) = (list(r, "strides", n, 1, 1)?, list(r, "dilations", n, 1, 1)?);
        let mut axes = Vec::with_capacity(n);
        for k in 0..n {
            let (size, count) = (size(&image[k + 2])?, size(&count[k + 2])?);
            axes.push(Axis { kernel: kernel[k], stride: strides[k], dilation: dilations[k], size, count });
        }
        let pads = match r.node.text("auto_pad").unwrap_or("NOTSET") {
            "NOTSET" | "" => {
                let pads = list(r, "pads", 2 * n, 0, 0)?;
                Pads::Fixed((0..n).map(|k| (pads[k], pads[k + n])).collect())
            }
            "VALID" => Pads::Fixed(vec![(0, 0); n]),
            "SAME_UPPER" => same(&axes, false),
            "SAME_LOWER" => same(&axes, true),
            other => return Err(format!("auto_pad {other}")),
        };
        Ok(Windows { axes, pads })
    }

    /// The spatial axes of a value `[N, C, ..]`.
    pub(super) fn spatial(&self) -> Vec<i64> {
        (2..self.axes.len() as i64 + 2).collect()
    }

    /// Attribute values, one for each axis.
    pub(super) fn each(&self, of: impl Fn(&Axis) -> i64) -> Attr {
        Attr::Ints(self.axes.iter().map(of).collect())
    }

    /// Padding in front and behind, as two vectors with an element for each spatial axis.
    pub(super) fn pads_of(
        &self,
        r: &mut Rule<'_, '_>,
        image: ValueId,
        windows: ValueId,
    ) -> (ValueId, ValueId) {
        let lower = match &self.pads {
            Pads::Fixed(p) => {
                let (before, after): (Vec<i64>, Vec<i64>) = p.iter().copied().unzip();
                return (r.b.ints(&before), r.b.ints(&after));
            }
            Pads::AtRunTime { lower } => *lower,
        };
        let (size, count) = (spatial_sizes(r, image), spatial_sizes(r, windows));
        let ints = |r: &mut Rule<'_, '_>, of: &dyn Fn(&Axis) -> i64| {
            let values: Vec<i64> = self.axes.iter().map(of).collect();
            r.b.ints(&values)
        };
        let (stride, first) = (ints(r, &|a| a.stride), ints(r, &|a| a.reach() - a.stride));
        let (zero, one, two) = (r.b.ints(&[0]), r.b.ints(&[1]), r.b.ints(&[2]));
        let covered = r.op("Mul", &[count, stride]);
        let covered = r.op("Add", &[covered, first]);
        let needed = r.op("Sub", &[covered, size]);
        let needed = r.op("Max", &[needed, zero]);
        let rounded = if lower { r.op("Add", &[needed, one]) } else { needed };
        let before = r.op("Div", &[rounded, two]);
        (before, r.op("Sub", &[needed, before]))
    }

    /// The gradient of the image `like` `[N, C, ..]`, for the gradient `g` `[N, M, ..]` of what was read through the
    /// kernel `w` `[M, C/group, ..]`: each element of `g` is laid over the window that it comes from.
    pub(super) fn lay_back(
        &self,
        r: &mut Rule<'_, '_>,
        (g, w, group): (ValueId, ValueId, i64),
        like: ValueId,
    ) -> ValueId {
        let n = self.axes.len();
        let (mut pads, mut more, mut crop) = (vec![0; 2 * n], vec![0; n], false);
        for (k, a) in self.axes.iter().enumerate() {
            // What no window reaches, at the end, is there as output_padding. Where it is not known, the most that it
            // can be is added, and the image is cut to its size.
            more[k] = a.stride - 1;
            let Pads::Fixed(p) = &self.pads else {
                crop = true;
                continue;
            };
            (pads[k], pads[k + n]) = p[k];
            match a.rest(p[k]) {
                Some(rest) if rest < a.stride => {
                    more[k] = rest.max(0);
                    pads[k + n] += (-rest).max(0);
                }
                None if a.stride == 1 => {}
                _ => crop = true,
            }
        }
        let attrs = [
            ("kernel_shape", self.each(|a| a.kernel)),
            ("strides", self.each(|a| a.stride)),
            ("dilations", self.each(|a| a.dilation)),
            ("group", Attr::Int(group)),
            ("pads", Attr::Ints(pads)),
            ("output_padding", Attr::Ints(more)),
        ];
        let full = r.op_with("ConvTranspose", &[g, w], &attrs);
        if !crop {
            return full;
        }
        let size = spatial_sizes(r, like);
        let (start, end) = match &self.pads {
            Pads::Fixed(_) => (r.b.ints(&vec![0; n]), size),
            Pads::AtRunTime { .. } => {
                let (before, _) = self.pads_of(r, like, g);
                (before, r.op("Add", &[before, size]))
            }
        };
        let axes = r.b.ints(&self.spatial());
        r.op("Slice", &[full, start, end, axes])
    }
}

/// `auto_pad` SAME: as many windows as strides begin in the image.
fn same(axes: &[Axis], lower: bool) -> Pads {
    let pad = |a: &Axis| {
        let needed = match (a.stride, a.size) {
            (1, _) => a.reach() - 1,
            (s, Some(size)) => ((size + s - 1) / s - 1) * s + a.reach() - size,
            _ => return None,
        };
        let needed = needed.max(0);
        let before = if lower { (needed + 1) / 2 } else { needed / 2 };
        Some((before, needed - before))
    };
    axes.iter().map(pad).collect::<Option<_>>().map_or(Pads::AtRunTime { lower }, Pads::Fixed)
}

/// The spatial sizes of a value `[N, C, ..]`: a constant where they are known.
pub(super) fn spatial_sizes(r: &mut Rule<'_, '_>, v: ValueId) -> ValueId {
    let known: Option<Vec<i64>> = r.b.graph.shape(v).and_then(|s| s.iter().skip(2).map(Dim::known).collect());
    match known {
        Some(n) => r.b.ints(&n),
        None => r.op_with("Shape", &[v], &[("start", Attr::Int(2))]),
    }
}

/// The size of axis `axis` of `v`, divided by `by`, as a vector of one element.
pub(super) fn part(r: &mut Rule<'_, '_>, v: ValueId, axis: usize, by: i64) -> ValueId {
    let known = r.b.graph.shape(v).and_then(|s| s.get(axis)?.known());
    if let Some(n) = known.and_then(|n| n.checked_div(by)) {
        return r.b.ints(&[n]);
    }
    let (start, end) = (Attr::Int(axis as i64), Attr::Int(axis as i64 + 1));
    let size = r.op_with("Shape", &[v], &[("start", start), ("end", end)]);
    if by == 1 {
        return size;
    }
    let by = r.b.ints(&[by]);
    r.op("Div", &[size, by])
}

/// `x` in a shape that is put together from vectors.
pub(super) fn reshaped(r: &mut Rule<'_, '_>, x: ValueId, parts: &[ValueId]) -> ValueId {
    let shape = r.op_with("Concat", parts, &[("axis", Attr::Int(0))]);
    r.op("Reshape", &[x, shape])
}

/// The first two axes exchanged.
pub(super) fn exchanged(r: &mut Rule<'_, '_>, x: ValueId, spatial: &[i64]) -> ValueId {
    let perm = [1, 0].into_iter().chain(spatial.iter().copied()).collect();
    r.op_with("Transpose", &[x], &[("perm", Attr::Ints(perm))])
}
