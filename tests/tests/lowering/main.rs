//! Operators outside ONNX's plain set against what they are lowered to: both run in ONNX Runtime and give the same.
//!
//! One row an operator of the table; an operator without a row fails `every_lowered_operator_has_a_row`.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod lists;
mod recurrent;

use std::collections::BTreeSet;

use graft_graph::{Attr, Attrs, DType, Dim, Fact, Graph, Node, Tensor, lower, onnx, shape};
use graft_runtime::{Session, SessionOptions, SessionSource};
use graft_tests::{Draw, runtime};
use proptest::collection::vec;
use proptest::prelude::any;
use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};

const MS: &str = "com.microsoft";
/// Cases of one operator.
const CASES: u32 = 30;

/// An operator, its inputs (`None` where one is left out) and attributes.
struct Use {
    inputs: Vec<Option<Tensor>>,
    /// Inputs that are initializers.
    fixed: Vec<usize>,
    attrs: Attrs,
    /// Outputs that are read.
    outputs: Vec<usize>,
}

type Make = fn(&mut Draw<'_>) -> Use;

const ROWS: &[(&str, &str, Make)] = &[
    (MS, "Gelu", |d| plain(vec![rows(d, 4)])),
    (MS, "BiasGelu", |d| plain(vec![rows(d, 4), floats(d, &[4])])),
    (MS, "FastGelu", |d| plain(vec![rows(d, 4), optional(d, &[4])])),
    (MS, "QuickGelu", |d| {
        let mut u = plain(vec![rows(d, 4)]);
        maybe(d, &mut u, "alpha", &[Attr::Float(1.0), Attr::Float(0.5)]);
        u
    }),
    (MS, "FusedMatMul", fused_matmul),
    (MS, "FusedGemm", |d| {
        let mut u = plain(vec![floats(d, &[2, 3]), floats(d, &[3, 4]), optional(d, &[4])]);
        let attrs = [("LeakyRelu", Some(0.2f32)), ("Tanh", None), ("Relu", None), ("Sigmoid", None)];
        let (activation, alpha) = d.pick(&attrs);
        u.attrs.insert("activation".into(), Attr::from(activation));
        u.attrs.extend(alpha.map(|a| ("activation_alpha".to_string(), Attr::Float(a))));
        maybe(d, &mut u, "alpha", &[Attr::Float(0.5)]);
        u
    }),
    (MS, "FusedConv", |d| {
        let mut u = plain(vec![floats(d, &[2, 3, 5, 4]), floats(d, &[4, 3, 3, 3]), optional(d, &[4])]);
        u.inputs.push(optional(d, &[2, 4, 5, 4]));
        let attrs = [("LeakyRelu", Some(0.2f32)), ("Tanh", None), ("Relu", None), ("Sigmoid", None)];
        let (activation, alpha) = d.pick(&attrs);
        u.attrs.insert("activation".into(), Attr::from(activation));
        u.attrs.extend(alpha.map(|a| ("activation_params".to_string(), Attr::Floats(vec![a]))));
        u.attrs.insert("pads".into(), Attr::Ints(vec![1; 4]));
        u
    }),
    (MS, "SkipLayerNormalization", |d| skip(d, true)),
    (MS, "SkipSimplifiedLayerNormalization", |d| skip(d, false)),
    ("", "SimplifiedLayerNormalization", simplified),
    (MS, "EmbedLayerNormalization", embed),
    ("", "RotaryEmbedding", rotary_standard),
    (MS, "RotaryEmbedding", rotary),
    (MS, "Attention", attention),
    (MS, "MultiHeadAttention", multi_head),
    (MS, "GroupQueryAttention", group_query),
    ("", "Attention", attention_standard),
    (MS, "DynamicQuantizeMatMul", |d| integer_product(d, true)),
    (MS, "MatMulIntegerToFloat", |d| integer_product(d, false)),
    (MS, "QuantizeLinear", |d| {
        let zero = Some(Tensor::scalar(d.below(256) as u8));
        plain(vec![rows(d, 4), Some(Tensor::scalar(0.1f32)), zero])
    }),
    (MS, "DequantizeLinear", |d| {
        let (q, zero) = (bytes(d, &[2, 3]), Some(Tensor::scalar(d.below(256) as u8)));
        plain(vec![q, Some(Tensor::scalar(0.1f32)), zero])
    }),
];

fn plain(inputs: Vec<Option<Tensor>>) -> Use {
    Use { inputs, fixed: vec![], attrs: Attrs::new(), outputs: vec![0] }
}

fn floats(d: &mut Draw<'_>, shape: &[usize]) -> Option<Tensor> {
    let a = d.reals(shape, (-2.0, 2.0), &[]);
    let values: Vec<f32> = a.values.iter().map(|v| *v as f32).collect();
    Some(Tensor::new(shape, &values).unwrap())
}

fn optional(d: &mut Draw<'_>, shape: &[usize]) -> Option<Tensor> {
    if d.flag() { floats(d, shape) } else { None }
}

fn bytes(d: &mut Draw<'_>, shape: &[usize]) -> Option<Tensor> {
    let values: Vec<u8> = (0..shape.iter().product()).map(|_| d.below(256) as u8).collect();
    Some(Tensor::new(shape, &values).unwrap())
}

/// A product of bytes; what is on the left is quantised by the operator, or before.
fn integer_product(d: &mut Draw<'_>, dynamic: bool) -> Use {
    let (b, s, k, n) = (d.size(1..=2), d.size(1..=3), d.size(1..=4), d.size(1..=3));
    let columns = d.flag();
    let shape = if columns { vec![n] } else { vec![] };
    let scale = Tensor::new(shape.clone(), &vec![0.02f32; if columns { n } else { 1 }]).unwrap();
    let (w, zero, bias) = (bytes(d, &[k, n]), bytes(d, &shape), optional(d, &[n]));
    let mut u = match dynamic {
        true => plain(vec![floats(d, &[b, s, k]), w, Some(scale), zero, bias]),
        false => {
            let (q, q_scale, q_zero) = (bytes(d, &[b, s, k]), Tensor::scalar(0.1f32), Tensor::scalar(3u8));
            plain(vec![q, w, Some(q_scale), Some(scale), Some(q_zero), zero, bias])
        }
    };
    u.fixed = if dynamic { vec![1, 2, 3] } else { vec![1, 3, 5] };
    u
}

/// `[batch, sequence, width]`.
fn rows(d: &mut Draw<'_>, width: usize) -> Option<Tensor> {
    let (b, s) = (d.size(1..=3), d.size(1..=3));
    floats(d, &[b, s, width])
}

fn ints(d: &mut Draw<'_>, shape: &[usize], below: usize) -> Option<Tensor> {
    let values: Vec<i32> = (0..shape.iter().product()).map(|_| d.below(below) as i32).collect();
    Some(Tensor::new(shape, &values).unwrap())
}

fn longs(d: &mut Draw<'_>, shape: &[usize], below: usize) -> Option<Tensor> {
    let values: Vec<i64> = (0..shape.iter().product()).map(|_| d.below(below) as i64).collect();
    Some(Tensor::new(shape, &values).unwrap())
}

/// 0 and 1, with a 1 first in each row.
fn mask(d: &mut Draw<'_>, shape: &[usize]) -> Option<Tensor> {
    let last = *shape.last().unwrap();
    let count = shape.iter().product();
    let values: Vec<i32> = (0..count).map(|i: usize| i32::from(i.is_multiple_of(last) || d.flag())).collect();
    Some(Tensor::new(shape, &values).unwrap())
}

fn maybe(d: &mut Draw<'_>, u: &mut Use, name: &str, of: &[Attr]) {
    if d.flag() {
        let value = d.pick(of);
        u.attrs.insert(name.into(), value);
    }
}

fn set(u: &mut Use, name: &str, value: usize) {
    u.attrs.insert(name.into(), Attr::Int(value as i64));
}

fn fused_matmul(d: &mut Draw<'_>) -> Use {
    let (m, k, n) = (d.size(1..=3), d.size(1..=3), d.size(1..=3));
    let stack = d.shape(0..=2);
    let mut u = plain(vec![]);
    let mut factor = |d: &mut Draw<'_>, rows: usize, columns: usize, batch: &str, flip: &str| {
        let (flips, moves) = (d.flag(), d.flag() && !stack.is_empty());
        set(&mut u, flip, usize::from(flips));
        set(&mut u, batch, usize::from(moves));
        let (rows, columns) = if flips { (columns, rows) } else { (rows, columns) };
        let mut shape = stack.clone();
        shape.push(rows);
        if moves {
            shape.rotate_right(1);
        }
        shape.push(columns);
        floats(d, &shape)
    };
    let inputs = vec![factor(d, m, k, "transBatchA", "transA"), factor(d, k, n, "transBatchB", "transB")];
    u.inputs = inputs;
    maybe(d, &mut u, "alpha", &[Attr::Float(0.25), Attr::Float(-2.0)]);
    u
}

