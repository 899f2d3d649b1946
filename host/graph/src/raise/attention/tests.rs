//! Every form with a graph that contains it, and near misses.

use crate::builder::Builder;
use crate::dim::{Dim, show};
use crate::fused;
use crate::ir::{Attr, Graph, Node, ValueId};
use crate::raise::raise;
use crate::tensor::{DType, Tensor};

const HEADS: i64 = 2;
const WIDTH: i64 = 4;

/// Queries, keys and values `[b, 2, n, 4]` and a mask `[b, 1, 1, n]`.
struct Parts {
    q: ValueId,
    k: ValueId,
    v: ValueId,
    mask: ValueId,
}

fn graph(write: impl FnOnce(&mut Builder<'_>, &Parts) -> ValueId) -> Graph {
    let mut g = Graph::new("g", 20);
    let heads = || vec![Dim::from("b"), Dim::from(HEADS), Dim::from("n"), Dim::from(WIDTH)];
    let [q, k, v] = ["q", "k", "v"].map(|n| g.add_input(n, DType::F32, heads()));
    let shape = vec![Dim::from("b"), Dim::from(1), Dim::from(1), Dim::from("n")];
    let mask = g.add_input("mask", DType::F32, shape);
    let y = write(&mut Builder::new(&mut g, ""), &Parts { q, k, v, mask });
    g.outputs.insert(0, y);
    g
}

fn transpose(b: &mut Builder<'_>, x: ValueId, perm: &[i64]) -> ValueId {
    b.op_with("Transpose", &[x], &[("perm", perm.to_vec().into())])
}

fn softmax(b: &mut Builder<'_>, x: ValueId, axis: i64) -> ValueId {
    b.op_with("Softmax", &[x], &[("axis", Attr::Int(axis))])
}

/// `softmax(q·kᵀ/2 + mask)·v` with the last step of the scores left to `end`.
fn plain(b: &mut Builder<'_>, p: &Parts, end: impl FnOnce(&mut Builder<'_>, ValueId) -> ValueId) -> ValueId {
    let k = transpose(b, p.k, &[0, 1, 3, 2]);
    let scores = b.op("MatMul", &[p.q, k]);
    let scores = end(b, scores);
    let weights = softmax(b, scores, -1);
    b.op("MatMul", &[weights, p.v])
}

fn only(g: &Graph) -> &Node {
    let mut found = g.nodes.iter().filter(|n| fused::is_attention(n));
    let node = found.next().unwrap();
    assert!(found.next().is_none());
    assert!(g.nodes.iter().all(|n| !n.is("Softmax") && !n.is("MatMul")));
    node
}

fn raised(mut g: Graph) -> Graph {
    let counts = raise(&mut g);
    assert!(counts.contains(&("attention", 1)), "{counts:?}");
    g
}

fn is_left(mut g: Graph) {
    assert!(raise(&mut g).iter().all(|(name, _)| *name != "attention"));
    assert!(g.nodes.iter().any(|n| n.is("Softmax")) && g.functions.is_empty());
}

#[test]
fn the_factor_may_stand_before_the_product_behind_it_or_as_its_root_on_both_sides() {
    let behind = graph(|b, p| {
        plain(b, p, |b, s| {
            let half = b.scalar(0.5f32);
            let s = b.op("Mul", &[s, half]);
            b.op("Add", &[s, p.mask])
        })
    });
    let divided = graph(|b, p| {
        plain(b, p, |b, s| {
            let two = b.scalar(2f32);
            let s = b.op("Div", &[s, two]);
            b.op("Add", &[p.mask, s])
        })
    });
    let before = graph(|b, p| {
        let half = b.scalar(0.5f32);
        let q = b.op("Mul", &[p.q, half]);
        let p = Parts { q, ..*p };
        plain(b, &p, |b, s| b.op("Add", &[s, p.mask]))
    });
    let both = graph(|b, p| {
        // 1/√width from the shape, its root on both sides: so does the old exporter.
        let shape = b.op("Shape", &[p.q]);
        let (last, end, one) = (b.ints(&[-1]), b.ints(&[i64::MAX]), b.scalar(1f32));
        let width = b.op("Slice", &[shape, last, end]);
        let width = b.cast(width, DType::F32);
        let root = b.op("Sqrt", &[width]);
        let scale = b.op("Div", &[one, root]);
        let scale = b.op("Sqrt", &[scale]);
        let q = b.op("Mul", &[p.q, scale]);
        let k = transpose(b, p.k, &[0, 1, 3, 2]);
        let k = b.op("Mul", &[k, scale]);
        let scores = b.op("MatMul", &[q, k]);
        let scores = b.op("Add", &[scores, p.mask]);
        let weights = softmax(b, scores, 3);
        b.op("MatMul", &[weights, p.v])
    });
    for g in [behind, divided, before, both] {
        let g = raised(g);
        let n = only(&g);
        assert!((n.float("scale", 0.0) - 0.5).abs() < 1e-6);
        assert_eq!((n.input(0), n.input(3)), (g.find("q"), g.find("mask")));
        assert_eq!(show(g.shape(n.output(0).unwrap()).unwrap()), "[b, 2, n, 4]");
        assert_eq!(g.nodes.len(), 2, "the keys are transposed, nothing else is left");
    }
}

