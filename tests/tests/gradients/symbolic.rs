//! Gradient graphs made once, with symbolic sizes, and run at several sizes: those that broadcast only at run time
//! among them.

use graft_graph::{Attr, Builder, DType, Dim, Graph, Tensor, ValueId};
use graft_tests::differences::{Derived, Tolerance, tensor};
use graft_tests::{Draw, runtime};

const WIDTH: usize = 4;
const HEADS: usize = 2;

fn input(g: &mut Graph, name: &str, dims: &[Dim]) -> ValueId {
    g.add_input(name, DType::F64, dims.to_vec())
}

fn numbers(seed: u16, name: &str, shape: &[usize]) -> (String, Tensor) {
    let array = Draw::new(&[seed, shape.len() as u16]).reals(shape, (-1.0, 1.0), &[]);
    (name.into(), tensor(&array, DType::F64))
}

fn check(derived: &mut Derived, fed: &[(String, Tensor)]) {
    let mut draw = Draw::new(&[7]);
    if let Err(e) = derived.check(fed, Tolerance::Close, &mut || draw.real(-1.0, 1.0)) {
        let shapes: Vec<_> = fed.iter().map(|(n, t)| format!("{n} {:?}", t.shape())).collect();
        panic!("{e} at {shapes:?}");
    }
}

/// Self-attention with a mask over x [batch, seq, 4] as exporters write it: heads by Reshape and Transpose with sizes
/// that are computed from the input's own.
fn attention() -> (Graph, Vec<ValueId>) {
    let mut g = Graph::new("attention", 20);
    let (batch, seq, width) = (Dim::from("batch"), Dim::from("seq"), Dim::from(WIDTH));
    let x = input(&mut g, "x", &[batch.clone(), seq.clone(), width.clone()]);
    let mask = input(&mut g, "mask", &[batch, seq]);
    let w: Vec<ValueId> =
        ["q", "k", "v", "o"].map(|n| input(&mut g, n, &[width.clone(), width.clone()])).to_vec();
    let scale = input(&mut g, "scale", std::slice::from_ref(&width));
    let bias = input(&mut g, "bias", std::slice::from_ref(&width));
    let mut b = Builder::new(&mut g, "");
    let sizes = b.op("Shape", &[x]);
    let (zero, one, rest) = (b.ints(&[0]), b.ints(&[1]), b.ints(&[HEADS as i64, (WIDTH / HEADS) as i64]));
    let (rows, tokens) = (b.op("Gather", &[sizes, zero]), b.op("Gather", &[sizes, one]));
    let split = b.op_with("Concat", &[rows, tokens, rest], &[("axis", Attr::Int(0))]);
    let perm = |b: &mut Builder<'_>, v: ValueId, p: [i64; 4]| {
        b.op_with("Transpose", &[v], &[("perm", Attr::Ints(p.to_vec()))])
    };
    let mut heads = Vec::new();
    for (i, w) in w[..3].iter().enumerate() {
        let y = b.op("MatMul", &[x, *w]);
        let y = b.op("Reshape", &[y, split]);
        heads.push(perm(&mut b, y, if i == 1 { [0, 2, 3, 1] } else { [0, 2, 1, 3] }));
    }
    let scores = b.op("MatMul", &[heads[0], heads[1]]);
    let axes = b.ints(&[1, 2]);
    let mask = b.op("Unsqueeze", &[mask, axes]);
    let scores = b.op("Add", &[scores, mask]);
    let weights = b.op("Softmax", &[scores]);
    let mixed = b.op("MatMul", &[weights, heads[2]]);
    let mixed = perm(&mut b, mixed, [0, 2, 1, 3]);
    let like = b.ints(&[0, 0, WIDTH as i64]);
    let mixed = b.op("Reshape", &[mixed, like]);
    let out = b.op("MatMul", &[mixed, w[3]]);
    let sum = b.op("Add", &[out, x]);
    let y = b.op_with("LayerNormalization", &[sum, scale, bias], &[("epsilon", Attr::Float(0.1))]);
    // The first token of each row, as a pooler takes it, and the last one, as a decoder's head does.
    let zero = b.scalar(0i64);
    let first = b.op_with("Gather", &[y, zero], &[("axis", Attr::Int(1))]);
    let (from, to, axis) = (b.ints(&[-1]), b.ints(&[i64::MAX]), b.ints(&[1]));
    let last = b.op("Slice", &[y, from, to, axis]);
    g.outputs = vec![y, first, last];
    let wrt = g.inputs.clone();
    (g, wrt)
}

#[test]
fn one_gradient_graph_of_attention_serves_every_batch_and_length() {
    let Some(runtime) = runtime() else { return };
    let (g, wrt) = attention();
    let mut derived = Derived::new(runtime, &g, &wrt, true).unwrap();
    for (batch, seq) in [(1, 1), (1, 3), (2, 1), (3, 4), (2, 2)] {
        let mut fed = vec![numbers(1, "x", &[batch, seq, WIDTH]), numbers(2, "mask", &[batch, seq])];
        fed.extend(["q", "k", "v", "o"].iter().zip(3..).map(|(n, i)| numbers(i, n, &[WIDTH, WIDTH])));
        fed.extend([numbers(8, "scale", &[WIDTH]), numbers(9, "bias", &[WIDTH])]);
        check(&mut derived, &fed);
    }
}

#[test]
fn axes_that_turn_out_to_be_one_are_summed_over_at_run_time() {
    let Some(runtime) = runtime() else { return };
    let mut g = Graph::new("broadcasting", 20);
    let dims = |names: &[&str]| names.iter().map(|n| Dim::from(*n)).collect::<Vec<_>>();
    let x = input(&mut g, "x", &dims(&["batch", "seq", "width"]));
    let a = input(&mut g, "a", &dims(&["rows", "tokens", "width"]));
    let b = input(&mut g, "b", &dims(&["tokens", "columns"]));
    let c = input(&mut g, "c", &dims(&["rows", "width", "width"]));
    let mut m = Builder::new(&mut g, "");
    let y = m.op("Mul", &[x, a]);
    let y = m.op("Sub", &[y, b]);
    let y = m.op("MatMul", &[y, c]);
    let y = m.op("Tanh", &[y]);
    let shape = m.op("Shape", &[x]);
    let wide = m.op("Expand", &[b, shape]);
    let y = m.op("Mul", &[y, wide]);
    g.outputs = vec![y];
    let mut derived = Derived::new(runtime, &g, &[x, a, b, c], true).unwrap();
    // Each of rows, tokens and columns is 1 or what it meets.
    for (rows, tokens, columns) in [(2, 3, 4), (1, 3, 4), (2, 1, 4), (2, 3, 1), (1, 1, 1)] {
        let fed = [
            numbers(1, "x", &[2, 3, 4]),
            numbers(2, "a", &[rows, tokens, 4]),
            numbers(3, "b", &[tokens, columns]),
            numbers(4, "c", &[rows, 4, 4]),
        ];
        check(&mut derived, &fed);
    }
}
