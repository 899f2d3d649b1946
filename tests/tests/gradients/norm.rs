//! Cases of normalisations.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use graft_graph::grad::grad;
use graft_graph::{Attr, Builder, DType, Graph, Tensor, ValueId, shape};
use graft_tests::differences::Tolerance::{self, Approximate, Close};
use graft_tests::differences::{Arg, Case, Derived, Sizes, tensor};
use graft_tests::{Array, Draw, runtime};

use crate::{Row, case};

const RANGE: (f64, f64) = (-2.0, 2.0);
const POSITIVE: (f64, f64) = (0.5, 2.5);

pub const CASES: &[Row] = &[
    ("LayerNormalization", Close, layer_norm),
    ("RMSNormalization", Close, rms_norm),
    ("graft::RMSNorm", Close, raised_rms_norm),
    ("InstanceNormalization", Approximate, instance_norm),
    ("GroupNormalization", Close, group_norm),
    ("BatchNormalization", Close, batch_norm),
    ("LpNormalization", Close, lp_norm),
];

fn raised_rms_norm(op: &'static str, d: &mut Draw<'_>) -> Case {
    let mut shape = d.shape(0..=2);
    let n = d.size(2..=5);
    shape.push(n);
    let args = vec![float(d, &shape), float(d, &[n])];
    case(op, args, &[("epsilon", Attr::Float(0.1))])
}

fn float(d: &mut Draw<'_>, shape: &[usize]) -> Arg {
    Arg::Float(d.reals(shape, RANGE, &[]))
}

/// Numbers that vary along the last axis, so that no variance is near zero.
fn varied(d: &mut Draw<'_>, shape: &[usize]) -> Arg {
    let mut a = d.reals(shape, (-0.5, 0.5), &[]);
    a.values.iter_mut().enumerate().for_each(|(i, v)| *v += [-1.0, 1.5, 0.25][i % 3]);
    Arg::Float(a)
}

fn epsilon(c: &mut Case, d: &mut Draw<'_>) {
    if d.flag() {
        c.attrs.insert("epsilon".into(), Attr::Float(0.1));
    }
}

/// Over the last axis or the last axes, of which the last has three elements or more: of two the normalised ones
/// hardly depend on the input.
fn over_last(op: &'static str, d: &mut Draw<'_>, most: usize) -> Case {
    let mut shape = d.shape(0..=2);
    let n = d.size(3..=5);
    shape.push(n);
    let axis = shape.len() - 1 - d.below(shape.len());
    let (scale, shift) = (d.narrowed(&shape[axis..]), d.flag());
    // A scale of fewer axes or of ones broadcasts to the normalised ones.
    let scale = if scale.is_empty() { vec![n] } else { scale };
    let mut args = vec![varied(d, &shape), float(d, &scale)];
    if shift && most > 2 {
        args.push(float(d, &shape[axis..]));
    }
    let mut c = case(op, args, &[]);
    if axis + 1 != shape.len() || d.flag() {
        c.attrs.insert("axis".into(), Attr::Int(d.written(axis, shape.len())));
    }
    epsilon(&mut c, d);
    c
}

fn layer_norm(op: &'static str, d: &mut Draw<'_>) -> Case {
    let mut c = over_last(op, d, 3);
    same_as_axes(&mut c);
    c
}

fn rms_norm(op: &'static str, d: &mut Draw<'_>) -> Case {
    let mut c = over_last(op, d, 2);
    same_as_axes(&mut c);
    c
}

/// The provider wants a scale of the normalised axes' own shape.
fn same_as_axes(c: &mut Case) {
    let axis = match c.attrs.get("axis") {
        Some(Attr::Int(a)) => *a,
        _ => -1,
    };
    let [Arg::Float(x), Arg::Float(scale), ..] = c.args.as_mut_slice() else { return };
    let rank = x.shape.len() as i64;
    let from = if axis < 0 { axis + rank } else { axis } as usize;
    let count: usize = x.shape[from..].iter().product();
    let values = scale.values.clone();
    scale.values = values.into_iter().cycle().take(count).collect();
    scale.shape = x.shape[from..].to_vec();
}

