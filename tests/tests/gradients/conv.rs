//! Cases of convolutions and poolings.

use graft_graph::{Attr, Attrs, Builder, DType, Dim, Graph, ValueId};
use graft_tests::differences::Tolerance::{Approximate, Close};
use graft_tests::differences::{Arg, Case, Derived, Sizes, tensor};
use graft_tests::{Array, Draw, runtime};

use crate::{Row, case};

const RANGE: (f64, f64) = (-1.0, 1.0);

pub const CASES: &[Row] = &[
    ("Conv", Approximate, conv),
    ("ConvTranspose", Approximate, conv_transpose),
    ("MaxPool", Close, max_pool),
    ("AveragePool", Approximate, average_pool),
    ("GlobalAveragePool", Approximate, global_average_pool),
    ("GlobalMaxPool", Approximate, global_max_pool),
];

/// Kernel, strides, dilations and padding over one to three axes.
struct Sliding {
    kernel: Vec<usize>,
    strides: Vec<usize>,
    dilations: Vec<usize>,
    pads: Vec<usize>,
    auto_pad: Option<&'static str>,
}

fn ints(v: &[usize]) -> Attr {
    Attr::Ints(v.iter().map(|n| *n as i64).collect())
}

impl Sliding {
    /// `wide`: the padding may be as wide as a window.
    fn draw(d: &mut Draw<'_>, wide: bool) -> Sliding {
        let n = d.pick(&[2, 1, 3]);
        let most = if n == 3 { 2 } else { 3 };
        let each =
            |d: &mut Draw<'_>, most: usize| -> Vec<usize> { (0..n).map(|_| d.size(1..=most)).collect() };
        let kernel = each(d, most);
        let strides = if d.flag() { each(d, 3) } else { vec![1; n] };
        let auto_pad =
            d.pick(&[None, None, Some("NOTSET"), Some("VALID"), Some("SAME_UPPER"), Some("SAME_LOWER")]);
        let same = auto_pad.is_some_and(|a| a.starts_with("SAME"));
        // ONNX Runtime does not dilate windows whose padding it is to find.
        let dilations = if !same && d.flag() { each(d, 2) } else { vec![1; n] };
        let reach: Vec<usize> = (0..n).map(|k| (kernel[k] - 1) * dilations[k] + 1).collect();
        let set = matches!(auto_pad, None | Some("NOTSET")) && d.flag();
        // Poolings are padded by less than their kernel.
        let most = |k: usize| if wide { reach[k] } else { kernel[k] - 1 };
        let pads = (0..2 * n).map(|k| if set { d.size(0..=most(k % n)) } else { 0 }).collect();
        Sliding { kernel, strides, dilations, pads, auto_pad }
    }

    fn rank(&self) -> usize {
        self.kernel.len()
    }

    /// A size of axis `k` in which at least one window has place.
    fn size(&self, d: &mut Draw<'_>, k: usize) -> usize {
        let reach = (self.kernel[k] - 1) * self.dilations[k] + 1;
        let least = reach.saturating_sub(self.pads[k] + self.pads[k + self.rank()]).max(1);
        d.size(least..=least + if self.rank() == 3 { 2 } else { 4 })
    }

    fn image(&self, d: &mut Draw<'_>, batch: usize, channels: usize) -> Vec<usize> {
        let mut shape = vec![batch, channels];
        shape.extend((0..self.rank()).map(|k| self.size(d, k)));
        shape
    }

    fn set(&self, c: &mut Case, d: &mut Draw<'_>) {
        let n = self.rank();
        let default = [("strides", &self.strides), ("dilations", &self.dilations)];
        for (name, values) in default {
            if *values != vec![1; n] || d.flag() {
                c.attrs.insert(name.into(), ints(values));
            }
        }
        if self.pads.iter().any(|p| *p > 0) {
            c.attrs.insert("pads".into(), ints(&self.pads));
        }
        if let Some(auto) = self.auto_pad {
            c.attrs.insert("auto_pad".into(), Attr::from(auto));
        }
    }
}