fn skip(d: &mut Draw<'_>, centred: bool) -> Use {
    let (b, s) = (d.size(1..=3), d.size(1..=3));
    let mut inputs = vec![floats(d, &[b, s, 4]), floats(d, &[b, s, 4]), floats(d, &[4])];
    if centred {
        inputs.push(optional(d, &[4]));
    }
    inputs.push(optional(d, &[4]));
    let mut u = plain(inputs);
    maybe(d, &mut u, "epsilon", &[Attr::Float(0.1)]);
    if d.flag() {
        u.outputs.push(3);
    }
    u
}

fn simplified(d: &mut Draw<'_>) -> Use {
    let mut u = plain(vec![rows(d, 4), floats(d, &[4])]);
    maybe(d, &mut u, "axis", &[Attr::Int(-1), Attr::Int(2)]);
    maybe(d, &mut u, "epsilon", &[Attr::Float(0.1)]);
    u
}

fn embed(d: &mut Draw<'_>) -> Use {
    let (b, s, segments) = (d.size(1..=3), d.size(1..=3), d.flag());
    let (with_mask, with_positions) = (d.flag(), d.flag());
    let mut u = plain(vec![
        ints(d, &[b, s], 7),
        if segments { ints(d, &[b, s], 2) } else { None },
        floats(d, &[7, 4]),
        floats(d, &[3, 4]),
        if segments { floats(d, &[2, 4]) } else { None },
        floats(d, &[4]),
        floats(d, &[4]),
        if with_mask { mask(d, &[b, s]) } else { None },
        if with_positions { ints(d, &[b, s], 3) } else { None },
    ]);
    u.fixed = vec![2, 3, 5, 6];
    // ONNX Runtime wants the lengths to be named.
    u.outputs.push(1);
    if d.flag() {
        u.outputs.push(2);
    }
    u
}

