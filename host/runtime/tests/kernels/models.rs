//! Models of one node of domain `graft` each, with the function that says what the node means.

#![allow(dead_code, reason = "tests and benchmark use their parts")]

use graft_graph::fused::{
    self, BANK_DOWN, BANK_LOW_RANK, BANK_LOW_RANK_BIAS, BANK_LOW_RANK_HEADS, BANK_LOW_RANK_RESIDUAL, BANK_UP,
};
use graft_graph::{Builder, DType, Dim, Graph as Ir, ValueId, onnx};
use graft_runtime::SessionSource;

use crate::common::*;

/// A model of one node of domain `graft`, with the function that says what it means.
fn with_function(
    call: Node,
    shapes: &[&[&str]],
    outputs: &[&[&str]],
    body: Vec<Node>,
    attributes: &[&str],
) -> Model {
    let inputs: Vec<(&str, &[&str])> =
        call.input.iter().map(String::as_str).zip(shapes.iter().copied()).collect();
    let named: Vec<(&str, &[&str])> =
        call.output.iter().map(String::as_str).zip(outputs.iter().copied()).collect();
    let mut m = model(&inputs, &named, vec![call.clone()]);
    m.functions.push(Function {
        name: call.op_type.clone(),
        domain: "graft".into(),
        input: call.input.clone(),
        output: call.output.clone(),
        attribute: attributes.iter().map(|a| a.to_string()).collect(),
        node: body,
        opset_import: vec![opset("", 17)],
    });
    m
}

fn scalar(output: &str, value: f32) -> Node {
    node("Constant", &[], &[output]).tensor("value", floats("", &[], &[value]))
}

const ANY4: &[&str] = &["a", "b", "c", "d"];

pub fn gelu_grad() -> Model {
    let body = vec![
        scalar("root", std::f32::consts::FRAC_1_SQRT_2),
        scalar("half", 0.5),
        scalar("one", 1.0),
        scalar("minus", -0.5),
        scalar("density", 0.398_942_3),
        node("Mul", &["x", "root"], &["z"]),
        node("Erf", &["z"], &["e"]),
        node("Add", &["e", "one"], &["e1"]),
        node("Mul", &["e1", "half"], &["cumulative"]),
        node("Mul", &["x", "x"], &["xx"]),
        node("Mul", &["xx", "minus"], &["u"]),
        node("Exp", &["u"], &["bell"]),
        node("Mul", &["bell", "density"], &["pdf"]),
        node("Mul", &["x", "pdf"], &["xp"]),
        node("Add", &["cumulative", "xp"], &["slope"]),
        node("Mul", &["dy", "slope"], &["dx"]),
    ];
    let call = node("GeluGrad", &["dy", "x"], &["dx"]).domain("graft");
    with_function(call, &[ANY4, ANY4], &[ANY4], body, &[])
}

pub fn softmax_grad(axis: i64) -> Model {
    let body = vec![
        node("Constant", &[], &["axes"]).refers("value_int", "axis", 2),
        node("Constant", &[], &["minus1"]).tensor("value", ints("", &[1], &[-1])),
        node("Reshape", &["axes", "minus1"], &["axes1"]),
        node("Mul", &["dy", "y"], &["p"]),
        node("ReduceSum", &["p", "axes1"], &["s"]).int("keepdims", 1),
        node("Sub", &["dy", "s"], &["d"]),
        node("Mul", &["y", "d"], &["dx"]),
    ];
    let call = node("SoftmaxGrad", &["dy", "y"], &["dx"]).domain("graft").int("axis", axis);
    with_function(call, &[ANY4, ANY4], &[ANY4], body, &["axis"])
}

/// Normalisation over the last axis, with all three gradients.
pub fn layer_norm_grad() -> Model {
    let mean = |from: &str, to: &str| {
        let mut n = node("ReduceMean", &[from], &[to]).int("keepdims", 1);
        n.attribute.push(Attr { name: "axes".into(), ints: vec![-1], kind: 7, ..Attr::default() });
        n
    };
    let rows = |from: &str, to: &str| node("ReduceSum", &[from, "outer"], &[to]).int("keepdims", 0);
    let body = vec![
        node("Constant", &[], &["eps"]).refers("value_float", "epsilon", 1),
        node("Constant", &[], &["outer"]).tensor("value", ints("", &[3], &[0, 1, 2])),
        mean("x", "mu"),
        node("Sub", &["x", "mu"], &["c"]),
        node("Mul", &["c", "c"], &["cc"]),
        mean("cc", "var"),
        node("Add", &["var", "eps"], &["ve"]),
        node("Sqrt", &["ve"], &["std"]),
        node("Div", &["c", "std"], &["xhat"]),
        node("Mul", &["dy", "scale"], &["g"]),
        mean("g", "gm"),
        node("Mul", &["g", "xhat"], &["gx"]),
        mean("gx", "gxm"),
        node("Mul", &["xhat", "gxm"], &["back"]),
        node("Sub", &["g", "gm"], &["g1"]),
        node("Sub", &["g1", "back"], &["g2"]),
        node("Div", &["g2", "std"], &["dx"]),
        node("Mul", &["dy", "xhat"], &["dyx"]),
        rows("dyx", "dscale"),
        rows("dy", "dbias"),
    ];
    let call = node("LayerNormGrad", &["dy", "x", "scale"], &["dx", "dscale", "dbias"])
        .domain("graft")
        .int("axis", -1)
        .float("epsilon", 1e-5);
    with_function(call, &[ANY4, ANY4, &["d"]], &[ANY4, &["d"], &["d"]], body, &["axis", "epsilon"])
}