/// Images of one to three axes, kernels in groups down to one channel each, every kind of padding.
fn conv(op: &'static str, d: &mut Draw<'_>) -> Case {
    let s = Sliding::draw(d, true);
    let (batch, group) = (d.size(1..=2), d.pick(&[1, 1, 2, 3]));
    let (each, made) = (d.size(1..=2), d.size(1..=2));
    let x = s.image(d, batch, group * each);
    let w: Vec<usize> = [group * made, each].into_iter().chain(s.kernel.iter().copied()).collect();
    kernel_case(op, d, &s, group, (x, w, group * made))
}

fn kernel_case(
    op: &'static str,
    d: &mut Draw<'_>,
    s: &Sliding,
    group: usize,
    (x, w, made): (Vec<usize>, Vec<usize>, usize),
) -> Case {
    let mut args = vec![Arg::Float(d.reals(&x, RANGE, &[])), Arg::Float(d.reals(&w, RANGE, &[]))];
    if d.flag() {
        args.push(Arg::Float(d.reals(&[made], RANGE, &[])));
    }
    let mut c = case(op, args, &[]);
    s.set(&mut c, d);
    if group > 1 || d.flag() {
        c.attrs.insert("group".into(), Attr::Int(group as i64));
    }
    if d.flag() {
        c.needs_sizes = true;
    } else {
        c.attrs.insert("kernel_shape".into(), ints(&s.kernel));
    }
    c
}

fn conv_transpose(op: &'static str, d: &mut Draw<'_>) -> Case {
    let mut s = Sliding::draw(d, true);
    let n = s.rank();
    let (batch, group) = (d.size(1..=2), d.pick(&[1, 1, 2, 3]));
    let (each, made) = (d.size(1..=2), d.size(1..=2));
    let mut x = vec![batch, group * each];
    x.extend((0..n).map(|_| d.size(1..=3)));
    let w: Vec<usize> = [group * each, made].into_iter().chain(s.kernel.iter().copied()).collect();
    // Padding takes away, here; something must be left.
    for k in 0..n {
        let full = (x[k + 2] - 1) * s.strides[k] + (s.kernel[k] - 1) * s.dilations[k] + 1;
        while s.pads[k] + s.pads[k + n] >= full {
            (s.pads[k], s.pads[k + n]) = (s.pads[k] / 2, s.pads[k + n] / 2);
        }
    }
    let mut c = kernel_case(op, d, &s, group, (x.clone(), w, group * made));
    match d.below(3) {
        1 => {
            let more: Vec<usize> = (0..n).map(|k| d.size(0..=s.strides[k] - 1)).collect();
            c.attrs.insert("output_padding".into(), ints(&more));
        }
        2 if s.pads.iter().all(|p| *p == 0) => {
            // Any size down to one element less than what is covered.
            let full = |k: usize| (x[k + 2] - 1) * s.strides[k] + (s.kernel[k] - 1) * s.dilations[k] + 1;
            let sizes: Vec<usize> = (0..n).map(|k| (full(k) - d.size(0..=1)).max(1)).collect();
            c.attrs.insert("output_shape".into(), ints(&sizes));
            c.needs_sizes = true;
        }
        _ => {}
    }
    c
}

/// Numbers that are well apart, in any order.
fn apart(d: &mut Draw<'_>, shape: &[usize]) -> Array {
    let n: usize = shape.iter().product();
    let mut values: Vec<f64> = (0..n).map(|k| k as f64 * 0.1 - 1.0).collect();
    for k in (1..n).rev() {
        let other = (d.real(0.0, 1.0) * (k + 1) as f64) as usize;
        values.swap(k, other.min(k));
    }
    Array { shape: shape.to_vec(), values }
}

fn max_pool(op: &'static str, d: &mut Draw<'_>) -> Case {
    let mut s = Sliding::draw(d, false);
    // A dilated window that lies wholly in padding has no maximum: minus infinity has no differences.
    if s.dilations.iter().any(|n| *n > 1) {
        s.pads.iter_mut().for_each(|n| *n = 0);
    }
    let (batch, channels) = (d.size(1..=2), d.size(1..=2));
    let x = s.image(d, batch, channels);
    let mut c = case(op, vec![Arg::Float(apart(d, &x))], &[("kernel_shape", ints(&s.kernel))]);
    s.set(&mut c, d);
    if d.flag() {
        c.attrs.insert("ceil_mode".into(), Attr::Int(1));
    }
    c
}

