//! Cases of recurrent operators.
//!
//! ONNX Runtime has kernels for f32 alone. These are what the cases of [`CASES`] are checked against; in f64 the operators
//! are written out step by step, from the standard.

use graft_graph::grad::grad;
use graft_graph::{Attr, Builder, DType, Graph, Node, Tensor, ValueId};
use graft_tests::differences::Tolerance::{Approximate, Close};
use graft_tests::differences::{Arg, Case, Derived, Sizes};
use graft_tests::{Array, Draw, runtime};

use crate::{Row, case};

pub const CASES: &[Row] = &[("LSTM", Approximate, lstm), ("GRU", Approximate, gru)];
/// The cases for [`unrolled`].
pub const DOUBLE: &[Row] = &[("LSTM", Close, lstm), ("GRU", Close, gru)];

const DIRECTIONS: [&str; 3] = ["forward", "reverse", "bidirectional"];

fn lstm(op: &'static str, d: &mut Draw<'_>) -> Case {
    let mut c = recurrent(op, d, 4, 2);
    if d.below(3) == 2 {
        c.attrs.insert("input_forget".into(), Attr::Int(1));
    }
    Case { outputs: 3, ..c }
}

fn gru(op: &'static str, d: &mut Draw<'_>) -> Case {
    let mut c = recurrent(op, d, 3, 1);
    if d.flag() {
        c.attrs.insert("linear_before_reset".into(), Attr::Int(1));
    }
    Case { outputs: 2, ..c }
}

/// Any direction, each optional input there or not, rows of any length up to none.
fn recurrent(op: &'static str, d: &mut Draw<'_>, gates: usize, states: usize) -> Case {
    let direction = d.pick(&DIRECTIONS);
    let ways = if direction == "bidirectional" { 2 } else { 1 };
    let (steps, rows, width, hidden) = (d.size(1..=4), d.size(1..=2), d.size(1..=2), d.size(1..=2));
    let float = |d: &mut Draw<'_>, shape: &[usize]| Arg::Float(d.reals(shape, (-1.0, 1.0), &[]));
    let optional = |d: &mut Draw<'_>, shape: &[usize]| if d.flag() { float(d, shape) } else { Arg::Missing };
    let mut args = vec![
        float(d, &[steps, rows, width]),
        float(d, &[ways, gates * hidden, width]),
        float(d, &[ways, gates * hidden, hidden]),
        optional(d, &[ways, 2 * gates * hidden]),
    ];
    args.push(match d.below(3) {
        2 => {
            let lengths: Vec<i32> = (0..rows).map(|_| steps as i32 - d.below(steps + 1) as i32).collect();
            Arg::Held(Tensor::vector(&lengths))
        }
        _ => Arg::Missing,
    });
    args.extend((0..states).map(|_| optional(d, &[ways, rows, hidden])));
    if gates == 4 {
        args.push(optional(d, &[ways, 3 * hidden]));
    }
    let attrs = [("direction", Attr::from(direction)), ("hidden_size", Attr::Int(hidden as i64))];
    case(op, args, &attrs)
}

/// Writes every recurrent node out as operators that are there in f64, in the order of its steps: backwards over
/// sequences that are turned round within their rows.
pub fn unrolled(g: &mut Graph, case: &Case) {
    let Arg::Float(x) = &case.args[0] else { panic!("the sequence is a float input") };
    let (steps, rows) = (x.shape[0] as i64, x.shape[1]);
    for node in std::mem::take(&mut g.nodes) {
        if node.op != case.op {
            g.nodes.push(node);
            continue;
        }
        let made = written_out(&mut Builder::new(g, "unrolled/"), &node, steps, rows);
        for (old, new) in node.outputs.iter().zip(made) {
            let Some(old) = old else { continue };
            let copy = Node { op: "Identity".into(), inputs: vec![Some(new)], ..Node::default() };
            g.nodes.push(Node { outputs: vec![Some(*old)], ..copy });
        }
    }
    g.sort().expect("what stands in reads what the node read");
}