/// Positions below 6, and tables of that many rows.
fn angles(d: &mut Draw<'_>, half: usize) -> [Option<Tensor>; 2] {
    [floats(d, &[6, half]), floats(d, &[6, half])]
}

fn rotary(d: &mut Draw<'_>) -> Use {
    let (b, n, s) = (d.size(1..=3), d.size(1..=3), d.size(1..=3));
    let partial = d.flag();
    let half = if partial { 2 } else { 4 };
    let x = if d.flag() { floats(d, &[b, n, s, 8]) } else { floats(d, &[b, s, n * 8]) };
    let positions = if d.flag() { longs(d, &[1], 3) } else { longs(d, &[b, s], 6) };
    let [cos, sin] = angles(d, half);
    let mut u = plain(vec![x, positions, cos, sin]);
    u.fixed = vec![2, 3];
    maybe(d, &mut u, "interleaved", &[Attr::Int(1)]);
    if partial {
        set(&mut u, "rotary_embedding_dim", 4);
        set(&mut u, "num_heads", n);
    }
    u
}

fn rotary_standard(d: &mut Draw<'_>) -> Use {
    let (b, n, s) = (d.size(1..=3), d.size(1..=3), d.size(1..=3));
    let partial = d.flag();
    let half = if partial { 2 } else { 4 };
    let flat = d.flag();
    let x = if flat { floats(d, &[b, s, n * 8]) } else { floats(d, &[b, n, s, 8]) };
    let mut u = match d.flag() {
        true => {
            let (positions, [cos, sin]) = (longs(d, &[b, s], 6), angles(d, half));
            plain(vec![x, cos, sin, positions])
        }
        false => plain(vec![x, floats(d, &[b, s, half]), floats(d, &[b, s, half])]),
    };
    maybe(d, &mut u, "interleaved", &[Attr::Int(1)]);
    if flat {
        set(&mut u, "num_heads", n);
    }
    if partial {
        set(&mut u, "rotary_embedding_dim", 4);
    }
    u
}

