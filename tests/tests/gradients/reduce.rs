//! Cases of reductions and running sums.

use graft_graph::grad::grad;
use graft_graph::{Attr, Builder, DType, Dim, Graph, Tensor};
use graft_tests::differences::Tolerance::{Close, Exact};
use graft_tests::differences::{Arg, Case, Derived, Sizes, tensor};
use graft_tests::{Array, Draw, runtime};

use crate::{Row, case};

const ANY: (f64, f64) = (-2.0, 2.0);
const POSITIVE: (f64, f64) = (0.5, 2.5);

pub const CASES: &[Row] = &[
    ("ReduceSum", Exact, |op, d| reduction(op, d, ANY)),
    ("ReduceMean", Exact, |op, d| reduction(op, d, ANY)),
    ("ReduceMax", Exact, extremum),
    ("ReduceMin", Exact, extremum),
    ("ReduceProd", Close, product),
    ("ReduceL1", Exact, magnitude),
    ("ReduceL2", Close, magnitude),
    ("ReduceSumSquare", Close, |op, d| reduction(op, d, ANY)),
    ("ReduceLogSum", Close, |op, d| reduction(op, d, POSITIVE)),
    ("ReduceLogSumExp", Close, |op, d| reduction(op, d, ANY)),
    ("CumSum", Exact, cum_sum),
];

/// Some axes, all by leaving them out, or none by an empty list; with the axes kept or not.
fn reduction(op: &'static str, d: &mut Draw<'_>, range: (f64, f64)) -> Case {
    let shape = d.shape(0..=3);
    let mut args = vec![Arg::Float(d.reals(&shape, range, &[]))];
    if d.below(4) != 3 {
        let axes = d.axes(shape.len());
        let written: Vec<i64> = axes.iter().map(|a| d.written(*a, shape.len())).collect();
        args.push(Arg::Constant(Tensor::vector(&written)));
    }
    let mut c = case(op, args, &[]);
    if let Some(keep) = d.pick(&[None, Some(0), Some(1)]) {
        c.attrs.insert("keepdims".into(), Attr::Int(keep));
    }
    if d.flag() {
        c.attrs.insert("noop_with_empty_axes".into(), Attr::Int(1));
    }
    c
}

/// Elements of either sign, none of them near zero.
fn magnitude(op: &'static str, d: &mut Draw<'_>) -> Case {
    let mut c = reduction(op, d, POSITIVE);
    if let Some(Arg::Float(a)) = c.args.first_mut() {
        a.values.iter_mut().filter(|v| **v > 1.5).for_each(|v| *v = 1.0 - *v);
    }
    c
}

/// Elements of which no two are near each other.
fn extremum(op: &'static str, d: &mut Draw<'_>) -> Case {
    let mut c = reduction(op, d, ANY);
    if let Some(Arg::Float(a)) = c.args.first_mut() {
        let mut order: Vec<usize> = (0..a.values.len()).collect();
        order.sort_by(|i, k| a.values[*i].total_cmp(&a.values[*k]));
        order.iter().enumerate().for_each(|(place, i)| a.values[*i] = 0.25 * place as f64 - 1.0);
    }
    c
}

/// Zeros among the factors: none, one, several.
fn product(op: &'static str, d: &mut Draw<'_>) -> Case {
    let mut c = reduction(op, d, POSITIVE);
    let zeros = d.below(3);
    if let (Some(Arg::Float(a)), true) = (c.args.first_mut(), zeros > 0) {
        let every = if zeros == 1 { 4 } else { 2 };
        a.values.iter_mut().step_by(every).for_each(|v| *v = 0.0);
    }
    c
}

fn cum_sum(op: &'static str, d: &mut Draw<'_>) -> Case {
    let shape = d.shape(1..=3);
    let (_, axis) = d.axis(shape.len());
    let axis = match d.flag() {
        true => Tensor::scalar(axis as i32),
        false => Tensor::scalar(axis),
    };
    let mut c = case(op, vec![Arg::Float(d.reals(&shape, ANY, &[])), Arg::Constant(axis)], &[]);
    for name in ["exclusive", "reverse"] {
        if let Some(on) = d.pick(&[None, Some(1), Some(0)]) {
            c.attrs.insert(name.into(), Attr::Int(on));
        }
    }
    c
}

/// The gradient at `x` of a reduction over all, for a cotangent of one.
fn at(op: &'static str, x: &[f64]) -> Option<Vec<f64>> {
    let runtime = runtime()?;
    let x = Array { shape: vec![x.len()], values: x.to_vec() };
    let (graph, floats, fed) = case(op, vec![Arg::Float(x)], &[]).graph(Sizes::Known, DType::F64);
    let mut derived = Derived::new(runtime, &graph, &floats, true).expect("a derivable graph");
    derived.gradients(&fed, &mut || 1.0).expect("it runs").0.pop()
}