fn written_out(b: &mut Builder<'_>, node: &Node, steps: i64, rows: usize) -> Vec<ValueId> {
    let lengths = match node.input(4) {
        Some(v) => b.cast(v, DType::I64),
        None => b.ints(&vec![steps; rows]),
    };
    let ways: &[bool] = match node.text("direction") {
        Some("reverse") => &[true],
        Some("bidirectional") => &[false, true],
        _ => &[false],
    };
    let mut parts = vec![Vec::new(); 3];
    for (k, reverse) in ways.iter().enumerate() {
        let turn = |b: &mut Builder<'_>, v: ValueId| match reverse {
            true => b.op_with(
                "ReverseSequence",
                &[v, lengths],
                &[("time_axis", Attr::Int(0)), ("batch_axis", Attr::Int(1))],
            ),
            false => v,
        };
        let mut given: Vec<Option<ValueId>> = Vec::new();
        for i in 0..8 {
            let at = b.scalar(k as i64);
            given.push(node.input(i).map(|v| {
                if i == 0 {
                    turn(b, v)
                } else if i == 4 {
                    v
                } else {
                    b.op("Gather", &[v, at])
                }
            }));
        }
        let (ys, h, c) = one_way(b, node, &given, lengths, steps, rows);
        let ys = turn(b, ys);
        for (part, (v, axis)) in parts.iter_mut().zip([(ys, 1), (h, 0), (c, 0)]) {
            let axes = b.ints(&[axis]);
            part.push(b.op("Unsqueeze", &[v, axes]));
        }
    }
    let axes = [1, 0, 0].into_iter();
    parts.iter().zip(axes).map(|(p, axis)| b.op_with("Concat", p, &[("axis", Attr::Int(axis))])).collect()
}

/// The states of all steps, the last one and the last cell state.
fn one_way(
    b: &mut Builder<'_>,
    node: &Node,
    given: &[Option<ValueId>],
    lengths: ValueId,
    steps: i64,
    rows: usize,
) -> (ValueId, ValueId, ValueId) {
    let hidden = node.int("hidden_size", 0) as usize;
    let nothing = b.constant(Tensor::new(vec![rows, hidden], &vec![0f64; rows * hidden]).expect("zeros"));
    let (mut h, mut c) = (given[5].unwrap_or(nothing), given[6].unwrap_or(nothing));
    let (mut ys, behind) = (Vec::new(), b.ints(&[1]));
    let first = b.ints(&[0]);
    let is_before = |b: &mut Builder<'_>, t: i64| {
        let t = b.ints(&[t]);
        let there = b.op("Less", &[t, lengths]);
        b.op("Unsqueeze", &[there, behind])
    };
    for t in 0..steps {
        let (there, at) = (is_before(b, t), b.scalar(t));
        let x = b.op("Gather", &[given[0].expect("a sequence"), at]);
        let (next, cell) = if node.op == "LSTM" {
            lstm_step(b, node, given, x, h, c)
        } else {
            (gru_step(b, node, given, x, h), c)
        };
        let y = b.op("Where", &[there, next, nothing]);
        ys.push(b.op("Unsqueeze", &[y, first]));
        (h, c) = (b.op("Where", &[there, next, h]), b.op("Where", &[there, cell, c]));
    }
    let begun = is_before(b, 0);
    let (h, c) = (b.op("Where", &[begun, h, nothing]), b.op("Where", &[begun, c, nothing]));
    (b.op_with("Concat", &ys, &[("axis", Attr::Int(0))]), h, c)
}

/// Part `k` of `of` parts of axis `axis`.
fn part(b: &mut Builder<'_>, v: ValueId, axis: i64, k: usize, of: usize) -> ValueId {
    let attrs = [("axis".to_string(), Attr::Int(axis)), ("num_outputs".to_string(), Attr::Int(of as i64))];
    b.emit("Split", "", &[Some(v)], attrs.into(), of)[k]
}

/// `v·mᵀ + bias` for gate `k` of `gates`, with half `half` of the biases.
fn product(
    b: &mut Builder<'_>,
    given: &[Option<ValueId>],
    v: ValueId,
    half: usize,
    (k, gates): (usize, usize),
) -> ValueId {
    let m = given[1 + half].expect("weights");
    let m = part(b, m, 0, k, gates);
    let y = b.op_with("Gemm", &[v, m], &[("transB", Attr::Int(1))]);
    match given[3] {
        Some(bias) => {
            let bias = part(b, bias, 0, half * gates + k, 2 * gates);
            b.op("Add", &[y, bias])
        }
        None => y,
    }
}

