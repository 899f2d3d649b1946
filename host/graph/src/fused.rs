//! Operators of Graft's own domain. Each is a table row with a decomposition in standard operators, which goes into
//! the model as a function: a runtime that has a kernel for the operator uses it, any other inlines the body.

use crate::builder::Builder;
use crate::dim::Dim;
use crate::ir::{Attr, Attrs, Fact, Function, GRAFT_DOMAIN, Graph, Node, ValueId};
use crate::tensor::DType;

/// An operator of Graft's own domain.
pub struct Fused {
    /// Operator name.
    pub name: &'static str,
    /// Names of the inputs, in order.
    pub inputs: &'static [&'static str],
    /// Names of the attributes.
    pub attributes: &'static [&'static str],
    /// Which input has the type and shape of the single output.
    pub like: usize,
    /// The decomposition: from the inputs to the output.
    body: fn(&mut Builder<'_>, &[ValueId]) -> ValueId,
}

/// Every operator of Graft's own domain.
pub const FUSED: &[Fused] = &[
    // dx = dy · (Φ(x) + x·φ(x)), the derivative of the exact Gelu (Hendrycks & Gimpel 2016).
    Fused { name: "GeluGrad", inputs: &["dy", "x"], attributes: &[], like: 1, body: gelu_grad },
    // Gradient of LayerNormalization over the last axis with respect to its input (Ba et al. 2016).
    Fused {
        name: "LayerNormGrad",
        inputs: &["dy", "x", "scale"],
        attributes: &["epsilon"],
        like: 1,
        body: layer_norm_grad,
    },
    // y = x/√(mean(x²) + ε) · scale over the last axis (Zhang & Sennrich 2019).
    Fused { name: "RMSNorm", inputs: &["x", "scale"], attributes: &["epsilon"], like: 0, body: rms_norm },
    // dx = y · (dy − Σ dy·y), softmax over the last axis; y is its output.
    Fused { name: "SoftmaxGrad", inputs: &["dy", "y"], attributes: &[], like: 1, body: softmax_grad },
];

/// The row of an operator, if Graft's domain has it.
pub fn find(domain: &str, op: &str) -> Option<&'static Fused> {
    FUSED.iter().find(|f| domain == GRAFT_DOMAIN && f.name == op)
}

/// Shape and type of the output of a fused node.
pub(crate) fn infer(graph: &Graph, node: &Node) -> Option<Vec<Fact>> {
    let f = find(&node.domain, &node.op)?;
    let like = graph.fact(node.input(f.like)?);
    Some(vec![Fact { elements: None, ..like.clone() }])
}

/// Emits a fused operator; its decomposition joins the model's functions with the first use.
pub fn emit(b: &mut Builder<'_>, name: &str, inputs: &[ValueId], attrs: &[(&str, Attr)]) -> ValueId {
    if let Some(f) = find(GRAFT_DOMAIN, name) {
        declare(b.graph, f);
    }
    let attrs: Attrs = attrs.iter().map(|(k, v)| (k.to_string(), v.clone())).collect();
    let inputs: Vec<Option<ValueId>> = inputs.iter().copied().map(Some).collect();
    b.emit(name, GRAFT_DOMAIN, &inputs, attrs, 1)[0]
}

/// Makes the operator known in `graph`: its decomposition joins the model's functions, once.
pub fn declare(graph: &mut Graph, f: &Fused) {
    if !graph.functions.iter().any(|g| g.domain == GRAFT_DOMAIN && g.name == f.name) {
        graph.functions.push(function(f));
        graph.opsets.insert(GRAFT_DOMAIN.into(), 1);
    }
}

/// The operator as a model-local function.
pub fn function(f: &Fused) -> Function {
    let mut body = Graph::new(f.name, crate::onnx::WORKING_OPSET);
    let shape = || vec![Dim::from("rows"), Dim::from("width")];
    let inputs: Vec<ValueId> = f.inputs.iter().map(|n| body.add_input(n, DType::F32, shape())).collect();
    let mut b = Builder::new(&mut body, "");
    let out = (f.body)(&mut b, &inputs);
    body.outputs = vec![out];
    let attributes = f.attributes.iter().map(|a| a.to_string()).collect();
    Function { domain: GRAFT_DOMAIN.into(), name: f.name.into(), body, attributes }
}

