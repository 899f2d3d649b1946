//! A valid model with some of its bytes changed, and operators with absurd attributes: refused or not, never a panic.

use graft_graph::grad::gradient_model;
use graft_graph::{
    Attr, Attrs, DType, Dim, Fact, Graph, Node, Tensor, grad, model, onnx, raise, shape, sites,
};
use graft_tests::Draw;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::{changed, read};

/// Everything that reads a graph before anything runs.
fn use_all(mut g: Graph) {
    raise::raise(&mut g);
    let _ = model::describe(&g, None);
    let _ = sites::sites(&g);
    let _ = onnx::to_bytes(&g);
    if let Ok(m) = gradient_model(&g, None) {
        let _ = onnx::to_bytes(&m.graph);
    }
}

#[derive(Debug, Clone)]
enum Change {
    Flip { at: usize, bits: u8 },
    Remove { at: usize, count: usize },
    Repeat { at: usize, count: usize },
    Fill { at: usize, count: usize, byte: u8 },
}

fn change() -> impl Strategy<Value = Change> {
    let (at, count) = (any::<usize>(), 1usize..40);
    prop_oneof![
        4 => (at, 1u8..).prop_map(|(at, bits)| Change::Flip { at, bits }),
        1 => (at, count.clone()).prop_map(|(at, count)| Change::Remove { at, count }),
        1 => (at, count.clone()).prop_map(|(at, count)| Change::Repeat { at, count }),
        1 => (at, count, any::<u8>()).prop_map(|(at, count, byte)| Change::Fill { at, count, byte }),
    ]
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    let length = bytes.len().max(1);
    let range = |at: usize, count: usize| (at % length, (at % length + count).min(bytes.len()));
    match *change {
        Change::Flip { at, bits } => {
            if let Some(b) = bytes.get_mut(at % length) {
                *b ^= bits;
            }
        }
        Change::Remove { at, count } => {
            let (from, to) = range(at, count);
            bytes.drain(from..to.max(from));
        }
        Change::Repeat { at, count } => {
            let (from, to) = range(at, count);
            let part = bytes[from..to.max(from)].to_vec();
            bytes.splice(from..from, part);
        }
        Change::Fill { at, count, byte } => {
            let (from, to) = range(at, count);
            bytes[from..to.max(from)].fill(byte);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_changed_model_is_read_or_refused(changes in vec(change(), 1..4)) {
        let mut bytes = changed(|_| {});
        changes.iter().for_each(|c| apply(&mut bytes, c));
        if let Ok(g) = read(bytes) {
            use_all(g);
        }
    }

    #[test]
    fn absurd_operators_are_derived_or_refused(choices in vec(any::<u16>(), 64)) {
        use_all(absurd(&mut Draw::new(&choices)));
    }
}

const INTS: [i64; 10] = [0, 1, -1, 2, 3, -3, i64::MAX, i64::MIN, 1 << 40, -(1 << 40)];
const NAMES: [&str; 14] = [
    "axis",
    "axes",
    "keepdims",
    "perm",
    "to",
    "transA",
    "transB",
    "num_outputs",
    "start",
    "end",
    "batch_dims",
    "allowzero",
    "noop_with_empty_axes",
    "strides",
];

/// A node of any operator that there is a rule for, with any inputs and attributes, between a parameter and an output.
fn absurd(d: &mut Draw<'_>) -> Graph {
    let mut ops: Vec<&str> = shape::supported().collect();
    ops.sort_unstable();
    // Those that also have a gradient are the more interesting ones.
    let op = if d.flag() { d.pick(&ops) } else { d.pick(&grad::supported()) };
    let mut g = Graph::new("absurd", onnx::WORKING_OPSET);
    let dims = [0, 1, 2, 3].map(Dim::from).into_iter().chain(["n", "m"].map(Dim::from));
    let dims: Vec<Dim> = dims.collect();
    let mut inputs = Vec::new();
    for k in 0..d.below(5) {
        inputs.push(match d.below(6) {
            0 | 1 => {
                let rank = d.below(4);
                let shape = (0..rank).map(|_| d.pick(&dims)).collect();
                Some(g.add_input(&format!("x{k}"), DType::F32, shape))
            }
            2 => {
                let shape: Vec<usize> = (0..d.below(4)).map(|_| d.below(4)).collect();
                let t = Tensor::new(shape.clone(), &vec![0.5f32; shape.iter().product()]);
                Some(g.add_constant("weight", t.expect("as many as the shape asks for")))
            }
            3 => {
                let values: Vec<i64> = (0..d.below(4)).map(|_| d.pick(&INTS)).collect();
                Some(g.add_constant("ints", Tensor::vector(&values)))
            }
            4 => Some(g.add_value("unmade", Fact::default())),
            _ => None,
        });
    }
    let mut attrs = Attrs::new();
    for _ in 0..d.below(4) {
        let name = d.pick(&NAMES).to_string();
        let value = match d.flag() {
            false => Attr::Int(d.pick(&INTS)),
            true => Attr::Ints((0..d.below(4)).map(|_| d.pick(&INTS)).collect()),
        };
        attrs.insert(name, value);
    }
    let outputs: Vec<_> = (0..d.below(4)).map(|_| Some(g.add_value("y", Fact::default()))).collect();
    g.outputs = outputs.iter().flatten().copied().collect();
    g.nodes.push(Node { op: op.into(), inputs, outputs, attrs, ..Node::default() });
    shape::infer(&mut g);
    g
}
