use std::collections::HashMap;

use super::*;
use crate::builder::Builder;
use crate::dim::Dim;
use crate::ir::{GRAFT_DOMAIN, Graph, ValueId};
use crate::model::Role;
use crate::tensor::{DType, Tensor};

/// Two layers over `[batch, seq, 4]`: the outputs of the first one and of both.
fn base() -> (Graph, [ValueId; 2]) {
    let mut g = Graph::new("g", 20);
    let dims = vec![Dim::from("batch"), Dim::from("seq"), Dim::from(4)];
    let x = g.add_input("x", DType::F32, dims);
    let mut b = Builder::new(&mut g, "");
    let mut made = [x; 2];
    let mut h = x;
    for (k, out) in made.iter_mut().enumerate() {
        let w = b.constant(Tensor::new([4, 4], &[k as f32; 16]).unwrap());
        h = b.op("MatMul", &[h, w]);
        *out = h;
        h = b.op("Relu", &[h]);
    }
    g.outputs = vec![h];
    (g, made)
}

/// What a method does with the output of a layer: the value that stands in its place, and the parameters.
type Method<'m> = &'m dyn Fn(&mut Graph, ValueId) -> (ValueId, Vec<Leaf>);

fn param(g: &mut Graph, shape: &[i64], paddable: &[usize], neutral: Neutral) -> Leaf {
    let dims = shape.iter().map(|d| Dim::from(*d)).collect();
    let value = g.add_input("p", DType::F32, dims);
    Leaf { value, paddable: paddable.to_vec(), is_param: true, neutral }
}

/// The base with a method at layer `k`, in fragments.
fn derived(k: usize, method: Method<'_>) -> Result<Vec<Fragment>, Unbatchable> {
    let (base, layers) = base();
    let mut g = base.clone();
    let (new, leaves) = method(&mut g, layers[k]);
    // The nodes of the base that read the old value read the new one.
    for n in &mut g.nodes[..base.nodes.len()] {
        n.inputs.iter_mut().filter(|v| **v == Some(layers[k])).for_each(|v| *v = Some(new));
    }
    // A head, so that there is something to compute.
    let h = g.outputs[0];
    let head = Builder::new(&mut g, "").op("Neg", &[h]);
    g.rename(head, "logits");
    g.outputs = vec![head];
    g.sort().unwrap();
    let member = Member {
        graph: &g,
        forward: &HashMap::from([(layers[k], new)]),
        leaves: &leaves,
        roles: &[(g.inputs[0], Role::Pixels)],
    };
    take_apart(&base, &member)
}

/// `y + (y·Aᵀ)·Bᵀ`: the update reads the output itself, which is enough for its structure.
fn low_rank(r: i64) -> impl Fn(&mut Graph, ValueId) -> (ValueId, Vec<Leaf>) {
    move |g, y| {
        let a = param(g, &[r, 4], &[0], Neutral::Other);
        let b = param(g, &[4, r], &[1], Neutral::Zeros);
        let x = g.inputs[0];
        let mut e = Builder::new(g, "");
        let turned = [("perm", crate::Attr::Ints(vec![1, 0]))];
        let (at, bt) =
            (e.op_with("Transpose", &[a.value], &turned), e.op_with("Transpose", &[b.value], &turned));
        let narrow = e.op("MatMul", &[x, at]);
        let wide = e.op("MatMul", &[narrow, bt]);
        (e.op("Add", &[y, wide]), vec![a, b])
    }
}

/// `y·s + t`, of which neither is known to do nothing.
fn shifted(g: &mut Graph, y: ValueId) -> (ValueId, Vec<Leaf>) {
    let (s, t) = (param(g, &[4], &[], Neutral::Ones), param(g, &[4], &[], Neutral::Other));
    let mut e = Builder::new(g, "");
    let scaled = e.op("Mul", &[y, s.value]);
    (e.op("Add", &[scaled, t.value]), vec![s, t])
}

fn ops(g: &Graph, op: &str) -> usize {
    g.nodes.iter().filter(|n| n.op == op).count()
}