fn lstm_step(
    b: &mut Builder<'_>,
    node: &Node,
    given: &[Option<ValueId>],
    x: ValueId,
    h: ValueId,
    c: ValueId,
) -> (ValueId, ValueId) {
    let gate = |b: &mut Builder<'_>, k: usize, peephole: Option<(usize, ValueId)>| {
        let (a, s) = (product(b, given, x, 0, (k, 4)), product(b, given, h, 1, (k, 4)));
        let mut sum = b.op("Add", &[a, s]);
        if let (Some(p), Some((at, c))) = (given[7], peephole) {
            let p = part(b, p, 0, at, 3);
            let seen = b.op("Mul", &[p, c]);
            sum = b.op("Add", &[sum, seen]);
        }
        b.op(if k == 3 { "Tanh" } else { "Sigmoid" }, &[sum])
    };
    let (i, new) = (gate(b, 0, Some((0, c))), gate(b, 3, None));
    let f = match node.int("input_forget", 0) {
        0 => gate(b, 2, Some((2, c))),
        _ => {
            let one = b.scalar(1f64);
            b.op("Sub", &[one, i])
        }
    };
    let (kept, new) = (b.op("Mul", &[f, c]), b.op("Mul", &[i, new]));
    let c = b.op("Add", &[kept, new]);
    let (o, squashed) = (gate(b, 1, Some((1, c))), b.op("Tanh", &[c]));
    (b.op("Mul", &[o, squashed]), c)
}

fn gru_step(b: &mut Builder<'_>, node: &Node, given: &[Option<ValueId>], x: ValueId, h: ValueId) -> ValueId {
    let gate = |b: &mut Builder<'_>, k: usize| {
        let (a, s) = (product(b, given, x, 0, (k, 3)), product(b, given, h, 1, (k, 3)));
        let sum = b.op("Add", &[a, s]);
        b.op("Sigmoid", &[sum])
    };
    let (z, r) = (gate(b, 0), gate(b, 1));
    let a = product(b, given, x, 0, (2, 3));
    let s = match node.int("linear_before_reset", 0) {
        0 => {
            let left = b.op("Mul", &[r, h]);
            product(b, given, left, 1, (2, 3))
        }
        _ => {
            let s = product(b, given, h, 1, (2, 3));
            b.op("Mul", &[r, s])
        }
    };
    let n = b.op("Add", &[a, s]);
    let n = b.op("Tanh", &[n]);
    // (1 − z)·n + z·h = n + z·(h − n)
    let between = b.op("Sub", &[h, n]);
    let moved = b.op("Mul", &[z, between]);
    b.op("Add", &[n, moved])
}

/// Element `i` of the tensor number `k` that both sides are given.
fn given(k: usize, shape: &[usize]) -> Array {
    let values = (0..shape.iter().product()).map(|i: usize| (0.7 * i as f64 + k as f64).sin()).collect();
    Array { shape: shape.to_vec(), values }
}

/// A bidirectional layer over 3 steps of 2 rows, whose weights are laid out as ONNX has them.
fn layer(op: &'static str, gates: usize) -> Case {
    let shapes: [&[usize]; 4] = [&[3, 2, 1], &[2, gates * 2, 1], &[2, gates * 2, 2], &[2, 4 * gates]];
    let mut args: Vec<Arg> = shapes.iter().zip(1..).map(|(s, k)| Arg::Float(given(k, s))).collect();
    args.push(Arg::Missing);
    let states = if op == "LSTM" { 2 } else { 1 };
    args.extend((0..states).map(|k| Arg::Float(given(5 + k, &[2, 2, 2]))));
    let attrs = [("direction", Attr::from("bidirectional")), ("hidden_size", Attr::Int(2))];
    Case { outputs: 1 + states, ..case(op, args, &attrs) }
}

/// Largest difference of a gradient in f32 from PyTorch's in f64, which stand here with seven places.
const CLOSE: f64 = 2e-6;

fn agrees_with_pytorch(case: &Case, want: &[&[f64]]) {
    let Some(runtime) = runtime() else { return };
    let (graph, floats, fed) = case.graph(Sizes::Own, DType::F32);
    let mut derived = Derived::new(runtime, &graph, &floats, true).expect("a derivable graph");
    let shapes: [&[usize]; 3] = [&[3, 2, 2, 2], &[2, 2, 2], &[2, 2, 2]];
    let mut cotangents = shapes.iter().zip(7..).flat_map(|(s, k)| given(k, s).values);
    let mut next = || cotangents.next().expect("as many as the outputs have elements");
    let (got, _) = derived.gradients(&fed, &mut next).expect("it runs");
    assert_eq!(got.len(), want.len());
    for (k, (got, want)) in got.iter().zip(want).enumerate() {
        assert_eq!(got.len(), want.len(), "{} {k}", case.op);
        let error = got.iter().zip(*want).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(error <= CLOSE, "{}: gradient {k} is off by {error:.1e}: {got:?}", case.op);
    }
}