fn average_pool(op: &'static str, d: &mut Draw<'_>) -> Case {
    let mut s = Sliding::draw(d, false);
    // Negative padding, which is refused.
    if s.auto_pad.is_some_and(|a| a.starts_with("SAME")) {
        s.strides.iter_mut().zip(&s.kernel).for_each(|(stride, reach)| *stride = (*stride).min(reach + 1));
    }
    let (batch, channels) = (d.size(1..=2), d.size(1..=2));
    let x = s.image(d, batch, channels);
    let mut c = case(op, vec![Arg::Float(d.reals(&x, RANGE, &[]))], &[("kernel_shape", ints(&s.kernel))]);
    s.set(&mut c, d);
    for name in ["ceil_mode", "count_include_pad"] {
        if d.flag() {
            c.attrs.insert(name.into(), Attr::Int(1));
        }
    }
    c
}

fn image(d: &mut Draw<'_>) -> Vec<usize> {
    let (batch, channels) = (d.size(1..=2), d.size(1..=2));
    [vec![batch, channels], d.shape(1..=3)].concat()
}

fn global_average_pool(op: &'static str, d: &mut Draw<'_>) -> Case {
    let x = image(d);
    case(op, vec![Arg::Float(d.reals(&x, RANGE, &[]))], &[])
}

fn global_max_pool(op: &'static str, d: &mut Draw<'_>) -> Case {
    let x = image(d);
    case(op, vec![Arg::Float(apart(d, &x))], &[])
}

/// Gradient of a row `[1, 1, n]`, for cotangents of one.
fn of_row(op: &'static str, attrs: &[(&str, Attr)], row: &[f64]) -> Option<Vec<f64>> {
    let runtime = runtime()?;
    let x = Arg::Float(Array { shape: vec![1, 1, row.len()], values: row.to_vec() });
    let attrs: Attrs = attrs.iter().map(|(k, v)| (k.to_string(), v.clone())).collect();
    let case = Case { op, attrs, args: vec![x], outputs: 1, needs_sizes: false };
    let (graph, floats, fed) = case.graph(Sizes::Own, DType::F32);
    let mut derived = Derived::new(runtime, &graph, &floats, true).expect("a derivable graph");
    Some(derived.gradients(&fed, &mut || 1.0).expect("it runs").0.remove(0))
}

#[test]
fn the_first_of_equal_maxima_has_the_gradient() {
    let attrs = [("kernel_shape", ints(&[3])), ("strides", ints(&[1]))];
    let Some(max) = of_row("MaxPool", &attrs, &[2.0, 2.0, 1.0, 2.0, 2.0]) else { return };
    assert_eq!(max, [1.0, 1.0, 0.0, 1.0, 0.0]);
    assert_eq!(of_row("GlobalMaxPool", &[], &[0.0, 1.0, 1.0]).unwrap(), [0.0, 1.0, 0.0]);
}

#[test]
fn a_window_of_negative_infinity_has_a_first_element_and_one_outside_the_image_has_none() {
    let attrs = [("kernel_shape", ints(&[2])), ("strides", ints(&[2]))];
    let row = [3.0, 1.0, f64::NEG_INFINITY, f64::NEG_INFINITY];
    let Some(max) = of_row("MaxPool", &attrs, &row) else { return };
    assert_eq!(max, [1.0, 0.0, 1.0, 0.0]);
    let around = [("kernel_shape", ints(&[2])), ("dilations", ints(&[2])), ("pads", ints(&[1, 1]))];
    assert_eq!(of_row("MaxPool", &around, &[5.0]).unwrap(), [0.0]);
}