#[test]
fn ranks_share_a_structure_and_places_do_not() {
    let of = |k, r| derived(k, &low_rank(r)).unwrap().remove(0).signature;
    assert_eq!(of(0, 2), of(0, 7));
    assert_ne!(of(0, 2), of(1, 2));
}

#[test]
fn what_adds_nothing_needs_no_choice_and_anything_else_does() {
    let (base, _) = base();
    let (lora, shift) = (derived(0, &low_rank(2)).unwrap(), derived(0, &shifted).unwrap());
    let joined = join(&base, &[&lora[0], &lora[1]]).unwrap();
    assert_eq!(lora[1].signature, shift[1].signature, "one head for both");
    assert_eq!((ops(&joined.graph, "Where"), &joined.fragments[0].active), (0, &None));
    let both = join(&base, &[&lora[0], &shift[0], &lora[1]]).unwrap();
    assert_eq!(ops(&both.graph, "Where"), 1);
    assert_eq!(both.fragments[1].active.as_deref(), Some("f1.active"));
    // The layers of the base are there once.
    assert_eq!((ops(&both.graph, "MatMul"), ops(&both.graph, "Relu")), (2, 2));
    let down = both.graph.nodes.iter().filter(|n| n.domain == GRAFT_DOMAIN).count();
    assert_eq!(down, 2, "products with a bank, neither gathered");
}

#[test]
fn a_bank_has_a_row_for_each_place_that_may_be_padded() {
    let (base, _) = base();
    let lora = derived(1, &low_rank(3)).unwrap();
    let joined = join(&base, &[&lora[0]]).unwrap();
    let banks = &joined.fragments[0].banks;
    assert_eq!(banks.iter().map(|b| b.row.as_slice()).collect::<Vec<_>>(), [[4], [4]]);
    assert_eq!(banks[0].index, banks[1].index, "they are filled in step");
    let a = Tensor::new([3, 4], &(0..12).map(|i| i as f32).collect::<Vec<_>>()).unwrap();
    let b = Tensor::new([4, 3], &(0..12).map(|i| i as f32).collect::<Vec<_>>()).unwrap();
    let kept = |k: usize| {
        let mut rows = Vec::new();
        lora[0].rows_of(&banks[k], &[&a, &b], &mut rows).unwrap();
        rows
    };
    assert_eq!(kept(0), a.values::<f32>().unwrap().into_owned(), "rows of A");
    assert_eq!(kept(1), [0., 3., 6., 9., 1., 4., 7., 10., 2., 5., 8., 11.], "columns of B");
}

#[test]
fn what_has_no_rule_is_named() {
    let refused = derived(0, &|g, y| {
        let p = param(g, &[4], &[], Neutral::Other);
        let made = Builder::new(g, "").op("Mod", &[y, p.value]);
        (made, vec![p])
    });
    let (base, _) = base();
    let fragments = refused.unwrap();
    let e = join(&base, &[&fragments[0]]).unwrap_err();
    assert!(e.to_string().contains("Mod") && e.to_string().contains("no rule"), "{e}");
}

#[test]
fn rows_that_are_mixed_share_no_batch() {
    let refused = derived(0, &|g, y| {
        let p = param(g, &[4], &[], Neutral::Other);
        let mut e = Builder::new(g, "");
        let axis = e.ints(&[0]);
        let mean = e.op("ReduceMean", &[y, axis]);
        let scaled = e.op("Mul", &[mean, p.value]);
        (e.op("Add", &[y, scaled]), vec![p])
    });
    let e = refused.unwrap_err();
    assert!(e.to_string().contains("ReduceMean"), "{e}");
}

#[test]
fn a_head_over_a_base_that_mixes_rows_shares_no_batch() {
    let refused = derived(0, &|g, y| {
        // A scale of the whole tensor, as dynamic quantisation has it; no parameter is near.
        let mut e = Builder::new(g, "");
        let axes = e.ints(&[0, 1, 2]);
        let most = e.op("ReduceMax", &[y, axes]);
        (e.op("Div", &[y, most]), Vec::new())
    });
    let e = refused.unwrap_err();
    assert!(e.op == "output" && e.to_string().contains("ReduceMax"), "{e}");
}
