//! Operators of Graft's own domain. Each is a table row with a decomposition in standard operators, which goes into
//! the model as a function: a runtime that has a kernel for the operator uses it, any other inlines the body.

mod bank;

use crate::builder::Builder;
use crate::dim::Dim;
use crate::ir::{Attr, Attrs, Fact, Function, GRAFT_DOMAIN, Graph, Node, ValueId};
use crate::shape::matmul;
use crate::tensor::DType;

/// An operator of Graft's own domain.
pub struct Fused {
    /// Operator name.
    pub name: &'static str,
    /// Names of the inputs, in order.
    pub inputs: &'static [&'static str],
    /// Names of the attributes.
    pub attributes: &'static [&'static str],
    /// Types and shapes of the outputs.
    facts: fn(&Graph, &Node) -> Option<Vec<Fact>>,
    /// The decomposition: from the inputs to the outputs.
    body: fn(&mut Builder<'_>, &[ValueId]) -> Vec<ValueId>,
}

/// Scaled dot-product attention.
pub const ATTENTION: &str = "Attention";
/// The same, but a query that sees no key at all gets zeros.
pub const GUARDED_ATTENTION: &str = "GuardedAttention";
/// Product with the rows of a bank as columns: a row of a batch meets the rows of its own adapter.
pub const BANK_DOWN: &str = "BankDown";
/// Product with the rows of a bank.
pub const BANK_UP: &str = "BankUp";
/// What the adapters of a batch of low-rank ones add to a product.
pub const BANK_LOW_RANK: &str = "BankLowRank";
/// The same to a product with a bias that is yet to be added.
pub const BANK_LOW_RANK_BIAS: &str = "BankLowRankBias";
/// The same, and then added to what went around it.
pub const BANK_LOW_RANK_RESIDUAL: &str = "BankLowRankResidual";
/// The same as with a bias, cut into the heads of an attention.
pub const BANK_LOW_RANK_HEADS: &str = "BankLowRankHeads";

/// Every operator of Graft's own domain.
pub const FUSED: &[Fused] = &[
    // dx = dy · (Φ(x) + x·φ(x)), the derivative of the exact Gelu (Hendrycks & Gimpel 2016).
    Fused {
        name: "GeluGrad",
        inputs: &["dy", "x"],
        attributes: &[],
        facts: |g, n| like(g, n, 1),
        body: gelu_grad,
    },
    // Gradient of LayerNormalization over the last axis with respect to its input (Ba et al. 2016).
    Fused {
        name: "LayerNormGrad",
        inputs: &["dy", "x", "scale"],
        attributes: &["epsilon"],
        facts: |g, n| like(g, n, 1),
        body: layer_norm_grad,
    },
    // y = x/√(mean(x²) + ε) · scale over the last axis (Zhang & Sennrich 2019).
    Fused {
        name: "RMSNorm",
        inputs: &["x", "scale"],
        attributes: &["epsilon"],
        facts: |g, n| like(g, n, 0),
        body: rms_norm,
    },
    // dx = y · (dy − Σ dy·y), softmax over the last axis; y is its output.
    Fused {
        name: "SoftmaxGrad",
        inputs: &["dy", "y"],
        attributes: &[],
        facts: |g, n| like(g, n, 1),
        body: softmax_grad,
    },
    // p = softmax(scale·q·k + bias) over the last axis, y = p·v (Vaswani et al. 2017). Queries are `[…, queries, dim]`,
    // keys `[…, dim, keys]` as the product takes them, values `[…, keys, width]`; the bias broadcasts to `p`.
    Fused {
        name: ATTENTION,
        inputs: &["q", "k", "v", "bias"],
        attributes: &["scale"],
        facts: attention_facts,
        body: |b, i| {
            let p = attention_weights(b, i);
            vec![b.op("MatMul", &[p, i[2]]), p]
        },
    },
    Fused {
        name: GUARDED_ATTENTION,
        inputs: &["q", "k", "v", "bias"],
        attributes: &["scale"],
        facts: attention_facts,
        body: |b, i| {
            let p = attention_weights(b, i);
            let (none, zero) = (b.op("IsNaN", &[p]), constant_like(b, 0.0, i[0]));
            let p = b.op("Where", &[none, zero, p]);
            vec![b.op("MatMul", &[p, i[2]]), p]
        },
    },
    bank::DOWN,
    bank::UP,
    bank::LOW_RANK,
    bank::LOW_RANK_BIAS,
    bank::LOW_RANK_RESIDUAL,
    bank::LOW_RANK_HEADS,
];

/// Whether a node is one of the two attention operators.
pub fn is_attention(node: &Node) -> bool {
    node.domain == GRAFT_DOMAIN && [ATTENTION, GUARDED_ATTENTION].contains(&node.op.as_str())
}

/// The row of an operator, if Graft's domain has it.
pub fn find(domain: &str, op: &str) -> Option<&'static Fused> {
    FUSED.iter().find(|f| domain == GRAFT_DOMAIN && f.name == op)
}

/// Puts the decomposition of every attention operator in its place; what it gives keeps its values.
pub(crate) fn expand_attention(graph: &mut Graph) {
    let known = |n: &str| n == ATTENTION || n == GUARDED_ATTENTION;
    // The bodies call nothing, so that they can't call each other without end.
    let done = crate::functions::inline(graph, &|f| f.domain == GRAFT_DOMAIN && known(&f.name));
    debug_assert!(done.is_ok(), "{done:?}");
}