/// A constant of the type that `like` has: the function serves every float type.
fn like(b: &mut Builder<'_>, value: f32, like: ValueId) -> ValueId {
    let c = b.scalar(value);
    b.op("CastLike", &[c, like])
}

fn gelu_grad(b: &mut Builder<'_>, i: &[ValueId]) -> ValueId {
    let (dy, x) = (i[0], i[1]);
    let scaled = like(b, std::f32::consts::FRAC_1_SQRT_2, x);
    let z = b.op("Mul", &[x, scaled]);
    let erf = b.op("Erf", &[z]);
    let one = like(b, 1.0, x);
    let half = like(b, 0.5, x);
    let up = b.op("Add", &[erf, one]);
    let cdf = b.op("Mul", &[up, half]);
    let square = b.op("Mul", &[z, z]);
    let minus = b.op("Neg", &[square]);
    let bell = b.op("Exp", &[minus]);
    // 1/√(2π)
    let norm = like(b, 0.398_942_3, x);
    let pdf = b.op("Mul", &[bell, norm]);
    let slope = b.op("Mul", &[x, pdf]);
    let d = b.op("Add", &[cdf, slope]);
    b.op("Mul", &[dy, d])
}

fn last_axis_mean(b: &mut Builder<'_>, x: ValueId) -> ValueId {
    let axes = b.ints(&[-1]);
    b.op("ReduceMean", &[x, axes])
}

/// The attribute `epsilon` as a scalar of the type that `x` has.
fn epsilon(b: &mut Builder<'_>, x: ValueId) -> ValueId {
    let reference = Attrs::from([("value_float".to_string(), Attr::Reference("epsilon".into(), 1))]);
    let eps = b.emit("Constant", "", &[], reference, 1)[0];
    b.op("CastLike", &[eps, x])
}

fn layer_norm_grad(b: &mut Builder<'_>, i: &[ValueId]) -> ValueId {
    let (dy, x, scale) = (i[0], i[1], i[2]);
    let eps = epsilon(b, x);
    let (xhat, inv) = normalised(b, x, eps);
    let g = b.op("Mul", &[dy, scale]);
    normalised_grad(b, g, xhat, inv)
}

/// `(x − mean)/√(var + ε)` over the last axis, and `1/√(var + ε)`.
fn normalised(b: &mut Builder<'_>, x: ValueId, eps: ValueId) -> (ValueId, ValueId) {
    let mean = last_axis_mean(b, x);
    let centred = b.op("Sub", &[x, mean]);
    let square = b.op("Mul", &[centred, centred]);
    let var = last_axis_mean(b, square);
    let var = b.op("Add", &[var, eps]);
    let std = b.op("Sqrt", &[var]);
    let inv = b.op("Reciprocal", &[std]);
    (b.op("Mul", &[centred, inv]), inv)
}

/// The gradient through the normalisation: `inv·(g − mean(g) − x̂·mean(g·x̂))`.
fn normalised_grad(b: &mut Builder<'_>, g: ValueId, xhat: ValueId, inv: ValueId) -> ValueId {
    let mean = last_axis_mean(b, g);
    let gx = b.op("Mul", &[g, xhat]);
    let along = last_axis_mean(b, gx);
    let along = b.op("Mul", &[xhat, along]);
    let d = b.op("Sub", &[g, mean]);
    let d = b.op("Sub", &[d, along]);
    b.op("Mul", &[d, inv])
}

fn rms_norm(b: &mut Builder<'_>, i: &[ValueId]) -> ValueId {
    let (x, scale) = (i[0], i[1]);
    let eps = epsilon(b, x);
    let square = b.op("Mul", &[x, x]);
    let mean = last_axis_mean(b, square);
    let sum = b.op("Add", &[mean, eps]);
    let root = b.op("Sqrt", &[sum]);
    let inv = b.op("Reciprocal", &[root]);
    let xhat = b.op("Mul", &[x, inv]);
    b.op("Mul", &[xhat, scale])
}

fn softmax_grad(b: &mut Builder<'_>, i: &[ValueId]) -> ValueId {
    let (dy, y) = (i[0], i[1]);
    let p = b.op("Mul", &[dy, y]);
    let axes = b.ints(&[-1]);
    let sum = b.op("ReduceSum", &[p, axes]);
    let d = b.op("Sub", &[dy, sum]);
    b.op("Mul", &[y, d])
}