#[test]
fn gradients_of_recurrent_layers_are_those_of_pytorch() {
    // Of input, input weights, recurrent weights, biases and states, by PyTorch 2.11 in f64.
    let lstm: [&[f64]; 6] = [
        &[0.7669912, -0.0277300, -0.1617274, 0.0158659, -0.1229980, -0.1190275],
        &[
            0.0953287, 0.0355269, 0.0279658, 0.0328604, 0.0116395, -0.0067610, -0.0037196, 0.0343082,
            0.0311692, 0.1444590, 0.1495171, -0.1130544, -0.0057729, 0.0156558, -0.5597347, 0.1578057,
        ],
        &[
            -0.0686618, -0.0842031, -0.0212565, -0.0407389, -0.0181697, 0.0472879, 0.0013048, 0.0676230,
            -0.0016169, -0.0454782, -0.0185498, -0.0669086, -0.0040964, -0.0179057, -0.0099328, -0.0105512,
            -0.0079980, 0.0080163, 0.0091327, 0.0185404, -0.0060541, 0.0149808, -0.0002238, -0.0130834,
            0.0092267, 0.0025755, 0.0102992, -0.0099280, 0.0579054, -0.0158282, 0.0205051, 0.0176544,
        ],
        &[
            -0.0165368, -0.1168761, 0.2709401, 0.4321756, -0.1329091, -0.1719912, -0.0200156, -0.0334260,
            -0.0165368, -0.1168761, 0.2709401, 0.4321756, -0.1329091, -0.1719912, -0.0200156, -0.0334260,
            -0.0158327, 0.0937603, 0.0569167, -0.1606571, 0.0159447, 0.0645689, -0.7990007, 0.1496810,
            -0.0158327, 0.0937603, 0.0569167, -0.1606571, 0.0159447, 0.0645689, -0.7990007, 0.1496810,
        ],
        &[-0.0045426, -0.0008781, 0.0591952, 0.1904383, -0.0210132, -0.0311319, 0.0256989, 0.0415616],
        &[0.0533526, 0.0432014, -0.0837018, -0.1363845, 0.0322853, 0.0130591, -0.0188181, -0.0575113],
    ];
    agrees_with_pytorch(&layer("LSTM", 4), &lstm);
    let gru: [&[f64]; 5] = [
        &[-0.9028896, -0.4956866, -0.2051052, -0.9263434, -0.2639058, -0.2690944],
        &[
            0.3832062, -0.1455293, -0.0423592, -0.0988417, 0.2585676, 0.8130336, -0.2473244, -0.2218877,
            0.1876831, -0.0125206, -1.5682797, -0.1219755,
        ],
        &[
            0.2082257, 0.1949091, 0.6522802, 0.3431158, 0.1433156, -0.0147713, -0.0137334, -0.1228333,
            -0.1314959, 0.0584952, -0.0483100, 0.1079533, 0.3174152, 0.0276695, -0.0433701, -0.1554664,
            -0.1550102, -0.0806226, -0.0805568, -0.0743473, -0.1348469, -0.0513077, -0.3456797, -0.3476110,
        ],
        &[
            -0.1221500, -0.6974542, -0.3649839, -0.2237039, 1.4664245, 1.6827411, -0.1221500, -0.6974542,
            -0.3649839, -0.2237039, 0.4458665, 0.3491473, -0.0016433, 0.0042060, -0.1082594, -0.3778588,
            -0.9832432, -2.0833352, -0.0016433, 0.0042060, -0.1082594, -0.3778588, -0.8182806, -1.3966138,
        ],
        &[1.2096173, 1.9224324, 0.9487559, -0.3215592, -0.7576613, -0.9261726, 0.1202998, -0.0833855],
    ];
    let mut case = layer("GRU", 3);
    case.attrs.insert("linear_before_reset".into(), Attr::Int(1));
    agrees_with_pytorch(&case, &gru);
}

#[test]
fn recurrent_layers_that_are_not_derived_say_why() {
    let attrs = [
        ("clip", Attr::Float(1.0), "clipped"),
        ("layout", Attr::Int(1), "rows before steps"),
        ("activations", Attr::Strings(vec!["Relu".into(), "Tanh".into(), "Tanh".into()]), "activation Relu"),
    ];
    for (name, value, says) in attrs {
        let mut case = layer("LSTM", 4);
        case.attrs.insert(name.into(), value);
        let (mut graph, floats, _) = case.graph(Sizes::Known, DType::F32);
        let y: ValueId = graph.outputs[0];
        let why = grad(&mut graph, &[(y, y)], &floats, &[]).unwrap_err().to_string();
        assert!(why.contains("LSTM") && why.contains(says), "{why}");
    }
}
