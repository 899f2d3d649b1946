//! Each pattern with a graph that contains it, and near misses.

use super::*;
use crate::builder::Builder;
use crate::dim::Dim;
use crate::ir::Attr;
use crate::tensor::{DType, Tensor};

fn input() -> (Graph, ValueId) {
    let mut g = Graph::new("g", 20);
    let x = g.add_input("x", DType::F32, vec![Dim::from("n"), Dim::from(4)]);
    (g, x)
}

fn ops(g: &Graph) -> Vec<&str> {
    g.nodes.iter().map(|n| n.op.as_str()).collect()
}

fn gelu_like(half: f32, root: f32) -> Graph {
    let mut g = Graph::new("g", 20);
    let x = g.add_input("x", DType::F32, vec![Dim::from("n"), Dim::from(4)]);
    let mut b = Builder::new(&mut g, "");
    let (r, one, h) = (b.scalar(root), b.scalar(1f32), b.scalar(half));
    let d = b.op("Div", &[x, r]);
    let e = b.op("Erf", &[d]);
    let up = b.op("Add", &[e, one]);
    let p = b.op("Mul", &[x, up]);
    let y = b.op("Mul", &[p, h]);
    g.outputs = vec![y];
    g
}

#[test]
fn the_chain_that_the_old_exporter_writes_becomes_one_gelu() {
    let mut g = gelu_like(0.5, std::f32::consts::SQRT_2);
    assert_eq!(raise(&mut g), vec![("exact Gelu", 1)]);
    assert_eq!(g.nodes.iter().map(|n| n.op.as_str()).collect::<Vec<_>>(), ["Gelu"]);
}

#[test]
fn near_misses_stay_what_they_are() {
    for (half, root) in [(0.4, std::f32::consts::SQRT_2), (0.5, 1.5)] {
        let mut g = gelu_like(half, root);
        assert_eq!(raise(&mut g), vec![]);
        assert_eq!(g.nodes.len(), 5);
    }
}

#[test]
fn a_decomposed_layer_norm_is_recognised() {
    let mut g = Graph::new("g", 20);
    let x = g.add_input("x", DType::F32, vec![Dim::from("n"), Dim::from(4)]);
    let mut b = Builder::new(&mut g, "");
    let (s, c) = (b.constant(Tensor::vector(&[1f32; 4])), b.constant(Tensor::vector(&[0f32; 4])));
    let (axes, two, eps) = (b.ints(&[-1]), b.scalar(2f32), b.scalar(1e-5f32));
    let mean = b.op("ReduceMean", &[x, axes]);
    let d = b.op("Sub", &[x, mean]);
    let sq = b.op("Pow", &[d, two]);
    let var = b.op("ReduceMean", &[sq, axes]);
    let v = b.op("Add", &[var, eps]);
    let sd = b.op("Sqrt", &[v]);
    let n = b.op("Div", &[d, sd]);
    let n = b.op("Mul", &[n, s]);
    let y = b.op("Add", &[n, c]);
    g.outputs = vec![y];
    assert_eq!(raise(&mut g), vec![("LayerNorm", 1)]);
    assert_eq!(g.nodes.len(), 1);
    assert_eq!(g.nodes[0].float("epsilon", 0.0), 1e-5);
}

/// The form of GPT-2, with the cube as a power or as products.
fn tanh_gelu_like(c: f32, power: bool) -> Graph {
    let (mut g, x) = input();
    let mut b = Builder::new(&mut g, "");
    let (half, one, three) = (b.scalar(0.5f32), b.scalar(1f32), b.scalar(3f32));
    let (c, root) = (b.scalar(c), b.scalar((2.0 / std::f32::consts::PI).sqrt()));
    let cube = if power {
        b.op("Pow", &[x, three])
    } else {
        let square = b.op("Mul", &[x, x]);
        b.op("Mul", &[square, x])
    };
    let cubic = b.op("Mul", &[cube, c]);
    let sum = b.op("Add", &[x, cubic]);
    let scaled = b.op("Mul", &[root, sum]);
    let t = b.op("Tanh", &[scaled]);
    let up = b.op("Add", &[t, one]);
    let h = b.op("Mul", &[x, half]);
    let y = b.op("Mul", &[h, up]);
    g.outputs = vec![y];
    g
}