#[test]
fn a_window_left_out_behind_the_image_has_no_part_in_the_gradient() {
    let Some(runtime) = runtime() else { return };
    // Rounded up there are three windows of four elements, the last of which begins behind them: there are two. ONNX's
    // own shape inference says three before operator set 22. Along the other axis one is rounded up to, and is there.
    // A dilation that the kernel of one element makes nothing of lets the gradient compare sizes.
    let attrs = [("kernel_shape", ints(&[1, 2])), ("strides", ints(&[2, 2])), ("ceil_mode", Attr::Int(1))];
    let dilated = ("dilations", ints(&[5, 1]));
    let image = vec![-0.4, 0.3, 0.1, -0.2, 0.6, -0.7, 0.5, 0.8, -0.1, 0.2, -0.6, 0.9];
    let image = Array { shape: vec![1, 1, 4, 3], values: image };
    let none = [0.0; 3];
    for (op, extra, row) in
        [("MaxPool", Some(dilated), [0.0, 1.0, 1.0]), ("AveragePool", None, [0.5, 0.5, 1.0])]
    {
        let attrs: Vec<_> = attrs.iter().cloned().chain(extra).collect();
        let case = case(op, vec![Arg::Float(image.clone())], &attrs);
        for sizes in [Sizes::Known, Sizes::Own, Sizes::Shared] {
            let (graph, floats, fed) = case.graph(sizes, DType::F32);
            let mut derived = Derived::new(runtime, &graph, &floats, true).expect("a derivable graph");
            let (gradients, _) = derived.gradients(&fed, &mut || 1.0).expect("it runs");
            assert_eq!(gradients, [[row, none, row, none].concat()], "{op} {sizes:?}");
        }
    }
}

/// Images `[batch, 2, height, width]` through strided, depthwise and transposed convolutions and both poolings.
fn network() -> (Graph, Vec<(ValueId, Vec<usize>)>) {
    let mut g = Graph::new("network", 20);
    let image = ["batch", "channels", "height", "width"].map(Dim::from);
    let image = [image[0].clone(), Dim::from(2), image[2].clone(), image[3].clone()];
    let x = g.add_input("x", DType::F32, image.to_vec());
    let kernels = [("a", [4, 2, 3, 3]), ("b", [4, 1, 3, 3]), ("c", [4, 2, 2, 3]), ("d", [3, 2, 1, 1])];
    let kernels = kernels.map(|(n, shape)| {
        (g.add_input(n, DType::F32, shape.iter().map(|d| Dim::from(*d)).collect()), shape.to_vec())
    });
    let mut b = Builder::new(&mut g, "");
    let two = ("strides", ints(&[2, 2]));
    let same = ("auto_pad", Attr::from("SAME_UPPER"));
    let y = b.op_with("Conv", &[x, kernels[0].0], &[two.clone(), same]);
    let y = b.op_with("Conv", &[y, kernels[1].0], &[("group", Attr::Int(4)), ("pads", ints(&[1, 1, 1, 1]))]);
    let window = [("kernel_shape", ints(&[3, 3])), ("pads", ints(&[1, 1, 1, 1]))];
    let y = b.op_with("AveragePool", &[y], &window);
    let y = b.op_with("ConvTranspose", &[y, kernels[2].0], std::slice::from_ref(&two));
    let y = b.op("Tanh", &[y]);
    let y = b.op_with("Conv", &[y, kernels[3].0], &[two]);
    let whole = b.op("GlobalAveragePool", &[y]);
    g.outputs = vec![y, whole];
    (g, kernels.to_vec())
}

#[test]
fn one_gradient_graph_of_a_network_serves_every_batch_and_image_size() {
    let Some(runtime) = runtime() else { return };
    let (g, kernels) = network();
    let wrt = g.inputs.clone();
    let mut derived = Derived::new(runtime, &g, &wrt, true).unwrap();
    for (batch, height, width) in [(1, 1, 1), (2, 5, 4), (1, 4, 7), (3, 2, 3)] {
        let seed = [batch as u16, height as u16];
        let mut draw = Draw::new(&seed);
        let mut fed = vec![("x".to_string(), draw.reals(&[batch, 2, height, width], RANGE, &[]))];
        fed.extend(kernels.iter().map(|(v, s)| (g.name_of(*v).to_string(), draw.reals(s, RANGE, &[]))));
        let fed: Vec<_> = fed.into_iter().map(|(n, a)| (n, tensor(&a, DType::F32))).collect();
        if let Err(e) = derived.check(&fed, Approximate, &mut || draw.real(-1.0, 1.0)) {
            panic!("{e} at {batch} images of {height} × {width}");
        }
    }
}