fn attention(d: &mut Draw<'_>) -> Use {
    let (b, n, s, width) = (d.size(1..=3), d.size(1..=2), d.size(1..=4), 3);
    let hidden = n * 2;
    let of_values = if d.flag() { n * 3 } else { hidden };
    let all = 2 * hidden + of_values;
    let masked = match d.below(4) {
        0 => None,
        1 => Some(Tensor::vector(&(0..b).map(|_| d.size(1..=s) as i32).collect::<Vec<_>>())),
        2 => mask(d, &[b, s, s]),
        _ => mask(d, &[b, s]),
    };
    let bias = if d.flag() { floats(d, &[1, n, s, s]) } else { None };
    let inputs =
        vec![floats(d, &[b, s, width]), floats(d, &[width, all]), floats(d, &[all]), masked, None, bias];
    let mut u = plain(inputs);
    u.fixed = vec![1, 2];
    set(&mut u, "num_heads", n);
    if of_values != hidden {
        let sizes = [hidden, hidden, of_values].map(|n| n as i64);
        u.attrs.insert("qkv_hidden_sizes".into(), Attr::Ints(sizes.to_vec()));
    }
    maybe(d, &mut u, "unidirectional", &[Attr::Int(1)]);
    maybe(d, &mut u, "scale", &[Attr::Float(0.3)]);
    maybe(d, &mut u, "mask_filter_value", &[Attr::Float(-3.0)]);
    u
}

fn multi_head(d: &mut Draw<'_>) -> Use {
    let (b, n, s) = (d.size(1..=3), d.size(1..=2), d.size(1..=3));
    let t = if d.flag() { d.size(1..=3) } else { s };
    let of_values = if d.flag() { n * 3 } else { n * 2 };
    let masked = match d.below(3) {
        0 => None,
        1 => mask(d, &[b, s, t]),
        _ => mask(d, &[b, t]),
    };
    let extra = if d.flag() { floats(d, &[1, n, s, t]) } else { None };
    let mut u = plain(vec![
        floats(d, &[b, s, n * 2]),
        floats(d, &[b, t, n * 2]),
        floats(d, &[b, t, of_values]),
        optional(d, &[n * 4 + of_values]),
        masked,
        extra,
    ]);
    if d.flag() {
        u.fixed = vec![3];
    }
    set(&mut u, "num_heads", n);
    maybe(d, &mut u, "scale", &[Attr::Float(0.3)]);
    maybe(d, &mut u, "unidirectional", &[Attr::Int(1)]);
    u
}

fn group_query(d: &mut Draw<'_>) -> Use {
    let (b, own, times, s) = (d.size(1..=3), d.size(1..=2), d.size(1..=3), d.size(1..=4));
    // ONNX Runtime's kernel turns heads of a multiple of 16 only.
    let (n, head) = (own * times, 16);
    let packed = d.flag();
    let rotary = d.flag();
    let q = floats(d, &[b, s, (if packed { n + 2 * own } else { n }) * head]);
    let mut other = || if packed { None } else { floats(d, &[b, s, own * head]) };
    let (k, v) = (other(), other());
    let ends = Some(Tensor::vector(&(0..b).map(|_| d.size(1..=s) as i32 - 1).collect::<Vec<_>>()));
    let mut inputs = vec![q, k, v, None, None, ends, Some(Tensor::scalar(s as i32))];
    if rotary {
        inputs.extend(angles(d, head / 2));
        if d.flag() {
            inputs.push(longs(d, &[b, s], 7 - s));
        }
    }
    let mut u = plain(inputs);
    set(&mut u, "num_heads", n);
    set(&mut u, "kv_num_heads", own);
    set(&mut u, "do_rotary", usize::from(rotary));
    if rotary {
        maybe(d, &mut u, "rotary_interleaved", &[Attr::Int(1)]);
    }
    maybe(d, &mut u, "scale", &[Attr::Float(0.3)]);
    maybe(d, &mut u, "softcap", &[Attr::Float(1.5)]);
    maybe(d, &mut u, "local_window_size", &[Attr::Int(1), Attr::Int(2), Attr::Int(3)]);
    if u.attrs.contains_key("local_window_size") {
        // For padding that has nothing but padding in its window the kernel's own paths disagree.
        u.inputs[5] = Some(Tensor::vector(&vec![s as i32 - 1; b]));
    }
    // ONNX Runtime wants both or neither.
    if d.flag() {
        u.outputs.extend([1, 2]);
    }
    u
}