#[test]
fn summands_and_a_mask_of_infinities_become_one_bias() {
    let g = raised(graph(|b, p| {
        plain(b, p, |b, s| {
            let (low, zero) = (b.scalar(f32::NEG_INFINITY), b.scalar(0f32));
            let seen = b.op("Equal", &[p.mask, zero]);
            let s = b.op("Add", &[s, p.mask]);
            let s = b.op("Add", &[s, p.mask]);
            b.op("Where", &[seen, s, low])
        })
    }));
    let bias = only(&g).input(3).unwrap();
    assert_eq!(show(g.shape(bias).unwrap()), "[b, 1, 1, n]");
    assert_eq!(only(&g).float("scale", 0.0), 1.0);
}

#[test]
fn weights_that_are_no_numbers_are_guarded_against() {
    let g = raised(graph(|b, p| {
        let k = transpose(b, p.k, &[0, 1, 3, 2]);
        let scores = b.op("MatMul", &[p.q, k]);
        let weights = softmax(b, scores, -1);
        let (none, zero) = (b.op("IsNaN", &[weights]), b.scalar(0f32));
        let weights = b.op("Where", &[none, zero, weights]);
        b.op("MatMul", &[weights, p.v])
    }));
    assert_eq!(only(&g).op, fused::GUARDED_ATTENTION);
}

#[test]
fn weights_that_are_read_elsewhere_are_the_second_output() {
    let mut weights = None;
    let mut g = graph(|b, p| {
        let k = transpose(b, p.k, &[0, 1, 3, 2]);
        let scores = b.op("MatMul", &[p.q, k]);
        weights = Some(softmax(b, scores, -1));
        b.op("MatMul", &[weights.unwrap(), p.v])
    });
    g.outputs.extend(weights);
    let g = raised(g);
    assert_eq!(only(&g).output(1), weights);
    assert_eq!(show(g.shape(weights.unwrap()).unwrap()), "[b, 2, n, n]");
}

#[test]
fn heads_that_are_split_off_with_the_transpose_leave_keys_of_their_own() {
    let mut g = Graph::new("g", 20);
    let apart = || vec![Dim::from("b"), Dim::from("n"), Dim::from(HEADS), Dim::from(WIDTH)];
    let [q, k, v] = ["q", "k", "v"].map(|n| g.add_input(n, DType::F32, apart()));
    let b = &mut Builder::new(&mut g, "");
    let [q, v] = [q, v].map(|x| transpose(b, x, &[0, 2, 1, 3]));
    let k = transpose(b, k, &[0, 2, 3, 1]);
    let scores = b.op("MatMul", &[q, k]);
    let weights = softmax(b, scores, -1);
    let y = b.op("MatMul", &[weights, v]);
    g.outputs = vec![y];
    let g = raised(g);
    let made = g.producers();
    let last = &g.nodes[made[only(&g).input(1).unwrap().index()].unwrap()];
    assert_eq!(last.ints("perm"), Some(&[0, 1, 3, 2][..]));
    assert_eq!(show(g.shape(last.input(0).unwrap()).unwrap()), "[b, 2, n, 4]");
}

#[test]
fn keys_of_few_heads_are_repeated_without_the_length_in_a_shape() {
    let mut g = Graph::new("g", 20);
    let heads = |n: i64| vec![Dim::from("b"), Dim::from(n), Dim::from(7), Dim::from(WIDTH)];
    let q = g.add_input("q", DType::F32, heads(4));
    let [k, v] = ["k", "v"].map(|n| g.add_input(n, DType::F32, heads(2)));
    let b = &mut Builder::new(&mut g, "");
    let (axis, wide, whole) = (b.ints(&[2]), b.ints(&[1, 2, 2, 7, 4]), b.ints(&[-1, 4, 7, 4]));
    let [k, v] = [k, v].map(|x| {
        let x = b.op("Unsqueeze", &[x, axis]);
        let x = b.op("Expand", &[x, wide]);
        b.op("Reshape", &[x, whole])
    });
    let k = transpose(b, k, &[0, 1, 3, 2]);
    let scores = b.op("MatMul", &[q, k]);
    let weights = softmax(b, scores, -1);
    let y = b.op("MatMul", &[weights, v]);
    g.outputs = vec![y];
    let g = raised(g);
    let shapes: Vec<Vec<i64>> =
        g.constants().filter_map(|(_, t)| t.to_i64s()).filter(|s| s.len() > 1).collect();
    assert!(!shapes.is_empty() && shapes.iter().all(|s| !s.contains(&7)), "{shapes:?}");
    assert!(!fused::is_attention(&g.nodes[0]) && only(&g).inputs.len() == 4);
}