#[test]
fn ties_and_zeros_of_reductions_are_decided_as_pytorch_does() {
    let Some(max) = at("ReduceMax", &[1.0, 1.0, 0.0]) else { return };
    assert_eq!(max, [0.5, 0.5, 0.0]);
    assert_eq!(at("ReduceMin", &[1.0, 0.0, 0.0, 0.0, 0.0]).unwrap(), [0.0, 0.25, 0.25, 0.25, 0.25]);
    assert_eq!(at("ReduceProd", &[0.0, 2.0, 3.0]).unwrap(), [6.0, 0.0, 0.0]);
    assert_eq!(at("ReduceProd", &[0.0, 0.0, 3.0]).unwrap(), [0.0; 3]);
    assert_eq!(at("ReduceL2", &[0.0, 0.0]).unwrap(), [0.0, 0.0]);
    assert_eq!(at("ReduceL1", &[0.0, -1.0]).unwrap(), [0.0, -1.0]);
}

/// A gradient of half-width floats is of their type, and what it sums it sums in float32.
#[test]
fn half_width_gradients_are_summed_in_float32() {
    for half in [DType::F16, DType::BF16] {
        let mut g = Graph::new("half", 20);
        let (rows, width) = (Dim::from("rows"), Dim::from(8));
        let x = g.add_input("x", half, vec![rows.clone(), width.clone()]);
        let bias = g.add_input("bias", half, vec![width.clone()]);
        let any = g.add_input("any", half, vec![Dim::from("maybe"), width.clone()]);
        let scale = g.add_input("scale", half, vec![width]);
        let mut b = Builder::new(&mut g, "");
        let y = b.op("Add", &[x, bias]);
        let y = b.op("Mul", &[y, any]);
        let y = b.op("LayerNormalization", &[y, scale, bias]);
        let y = b.op("Softmax", &[y]);
        let rows = b.ints(&[0, 1, 1]);
        let y = b.op_with("Gather", &[y, rows], &[("axis", Attr::Int(1))]);
        let index = b.constant(Tensor::new([1, 2], &[0i64, 0]).expect("two of them"));
        let y = b.op_with("GatherElements", &[y, index], &[("axis", Attr::Int(1))]);
        let y = b.op("ReduceMean", &[y]);
        let seed = b.float(half, 1.0);
        let wrt = [x, bias, any, scale];
        let forward = g.nodes.len();
        let grads = grad(&mut g, &[(y, seed)], &wrt, &[]).unwrap();
        for (v, d) in wrt.iter().zip(&grads) {
            assert_eq!(g.dtype(*d), Some(half), "{}", g.name_of(*v));
        }
        let sums = ["ReduceSum", "ReduceMean", "ScatterElements", "LayerNormGrad", "SoftmaxGrad"];
        let sums = g.nodes[forward..].iter().filter(|n| sums.contains(&n.op.as_str()));
        let types: Vec<_> = sums.map(|n| (n.op.as_str(), g.dtype(n.input(0).unwrap()))).collect();
        assert!(types.len() > 6, "{types:?}");
        assert!(types.iter().all(|t| t.1 == Some(DType::F32)), "{types:?}");
    }
}

/// The mean of more elements than a half-width float can count, of a bias that is added to each row.
#[test]
fn gradients_of_half_width_graphs_are_near_those_of_float32() {
    let Some(runtime) = runtime() else { return };
    let rows = 35_000;
    let gradients = |half: bool, declared: Dim| {
        let mut g = Graph::new("half", 20);
        let x = g.add_input("x", DType::F32, vec![declared, 2.into()]);
        let bias = g.add_input("bias", DType::F32, vec![2.into()]);
        let at = g.add_constant("at", Tensor::vector(&vec![1i64; 3000]));
        let mut b = Builder::new(&mut g, "");
        let dtype = if half { DType::F16 } else { DType::F32 };
        let [mut y, z] = [x, bias].map(|v| b.cast(v, dtype));
        y = b.op("Add", &[y, z]);
        y = b.op("Tanh", &[y]);
        y = b.op_with("ReduceMean", &[y], &[("keepdims", Attr::Int(0))]);
        // The same element three thousand times.
        let taken = b.op("Gather", &[z, at]);
        let taken = b.op_with("ReduceSum", &[taken], &[("keepdims", Attr::Int(0))]);
        let y = b.op("Add", &[y, taken]);
        let y = b.cast(y, DType::F32);
        g.outputs = vec![y];
        let mut d = Draw::new(&[9]);
        let mut fed = |name: &str, shape: &[usize]| {
            (name.to_string(), tensor(&d.reals(shape, (-1.0, 1.0), &[]), DType::F32))
        };
        let fed = [fed("x", &[rows, 2]), fed("bias", &[2])];
        let mut derived = Derived::new(runtime, &g, &[x, bias], true).expect("a derivable graph");
        derived.gradients(&fed, &mut || 1.0).expect("it runs").0
    };
    for declared in [Dim::from(rows), Dim::from("rows")] {
        let (want, got) = (gradients(false, declared.clone()), gradients(true, declared));
        for (want, got) in want.iter().zip(&got) {
            let largest = want.iter().fold(0f64, |m, w| m.max(w.abs()));
            for (w, g) in want.iter().zip(got) {
                assert!((w - g).abs() <= 0.02 * largest, "{g} in half width, {w} in float32");
            }
        }
    }
}