fn attention_standard(d: &mut Draw<'_>) -> Use {
    let (b, own, times, s, t) = (d.size(1..=3), d.size(1..=2), d.size(1..=3), d.size(1..=3), d.size(1..=3));
    let n = own * times;
    let flat = d.flag();
    let part = |d: &mut Draw<'_>, n: usize, s: usize, width: usize| match flat {
        true => floats(d, &[b, s, n * width]),
        false => floats(d, &[b, n, s, width]),
    };
    let (q, k, v) = (part(d, n, s, 4), part(d, own, t, 4), part(d, own, t, 2));
    let shape = d.pick(&[vec![s, t], vec![b, 1, s, t], vec![1, n, s, t]]);
    let causal = d.flag();
    let masked = match d.below(3) {
        0 => None,
        1 => floats(d, &shape),
        _ => {
            let seen = mask(d, &shape).unwrap().to_i64s().unwrap();
            let seen: Vec<bool> = seen.iter().map(|v| *v != 0).collect();
            Some(Tensor::new(shape, &seen).unwrap())
        }
    };
    let mut u = plain(vec![q, k, v, masked]);
    if flat {
        set(&mut u, "q_num_heads", n);
        set(&mut u, "kv_num_heads", own);
    }
    set(&mut u, "is_causal", usize::from(causal));
    maybe(d, &mut u, "scale", &[Attr::Float(0.3)]);
    maybe(d, &mut u, "softcap", &[Attr::Float(1.5)]);
    u
}

/// The graph of the one node. With `symbols`, leading sizes are not told: what has the same size has the same symbol.
fn graph(domain: &str, op: &str, u: &Use, symbols: bool) -> (Graph, Vec<(String, Tensor)>) {
    let standard = domain.is_empty() && op != "SimplifiedLayerNormalization";
    let mut g = Graph::new(op, if standard { 23 } else { onnx::WORKING_OPSET });
    if !domain.is_empty() {
        g.opsets.insert(domain.into(), 1);
    }
    let (mut inputs, mut fed) = (Vec::new(), Vec::new());
    for (k, t) in u.inputs.iter().enumerate() {
        let name = format!("x{k}");
        inputs.push(t.as_ref().map(|t| {
            if u.fixed.contains(&k) {
                return g.add_constant(&name, t.clone());
            }
            fed.push((name.clone(), t.clone()));
            let rank = t.shape().len();
            let dim = |(i, n): (usize, &usize)| match symbols
                && (rank > 1 && i == 0 && rank != 2 || rank == 1 && t.dtype() == DType::I32)
            {
                true => Dim::symbol(format!("n{n}")),
                false => Dim::from(*n),
            };
            let shape = t.shape().iter().enumerate().map(dim).collect();
            g.add_input(&name, t.dtype(), shape)
        }));
    }
    while inputs.last() == Some(&None) {
        inputs.pop();
    }
    let last = u.outputs.iter().max().unwrap();
    let made: Vec<_> = (0..=*last)
        .map(|k| u.outputs.contains(&k).then(|| g.add_value(&format!("y{k}"), Fact::default())))
        .collect();
    g.outputs = made.iter().flatten().copied().collect();
    let attrs = u.attrs.clone();
    let (op, domain, name) = (op.to_string(), domain.to_string(), "/module/node".to_string());
    g.nodes.push(Node { op, domain, name, inputs, outputs: made, attrs, metadata: vec![] });
    shape::infer(&mut g);
    (g, fed)
}