/// Shapes and types of the outputs of a fused node.
pub(crate) fn infer(graph: &Graph, node: &Node) -> Option<Vec<Fact>> {
    if crate::batch::virtual_tokens::is_virtual(node) {
        return like(graph, node, 0);
    }
    (find(&node.domain, &node.op)?.facts)(graph, node)
}

/// One output of the type and shape of an input.
fn like(graph: &Graph, node: &Node, input: usize) -> Option<Vec<Fact>> {
    let like = graph.fact(node.input(input)?);
    Some(vec![Fact { elements: None, ..like.clone() }])
}

/// What attention gives, and its weights.
fn attention_facts(graph: &Graph, node: &Node) -> Option<Vec<Fact>> {
    let shape = |k: usize| graph.shape(node.input(k)?);
    let weights = matmul(shape(0)?, shape(1)?);
    let y = weights.as_ref().and_then(|w| matmul(w, shape(2)?));
    let dtype = graph.dtype(node.input(0)?);
    Some([y, weights].map(|shape| Fact { dtype, shape, elements: None }).to_vec())
}

fn attention_weights(b: &mut Builder<'_>, i: &[ValueId]) -> ValueId {
    let scale = attribute(b, "scale", i[0]);
    let q = b.op("Mul", &[i[0], scale]);
    let scores = b.op("MatMul", &[q, i[1]]);
    let scores = b.op("Add", &[scores, i[3]]);
    b.op_with("Softmax", &[scores], &[("axis", Attr::Int(-1))])
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
    body.outputs = (f.body)(&mut b, &inputs);
    let attributes = f.attributes.iter().map(|a| a.to_string()).collect();
    Function { domain: GRAFT_DOMAIN.into(), name: f.name.into(), body, attributes }
}

/// A constant of the type that `like` has: the function serves every float type.
fn constant_like(b: &mut Builder<'_>, value: f32, like: ValueId) -> ValueId {
    let c = b.scalar(value);
    b.op("CastLike", &[c, like])
}

fn gelu_grad(b: &mut Builder<'_>, i: &[ValueId]) -> Vec<ValueId> {
    let (dy, x) = (i[0], i[1]);
    let scaled = constant_like(b, std::f32::consts::FRAC_1_SQRT_2, x);
    let z = b.op("Mul", &[x, scaled]);
    let erf = b.op("Erf", &[z]);
    let one = constant_like(b, 1.0, x);
    let half = constant_like(b, 0.5, x);
    let up = b.op("Add", &[erf, one]);
    let cdf = b.op("Mul", &[up, half]);
    let square = b.op("Mul", &[z, z]);
    let minus = b.op("Neg", &[square]);
    let bell = b.op("Exp", &[minus]);
    // 1/√(2π)
    let norm = constant_like(b, 0.398_942_3, x);
    let pdf = b.op("Mul", &[bell, norm]);
    let slope = b.op("Mul", &[x, pdf]);
    let d = b.op("Add", &[cdf, slope]);
    vec![b.op("Mul", &[dy, d])]
}

fn last_axis_mean(b: &mut Builder<'_>, x: ValueId) -> ValueId {
    let axes = b.ints(&[-1]);
    b.op("ReduceMean", &[x, axes])
}

/// A float attribute of the operator as a scalar of the type that `x` has.
fn attribute(b: &mut Builder<'_>, name: &str, x: ValueId) -> ValueId {
    let reference = Attrs::from([("value_float".to_string(), Attr::Reference(name.into(), 1))]);
    let number = b.emit("Constant", "", &[], reference, 1)[0];
    b.op("CastLike", &[number, x])
}

fn layer_norm_grad(b: &mut Builder<'_>, i: &[ValueId]) -> Vec<ValueId> {
    let (dy, x, scale) = (i[0], i[1], i[2]);
    let eps = attribute(b, "epsilon", x);
    let (xhat, inv) = normalised(b, x, eps);
    let g = b.op("Mul", &[dy, scale]);
    vec![normalised_grad(b, g, xhat, inv)]
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

fn rms_norm(b: &mut Builder<'_>, i: &[ValueId]) -> Vec<ValueId> {
    let (x, scale) = (i[0], i[1]);
    let eps = attribute(b, "epsilon", x);
    let square = b.op("Mul", &[x, x]);
    let mean = last_axis_mean(b, square);
    let sum = b.op("Add", &[mean, eps]);
    let root = b.op("Sqrt", &[sum]);
    let inv = b.op("Reciprocal", &[root]);
    let xhat = b.op("Mul", &[x, inv]);
    vec![b.op("Mul", &[xhat, scale])]
}

fn softmax_grad(b: &mut Builder<'_>, i: &[ValueId]) -> Vec<ValueId> {
    let (dy, y) = (i[0], i[1]);
    let p = b.op("Mul", &[dy, y]);
    let axes = b.ints(&[-1]);
    let sum = b.op("ReduceSum", &[p, axes]);
    let d = b.op("Sub", &[dy, sum]);
    vec![b.op("Mul", &[y, d])]
}