/// `[N, C, …]` with at least one axis behind the channels.
fn channelled(d: &mut Draw<'_>, channels: usize) -> Vec<usize> {
    let mut shape = vec![d.size(1..=2), channels];
    shape.extend((0..d.below(2)).map(|_| 2));
    shape.push(3);
    shape
}

fn instance_norm(op: &'static str, d: &mut Draw<'_>) -> Case {
    let channels = d.size(1..=3);
    let shape = channelled(d, channels);
    let mut c = case(op, vec![varied(d, &shape), float(d, &[channels]), float(d, &[channels])], &[]);
    epsilon(&mut c, d);
    c
}

fn group_norm(op: &'static str, d: &mut Draw<'_>) -> Case {
    let (groups, each) = (d.size(1..=3), d.size(1..=2));
    let shape = channelled(d, groups * each);
    let args = vec![varied(d, &shape), float(d, &[groups]), float(d, &[groups])];
    let mut c = case(op, args, &[("num_groups", Attr::Int(groups as i64))]);
    epsilon(&mut c, d);
    c
}

/// Frozen statistics, which are constants or have gradients themselves.
fn batch_norm(op: &'static str, d: &mut Draw<'_>) -> Case {
    let channels = d.size(1..=3);
    let mut shape = vec![d.size(1..=3), channels];
    shape.extend((0..d.below(3)).map(|_| 2));
    let mut args = vec![float(d, &shape), float(d, &[channels]), float(d, &[channels])];
    let (mean, var) = (d.reals(&[channels], RANGE, &[]), d.reals(&[channels], POSITIVE, &[]));
    args.extend(match d.flag() {
        true => [Arg::Float(mean), Arg::Float(var)],
        false => [Arg::Fixed(mean), Arg::Fixed(var)],
    });
    let mut c = case(op, args, &[]);
    epsilon(&mut c, d);
    c
}

fn lp_norm(op: &'static str, d: &mut Draw<'_>) -> Case {
    let shape = d.shape(1..=3);
    let mut c = case(op, vec![Arg::Float(d.reals(&shape, POSITIVE, &[]))], &[]);
    if let Some(p) = d.pick(&[None, Some(1), Some(2)]) {
        c.attrs.insert("p".into(), Attr::Int(p));
    }
    if d.flag() {
        let (_, axis) = d.axis(shape.len());
        c.attrs.insert("axis".into(), Attr::Int(axis));
    }
    c
}

fn check(graph: &Graph, wrt: &[ValueId], fed: &[(String, Tensor)], tolerance: Tolerance) {
    let Some(runtime) = runtime() else { return };
    let mut draw = Draw::new(&[5]);
    let mut derived = Derived::new(runtime, graph, wrt, true).expect("a derivable graph");
    derived.check(fed, tolerance, &mut || draw.real(-1.0, 1.0)).unwrap();
}

/// The mean and the inverse deviation may be asked for as outputs; they have gradients, too.
#[test]
fn gradients_flow_through_the_statistics_of_a_layer_norm() {
    for (axis, outputs) in [(-1, 3), (1, 3), (-1, 2), (-2, 2)] {
        let choices = [3, outputs];
        let mut d = Draw::new(&choices);
        let shape = [2, 2, 3];
        let of = if axis == -1 { &shape[2..] } else { &shape[1..] };
        let args = vec![varied(&mut d, &shape), float(&mut d, of), float(&mut d, of)];
        let mut c = case("LayerNormalization", args, &[("axis", Attr::Int(axis))]);
        c.outputs = outputs.into();
        for sizes in [Sizes::Known, Sizes::Own] {
            let (mut graph, floats, fed) = c.graph(sizes, DType::F32);
            check(&graph, &floats, &fed, Approximate);
            // The statistics alone.
            graph.outputs.remove(0);
            check(&graph, &floats[..1], &fed, Approximate);
        }
    }
}