#[test]
fn matrices_of_heads_folded_into_the_batch_are_attention_too() {
    let mut g = Graph::new("g", 20);
    let shape = || vec![Dim::from("rows"), Dim::from("n"), Dim::from(WIDTH)];
    let [q, k, v] = ["q", "k", "v"].map(|n| g.add_input(n, DType::F32, shape()));
    let b = &mut Builder::new(&mut g, "");
    let k = transpose(b, k, &[0, 2, 1]);
    let scores = b.op("MatMul", &[q, k]);
    let weights = softmax(b, scores, -1);
    let y = b.op("MatMul", &[weights, v]);
    g.outputs = vec![y];
    only(&raised(g));
}

#[test]
fn keys_that_are_transposed_as_matrices_are_recognised() {
    // So does the new exporter, which takes the sizes from the keys' own shape.
    let g = raised(graph(|b, p| {
        let shape = b.op("Shape", &[p.k]);
        let part = |b: &mut Builder<'_>, from: i64, to: i64| {
            let (from, to) = (b.ints(&[from]), b.ints(&[to]));
            b.op("Slice", &[shape, from, to])
        };
        let (lead, keys, width) = (part(b, i64::MIN, -2), part(b, -2, -1), part(b, -1, i64::MAX));
        let (all, first) = (b.ints(&[-1]), [("axis", Attr::Int(0))]);
        let matrices = b.op_with("Concat", &[all, keys, width], &first);
        let heads = b.op_with("Concat", &[lead, width, keys], &first);
        let k = b.op("Reshape", &[p.k, matrices]);
        let k = transpose(b, k, &[0, 2, 1]);
        let k = b.op("Reshape", &[k, heads]);
        let half = b.scalar(0.5f32);
        let k = b.op("Mul", &[k, half]);
        let scores = b.op("MatMul", &[p.q, k]);
        let weights = softmax(b, scores, -1);
        b.op("MatMul", &[weights, p.v])
    }));
    assert_eq!((only(&g).float("scale", 0.0), g.nodes.len()), (0.5, 2));
}

#[test]
fn a_softmax_over_another_axis_is_no_attention() {
    is_left(graph(|b, p| {
        let k = transpose(b, p.k, &[0, 1, 3, 2]);
        let scores = b.op("MatMul", &[p.q, k]);
        let weights = softmax(b, scores, 2);
        b.op("MatMul", &[weights, p.v])
    }));
}

#[test]
fn keys_that_are_not_transposed_or_otherwise_are_no_attention() {
    for perm in [None, Some([0, 3, 1, 2]), Some([1, 0, 3, 2])] {
        let mut g = Graph::new("g", 20);
        let shape = || vec![Dim::from(4), Dim::from(4), Dim::from(4), Dim::from(4)];
        let [q, k, v] = ["q", "k", "v"].map(|n| g.add_input(n, DType::F32, shape()));
        let b = &mut Builder::new(&mut g, "");
        let k = perm.map_or(k, |p| transpose(b, k, &p));
        let scores = b.op("MatMul", &[q, k]);
        let weights = softmax(b, scores, -1);
        let y = b.op("MatMul", &[weights, v]);
        g.outputs = vec![y];
        is_left(g);
    }
}

#[test]
fn a_factor_that_is_no_number_is_no_scale() {
    let vector = |b: &mut Builder<'_>| b.constant(Tensor::vector(&[0.5f32, 0.5, 0.5, 0.25]));
    is_left(graph(|b, p| {
        // The keys of one product, each scaled on its own.
        plain(b, p, |b, s| b.op("Mul", &[s, p.mask]))
    }));
    // A factor for each column of the queries is theirs, not the attention's.
    let g = raised(graph(|b, p| {
        let each = vector(b);
        let q = b.op("Mul", &[p.q, each]);
        let p = Parts { q, ..*p };
        plain(b, &p, |_, s| s)
    }));
    assert_eq!(only(&g).float("scale", 0.0), 1.0);
}

#[test]
fn a_bias_that_is_scaled_along_and_a_finite_mask_are_left() {
    is_left(graph(|b, p| {
        plain(b, p, |b, s| {
            let half = b.scalar(0.5f32);
            let s = b.op("Add", &[s, p.mask]);
            b.op("Mul", &[s, half])
        })
    }));
    is_left(graph(|b, p| {
        plain(b, p, |b, s| {
            let (low, zero) = (b.scalar(f32::MIN), b.scalar(0f32));
            let seen = b.op("Equal", &[p.mask, zero]);
            b.op("Where", &[seen, s, low])
        })
    }));
}

#[test]
fn values_of_another_batch_are_no_attention() {
    let mut g = Graph::new("g", 20);
    let shape = |rows: i64| vec![Dim::from(rows), Dim::from(HEADS), Dim::from("n"), Dim::from(WIDTH)];
    let q = g.add_input("q", DType::F32, shape(1));
    let [k, v] = ["k", "v"].map(|n| g.add_input(n, DType::F32, shape(3)));
    let b = &mut Builder::new(&mut g, "");
    let k = transpose(b, k, &[0, 1, 3, 2]);
    let scores = b.op("MatMul", &[q, k]);
    let weights = softmax(b, scores, -1);
    let y = b.op("MatMul", &[weights, v]);
    g.outputs = vec![y];
    is_left(g);
}