#[test]
fn the_gelu_of_gpt2_becomes_one_operator() {
    for power in [true, false] {
        let mut g = tanh_gelu_like(0.044_715, power);
        assert_eq!(raise(&mut g), vec![("tanh Gelu", 1)]);
        assert_eq!((ops(&g), g.nodes[0].text("approximate")), (vec!["Gelu"], Some("tanh")));
        let mut other = tanh_gelu_like(0.05, power);
        assert_eq!(raise(&mut other), vec![]);
    }
}

/// The form of Llama: `scale · (x · 1/√(mean(x²) + ε))`.
fn rms_norm_like(exponent: f32, axis: i64, reciprocal: bool) -> Graph {
    let (mut g, x) = input();
    let mut b = Builder::new(&mut g, "");
    let (scale, p, eps) = (b.constant(Tensor::vector(&[1f32; 4])), b.scalar(exponent), b.scalar(1e-6f32));
    let (axes, one) = (b.ints(&[axis]), b.scalar(1f32));
    let square = b.op("Pow", &[x, p]);
    let mean = b.op("ReduceMean", &[square, axes]);
    let sum = b.op("Add", &[mean, eps]);
    let root = b.op("Sqrt", &[sum]);
    let inv = if reciprocal { b.op("Reciprocal", &[root]) } else { b.op("Div", &[one, root]) };
    let normal = b.op("Mul", &[x, inv]);
    let y = b.op("Mul", &[scale, normal]);
    g.outputs = vec![y];
    g
}

#[test]
fn a_decomposed_rms_norm_becomes_one_operator_that_carries_its_decomposition() {
    for reciprocal in [true, false] {
        let mut g = rms_norm_like(2.0, -1, reciprocal);
        assert_eq!(raise(&mut g), vec![("RMSNorm", 1)]);
        assert_eq!((ops(&g), g.functions.len()), (vec!["RMSNorm"], 1));
        assert_eq!(g.nodes[0].float("epsilon", 0.0), 1e-6);
    }
}

#[test]
fn other_powers_and_other_axes_are_no_rms_norm() {
    for (exponent, axis) in [(3.0, -1), (2.0, 0)] {
        let mut g = rms_norm_like(exponent, axis, true);
        assert_eq!(raise(&mut g), vec![]);
    }
}

#[test]
fn a_cast_to_the_type_that_is_there_is_dropped() {
    let (mut g, x) = input();
    let mut b = Builder::new(&mut g, "");
    let to = |d: DType| [("to", Attr::Int(i64::from(d.onnx())))];
    let same = b.op_with("Cast", &[x], &to(DType::F32));
    let other = b.op_with("Cast", &[same], &to(DType::F64));
    g.outputs = vec![other];
    assert_eq!(raise(&mut g), vec![("idle Cast", 1)]);
    assert_eq!(ops(&g), ["Cast"]);
}

#[test]
fn no_pattern_reaches_across_a_value_that_something_is_asked_of() {
    let g = rms_norm_like(2.0, -1, true);
    for op in ["Pow", "ReduceMean", "Add", "Sqrt", "Reciprocal"] {
        let inner = g.nodes.iter().find(|n| n.is(op)).and_then(|n| n.output(0)).unwrap();
        let mut seen = g.clone();
        assert_eq!(raise_around(&mut seen, &[inner]), vec![], "{op}");
        assert_eq!(seen.nodes.len(), g.nodes.len());
    }
    // Its input and its result stay values of the operator.
    let ends: Vec<_> = g.inputs.iter().chain(&g.outputs).copied().collect();
    assert_eq!(raise_around(&mut g.clone(), &ends), vec![("RMSNorm", 1)]);
}