fn run(g: &Graph, fed: &[(String, Tensor)]) -> Result<Vec<(String, Tensor)>, String> {
    let runtime = runtime().ok_or("no runtime")?;
    let options = SessionOptions { threads: Some(1), ..SessionOptions::default() };
    let mut session = Session::new(runtime, &SessionSource::plain(onnx::to_bytes(g)), &options)
        .map_err(|e| e.to_string())?;
    let there: BTreeSet<String> = session.inputs().iter().map(|p| p.name.clone()).collect();
    let fed: Vec<(&str, &Tensor)> =
        fed.iter().filter(|(n, _)| there.contains(n)).map(|(n, t)| (n.as_str(), t)).collect();
    let names: Vec<&str> = g.outputs.iter().map(|o| g.name_of(*o)).collect();
    session.run(&fed, &names).and_then(|o| o.tensors()).map_err(|e| e.to_string())
}

/// What differs between the operator and what it is lowered to.
fn compare(domain: &str, op: &str, u: &Use, symbols: bool) -> Result<(), String> {
    let (original, fed) = graph(domain, op, u, symbols);
    let mut plain = original.clone();
    let counts = lower::lower(&mut plain);
    if counts.is_empty() {
        return Err("was not lowered".into());
    }
    if let Some(n) = plain.nodes.iter().find(|n| !n.domain.is_empty() || domain.is_empty() && n.op == op) {
        return Err(format!("{} is left", n.full_op()));
    }
    for (want, got) in run(&original, &fed)?.iter().zip(run(&plain, &fed)?) {
        if want.1.shape() != got.1.shape() || want.1.dtype() != got.1.dtype() {
            return Err(format!("{}: {:?} became {:?}", want.0, want.1, got.1));
        }
        let numbers = |t: &Tensor| {
            t.to_f64s().unwrap_or_else(|| t.to_i64s().unwrap().iter().map(|v| *v as f64).collect())
        };
        for (i, (a, b)) in numbers(&want.1).iter().zip(numbers(&got.1)).enumerate() {
            let close = (a - b).abs() <= 2e-5 * a.abs().max(1.0);
            if !close {
                return Err(format!("{}[{i}] is {a}, lowered {b}", want.0));
            }
        }
    }
    Ok(())
}

#[test]
fn every_lowered_operator_has_a_row() {
    let own = OWN_TESTS.iter().map(|op| ("", *op));
    let rows: BTreeSet<(&str, &str)> = ROWS.iter().map(|r| (r.0, r.1)).chain(own).collect();
    assert_eq!(rows, lower::lowered().collect());
}

/// Operators of which ONNX Runtime has no kernel, or that take no tensors.
const OWN_TESTS: [&str; 5] = ["LSTM", "GRU", "SequenceAt", "SequenceLength", "ConcatFromSequence"];

#[test]
fn operators_and_what_they_are_lowered_to_give_the_same() {
    if runtime().is_none() {
        return;
    }
    let mut failures = Vec::new();
    for (domain, op, make) in ROWS {
        let mut runner =
            TestRunner::new(Config { cases: CASES, failure_persistence: None, ..Config::default() });
        let result = runner.run(&vec(any::<u16>(), 64), |choices| {
            let mut d = Draw::new(&choices);
            let symbols = d.flag();
            let u = make(&mut d);
            compare(domain, op, &u, symbols).map_err(|e| {
                let shapes: Vec<_> = u.inputs.iter().flatten().map(|t| t.shape().to_vec()).collect();
                TestCaseError::fail(format!("{e}\n{shapes:?} symbols {symbols} {:?}", u.attrs))
            })
        });
        failures.extend(result.err().map(|e| match e {
            // The choices say nothing; the case that they led to is in the reason.
            TestError::Fail(why, _) => format!("{domain} {op}: {why}"),
            e => format!("{domain} {op}: {e}"),
        }));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}