/// The same with the gradient of `x` alone.
pub fn layer_norm_dx() -> Model {
    let mut m = layer_norm_grad();
    let g = m.graph.as_mut().expect("model() sets it");
    g.output.truncate(1);
    g.node[0].output.truncate(1);
    let f = &mut m.functions[0];
    f.output.truncate(1);
    f.node.truncate(f.node.len() - 3);
    m
}

/// ONNX's own Gelu; wants opset 20.
pub fn gelu_forward() -> Model {
    model(&[("x", ANY4)], &[("y", ANY4)], vec![node("Gelu", &["x"], &["y"])])
}

/// Names and shapes of an operator's inputs; integers where the name begins with "rows".
pub type Inputs = &'static [(&'static str, &'static [&'static str])];

pub const DOWN: (&str, Inputs) =
    (BANK_DOWN, &[("x", &["batch", "seq", "in"]), ("bank", &["any", "in"]), ("rows", &["batch", "rank"])]);
pub const UP: (&str, Inputs) =
    (BANK_UP, &[("x", &["batch", "seq", "rank"]), ("bank", &["any", "out"]), ("rows", &["batch", "rank"])]);
/// The same without the last inputs.
pub const LOW_RANK: (&str, Inputs) = (BANK_LOW_RANK, LOW_RANK_RESIDUAL.1.split_at(7).0);
pub const LOW_RANK_BIAS: (&str, Inputs) = (BANK_LOW_RANK_BIAS, LOW_RANK_RESIDUAL.1.split_at(8).0);
pub const LOW_RANK_RESIDUAL: (&str, Inputs) = (
    BANK_LOW_RANK_RESIDUAL,
    &[
        ("y", &["batch", "seq", "out"]),
        ("x", &["batch", "seq", "in"]),
        ("a", &["any_a", "in"]),
        ("rows_a", &["batch", "rank"]),
        ("b", &["any_b", "out"]),
        ("rows_b", &["batch", "rank"]),
        ("scale", &["batch"]),
        ("bias", &["out"]),
        ("residual", &["batch", "seq", "out"]),
    ],
);

/// An update with a bias, cut into heads by the operator itself or by others behind it.
pub fn heads(together: bool, heads: i64) -> SessionSource {
    let (mut g, values) = with_inputs(LOW_RANK_BIAS.1);
    let mut b = Builder::new(&mut g, "");
    let count = ("heads", graft_graph::Attr::Ints(vec![heads]));
    let out = if together {
        fused::emit(&mut b, BANK_LOW_RANK_HEADS, &values, &[count])
    } else {
        let out = fused::emit(&mut b, BANK_LOW_RANK_BIAS, &values, &[]);
        let shape = b.ints(&[0, 0, heads, -1]);
        let cut = b.op("Reshape", &[out, shape]);
        b.op_with("Transpose", &[cut], &[("perm", graft_graph::Attr::Ints(vec![0, 2, 1, 3]))])
    };
    g.outputs = vec![out];
    SessionSource::plain(onnx::to_bytes(&g))
}

/// A model of one of the operators; `around` makes its first input from the graph's and the outputs from its own.
pub fn bank_model(
    (op, inputs): (&str, Inputs),
    around: impl Fn(&mut Builder<'_>, &dyn Fn(&mut Builder<'_>, ValueId) -> ValueId, ValueId) -> Vec<ValueId>,
) -> SessionSource {
    let (mut g, values) = with_inputs(inputs);
    let node = |b: &mut Builder<'_>, first: ValueId| {
        let inputs: Vec<ValueId> = [first].into_iter().chain(values[1..].iter().copied()).collect();
        fused::emit(b, op, &inputs, &[])
    };
    let outputs = around(&mut Builder::new(&mut g, ""), &node, values[0]);
    g.outputs = outputs;
    SessionSource::plain(onnx::to_bytes(&g))
}

/// An update of what another node makes and a bias: by one operator, or by an addition and another.
pub fn biased_product(together: bool) -> SessionSource {
    let (mut g, values) = with_inputs(LOW_RANK_BIAS.1);
    let mut b = Builder::new(&mut g, "");
    let mut inputs = values;
    inputs[0] = b.op("Neg", &[inputs[0]]);
    let mut op = BANK_LOW_RANK_BIAS;
    if !together {
        let bias = inputs.remove(7);
        inputs[0] = b.op("Add", &[inputs[0], bias]);
        op = BANK_LOW_RANK;
    }
    let out = fused::emit(&mut b, op, &inputs, &[]);
    g.outputs = vec![out];
    SessionSource::plain(onnx::to_bytes(&g))
}

fn with_inputs(inputs: Inputs) -> (Ir, Vec<ValueId>) {
    let mut g = Ir::new("g", onnx::WORKING_OPSET);
    let mut values = Vec::new();
    for (name, shape) in inputs {
        let dtype = if name.starts_with("rows") { DType::I64 } else { DType::F32 };
        values.push(g.add_input(name, dtype, shape.iter().map(|d| Dim::from(*d)).collect()));
    }
    (g, values)
}
