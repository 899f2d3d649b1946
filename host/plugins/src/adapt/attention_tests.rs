//! Keys and values of a base's attention, replaced.

use graft_graph::model::Model;
use graft_graph::{Attr, DType, Graph, Tensor, raise};
use graft_plugin_api::{Dim as ApiDim, wire};

use super::*;
use crate::host::GraphHost;

/// Four query heads over two of keys, with a mask `[b, 1, 1, n]`.
fn grouped() -> Writer {
    let mut g = Graph::new("g", 20);
    let heads = |n: i64| vec![Dim::from("b"), Dim::from(n), Dim::from("n"), Dim::from(8)];
    let q = g.add_input("q", DType::F32, heads(4));
    let [k, v] = ["k", "v"].map(|n| g.add_input(n, DType::F32, heads(2)));
    let mask =
        g.add_input("mask", DType::F32, vec![Dim::from("b"), Dim::from(1), Dim::from(1), Dim::from("n")]);
    let b = &mut Builder::new(&mut g, "/layers.0/self_attn/");
    let [k, v] = [k, v].map(|x| repeat(b, x, 4).unwrap());
    let k = transposed(b, k);
    let scores = b.op("MatMul", &[q, k]);
    let scores = b.op("Add", &[scores, mask]);
    let weights = b.op_with("Softmax", &[scores], &[("axis", Attr::Int(-1))]);
    let y = b.op("MatMul", &[weights, v]);
    g.outputs = vec![y];
    assert_eq!(raise::raise(&mut g), [("attention", 1)]);
    Writer::new(g, Model { inputs: Vec::new(), hidden: None, pooled: None, words: None, logits: None }, true)
}

fn site(w: &mut Writer) -> wire::Site {
    w.sites().unwrap().into_iter().find(|s| s.attention.is_some()).unwrap()
}

/// `x` with a constant of three more positions in front of its axis 2 or 3.
fn longer(w: &mut Writer, x: u64, heads: usize, width: usize) -> u64 {
    let fact = w.fact(x).unwrap();
    let rows = w.value(x).unwrap();
    let (shape, axis) = if width == 1 { (vec![1, 1, 1, 3], 3) } else { (vec![1, heads, 3, width], 2) };
    let zeros = Tensor::new(shape, &vec![0f32; heads * 3 * width]).unwrap();
    let mut b = Builder::new(&mut w.graph, "adapter.");
    let front = b.constant(zeros);
    let size = b.op("Shape", &[rows]);
    let (first, ones) = (b.ints(&[0]), b.ints(&[1, 1, 1]));
    let rows_of = b.op("Gather", &[size, first]);
    let whole = b.op_with("Concat", &[rows_of, ones], &[("axis", Attr::Int(0))]);
    let front = b.op("Expand", &[front, whole]);
    let made = b.op_with("Concat", &[front, rows], &[("axis", Attr::Int(axis))]);
    assert!(matches!(fact.shape.unwrap()[0], ApiDim::Symbol(_)));
    w.handle(made)
}

#[test]
fn a_site_tells_what_meets_in_it() {
    let mut w = grouped();
    let s = site(&mut w);
    assert_eq!((s.path.as_str(), s.kind), ("layers.0.self_attn", graft_plugin_api::SiteKind::ATTENTION.0));
    let a = s.attention.unwrap();
    assert_eq!((a.heads, a.kv_heads, a.head_dim, a.value_dim), (4, 2, 8, 8));
    let names = [a.query, a.key, a.value, a.bias].map(|h| w.graph.name_of(w.value(h).unwrap()).to_owned());
    assert_eq!(names, ["q", "k", "v", "mask"]);
}

#[test]
fn longer_keys_and_values_with_a_longer_bias_enter_the_scores() {
    let mut w = grouped();
    let s = site(&mut w);
    let a = s.attention.unwrap();
    let (key, value) = (longer(&mut w, a.key, 2, 8), longer(&mut w, a.value, 2, 8));
    let bias = longer(&mut w, a.bias, 1, 1);
    w.replace_attention(wire::ReplaceAttention { site: s.number, key, value, bias }).unwrap();
    w.graph.sort().unwrap();
    let node = w.graph.nodes.iter().find(|n| fused::is_attention(n)).unwrap();
    let shape = |k: usize| dim::show(w.graph.shape(node.input(k).unwrap()).unwrap());
    assert_eq!([shape(1), shape(2)], ["[b, 4, 8, n + 3]", "[b, 4, n + 3, 8]"]);
    assert_eq!(dim::show(w.graph.shape(node.output(0).unwrap()).unwrap()), "[b, 4, n, 8]");
    let now = site(&mut w).attention.unwrap();
    assert_eq!((now.key, now.value, now.bias), (key, value, bias));
}

#[test]
fn what_does_not_fit_is_refused_with_the_site() {
    let mut w = grouped();
    let s = site(&mut w);
    let a = s.attention.unwrap();
    let long = longer(&mut w, a.key, 2, 8);
    let mut refused = |site, key, value, bias| {
        w.replace_attention(wire::ReplaceAttention { site, key, value, bias }).unwrap_err().to_string()
    };
    let why = refused(s.number, long, a.value, 0);
    assert!(why.contains("keys") && why.contains("layers.0.self_attn"), "{why}");
    let why = refused(s.number, long, long, 0);
    assert!(why.contains("lengthen the bias"), "{why}");
    let why = refused(s.number, a.query, a.value, 0);
    assert!(why.contains("can't take the place"), "{why}");
    let why = refused(s.number + 1, a.key, a.value, 0);
    assert!(why.contains("no site number"), "{why}");
    let why = w.replace_input(s.number, a.key).unwrap_err().to_string();
    assert!(why.contains("replace_attention"), "{why}");
}