/// From operator set 21 on scale and shift are of one number a channel, not a group; it normalises in f32.
#[test]
fn group_norm_of_newer_operator_sets_scales_channels() {
    let mut d = Draw::new(&[4]);
    let args = vec![varied(&mut d, &[2, 4, 2, 3]), float(&mut d, &[4]), float(&mut d, &[4])];
    let c = case("GroupNormalization", args, &[("num_groups", Attr::Int(2))]);
    for sizes in [Sizes::Known, Sizes::Own] {
        let (mut graph, floats, fed) = c.graph(sizes, DType::F32);
        graph.opsets.insert(String::new(), 21);
        check(&graph, &floats, &fed, Approximate);
    }
}

/// A model of a newer operator set keeps it; what the gradients add runs in it, functions of our own domain too.
#[test]
fn gradients_of_newer_operator_sets_run() {
    for opset in [21, 23, 24] {
        let mut g = Graph::new("newer", opset);
        let wrt: Vec<ValueId> = [("x", vec![2, 3]), ("scale", vec![3]), ("weight", vec![3, 3])]
            .into_iter()
            .map(|(n, s)| g.add_input(n, DType::F64, s.into_iter().map(|n: usize| n.into()).collect()))
            .collect();
        let mut b = Builder::new(&mut g, "");
        let y = match opset {
            21 => wrt[0],
            _ => b.op("RMSNormalization", &[wrt[0], wrt[1]]),
        };
        let y = b.op("MatMul", &[y, wrt[2]]);
        let y = b.op("LayerNormalization", &[y, wrt[1]]);
        let y = b.op("Softmax", &[y]);
        g.outputs = vec![y];
        shape::infer(&mut g);
        let mut d = Draw::new(&[6]);
        let fed: Vec<(String, Tensor)> = [("x", vec![2, 3]), ("scale", vec![3]), ("weight", vec![3, 3])]
            .into_iter()
            .map(|(n, s)| (n.to_string(), tensor(&d.reals(&s, RANGE, &[]), DType::F64)))
            .collect();
        check(&g, &wrt, &fed, Close);
    }
}

#[test]
fn a_vector_of_norm_zero_has_no_slope() {
    let Some(runtime) = runtime() else { return };
    for p in [1, 2] {
        let x = Arg::Float(Array { shape: vec![2, 2], values: vec![0.0, 0.0, 3.0, 4.0] });
        let c = case("LpNormalization", vec![x], &[("p", Attr::Int(p))]);
        let (graph, floats, fed) = c.graph(Sizes::Known, DType::F64);
        let mut derived = Derived::new(runtime, &graph, &floats, true).unwrap();
        let grads = derived.gradients(&fed, &mut || 1.0).unwrap().0;
        assert_eq!(grads[0][..2], [0.0, 0.0]);
        assert!(grads[0][2..].iter().all(|g| g.is_finite()), "{grads:?}");
    }
}

#[test]
fn batch_norm_in_training_mode_is_refused_with_a_reason() {
    let mut d = Draw::new(&[1]);
    let vector = |d: &mut Draw<'_>| Arg::Fixed(d.reals(&[2], POSITIVE, &[]));
    let mut args = vec![float(&mut d, &[2, 2])];
    args.extend((0..4).map(|_| vector(&mut d)));
    let c = case("BatchNormalization", args, &[("training_mode", Attr::Int(1))]);
    let (mut graph, floats, _) = c.graph(Sizes::Known, DType::F32);
    let seed = graph.add_input("seed", DType::F32, vec![2.into(), 2.into()]);
    let y = graph.outputs[0];
    let error = grad(&mut graph, &[(y, seed)], &floats, &[]).unwrap_err().to_string();
    assert!(error.contains("training mode") && error.contains("evaluation mode"), "{error}");
}
