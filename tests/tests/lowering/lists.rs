//! Sequences of tensors against what they are lowered to.

use graft_graph::grad::grad;
use graft_graph::{Attr, Builder, DType, Dim, Graph, Tensor, lower};
use graft_tests::runtime;

use crate::run;

/// `x` `[5, 3]` in parts of two rows at most, a list that is changed, read and joined again.
fn lists(at: Option<i64>) -> (Graph, Vec<(String, Tensor)>) {
    let mut g = Graph::new("lists", 20);
    let x = g.add_input("x", DType::F32, vec![Dim::from(5), Dim::from("n")]);
    let place = match at {
        Some(at) => g.add_constant("place", Tensor::scalar(at)),
        None => g.add_input("place", DType::I64, vec![]),
    };
    let mut b = Builder::new(&mut g, "");
    let (two, zero) = (b.scalar(2i64), b.scalar(0i64));
    let parts = b.op("SplitToSequence", &[x, two]);
    let first = b.op("SequenceAt", &[parts, place]);
    let more = b.op("SequenceInsert", &[parts, first, zero]);
    let less = b.op("SequenceErase", &[more]);
    let joined = b.op_with("ConcatFromSequence", &[less], &[("axis", Attr::Int(0))]);
    let rows = b.op_with("SplitToSequence", &[x], &[("keepdims", Attr::Int(0))]);
    let row = b.op("SequenceAt", &[rows, place]);
    let pair = b.op("SequenceConstruct", &[row, row]);
    let attrs = [("axis", Attr::Int(-1)), ("new_axis", Attr::Int(1))];
    let stacked = b.op_with("ConcatFromSequence", &[pair], &attrs);
    let count = b.op("SequenceLength", &[less]);
    g.outputs = vec![first, joined, stacked, count];
    for (v, dtype) in [(first, DType::F32), (joined, DType::F32), (stacked, DType::F32), (count, DType::I64)]
    {
        g.fact_mut(v).dtype = Some(dtype);
    }
    let values: Vec<f32> = (0..15).map(|i| i as f32).collect();
    let mut fed = vec![("x".to_string(), Tensor::new(vec![5, 3], &values).unwrap())];
    fed.extend(at.is_none().then(|| ("place".to_string(), Tensor::scalar(1i64))));
    (g, fed)
}

#[test]
fn lists_whose_places_are_known_become_plain_operators() {
    if runtime().is_none() {
        return;
    }
    for at in [0, 1, -1] {
        let (original, fed) = lists(Some(at));
        let mut plain = original.clone();
        lower::lower(&mut plain);
        let left: Vec<&str> =
            plain.nodes.iter().map(|n| n.op.as_str()).filter(|op| op.contains("Sequence")).collect();
        assert!(left.is_empty(), "{left:?} are left");
        assert_eq!(run(&original, &fed).unwrap(), run(&plain, &fed).unwrap(), "{at}");
    }
}

#[test]
fn a_place_in_a_list_that_is_fed_stays_and_says_why() {
    let (mut g, _) = lists(None);
    assert!(lower::lower(&mut g).iter().all(|(op, _)| *op != "SequenceAt"));
    let (x, y) = (g.inputs[0], g.outputs[0]);
    let why = grad(&mut g, &[(y, y)], &[x], &[]).unwrap_err().to_string();
    assert!(why.contains("SequenceAt") && why.contains("chosen at run time"), "{why}");
}
