//! `grad`: reverse-mode differentiation of a graph into a graph.
//!
//! The engine walks the nodes between the wanted values and the seeded outputs backwards, asks one rule an operator
//! for the gradients of its inputs, undoes broadcasting, and adds up contributions. The rules are tables
//! (`elementwise`, `linear`, `movement`, `reduce`), one row an operator.

mod activation;
mod attention;
mod broadcast;
mod conv;
mod einsum;
mod elementwise;
mod fourier;
mod linear;
mod loss;
mod manual;
mod model;
mod movement;
mod norm;
mod pool;
mod quant;
mod recurrent;
mod reduce;
mod scatter;
mod sliding;
mod trig;
mod window;

pub use manual::manual;
pub use model::{GradientModel, cotangents, expose, gradient_model};

use std::collections::HashMap;
use std::sync::OnceLock;

use crate::builder::Builder;
use crate::dim::Shape;
use crate::ir::{Attr, Graph, Node, ValueId, captured};
use crate::shape;
use crate::sites::module_path;
use crate::tensor::DType;

/// Why a gradient can't be derived. Raised before anything runs.
#[derive(Debug, thiserror::Error)]
pub enum GradError {
    /// The table has no row for the operator.
    #[error(
        "operator {op} has no gradient rule (node '{node}', module '{module}'), and it lies between the trainable \
         parameters and the loss. Train only what comes after it, or use a method that leaves the base alone \
         (--method linear-probe)"
    )]
    NoRule {
        /// Operator with its domain.
        op: String,
        /// Name of the node.
        node: String,
        /// Module path of the node, where known.
        module: String,
    },
    /// The row does not cover this use of the operator.
    #[error("operator {op} (node '{node}', module '{module}'): {detail}")]
    Unsupported {
        /// Operator with its domain.
        op: String,
        /// Name of the node.
        node: String,
        /// Module path of the node, where known.
        module: String,
        /// What is not covered.
        detail: String,
    },
    /// Nothing leads from the value to a seeded output.
    #[error("'{value}' has no influence on the outputs that gradients are asked of ({outputs})")]
    NoPath {
        /// The value.
        value: String,
        /// The seeded outputs.
        outputs: String,
    },
    /// A gradient is asked of a value that is not there.
    #[error("the graph has no value '{value}' to take a gradient of")]
    UnknownValue {
        /// The name asked for.
        value: String,
    },
    /// An output's shape can't be inferred, so its cotangent can't be declared.
    #[error("the shape of output '{value}' can't be inferred{since}; gradients need it")]
    UnknownShape {
        /// The output.
        value: String,
        /// The operator that keeps it from being known, in words that go on with the sentence.
        since: String,
    },
    /// Gradients exist for floating-point values only.
    #[error("'{value}' is of type {dtype}; only floating-point values have gradients")]
    NotFloat {
        /// The value.
        value: String,
        /// Its type.
        dtype: DType,
    },
}

/// What a rule works with: the node, the gradients of its outputs, and a builder.
pub(crate) struct Rule<'a, 'g> {
    pub(crate) b: &'a mut Builder<'g>,
    pub(crate) node: &'a Node,
    /// Gradient of each output; `None` where nothing depends on it.
    outputs: Vec<Option<ValueId>>,
    /// Which inputs need a gradient.
    pub(crate) wanted: Vec<bool>,
}

/// Gradients of the inputs, in order; `None` for those that carry none. A missing tail counts as `None`.
pub(crate) type Grads = Result<Vec<Option<ValueId>>, String>;
/// From the gradients of a node's outputs to those of its inputs.
pub(crate) type RuleFn = fn(&mut Rule<'_, '_>) -> Grads;
/// One row: operator; what a user should know of it (ties, zeros, limits; may be empty), for the manual; rule.
pub(crate) type Row = (&'static str, &'static str, RuleFn);

impl Rule<'_, '_> {
    /// Input `i`.
    pub(crate) fn x(&self, i: usize) -> Result<ValueId, String> {
        self.node.input(i).ok_or_else(|| format!("input {i} is missing"))
    }
    /// Output `i` of the forward node.
    pub(crate) fn y(&self, i: usize) -> Result<ValueId, String> {
        self.node.output(i).ok_or_else(|| format!("output {i} is missing"))
    }
    /// Gradient of output 0.
    pub(crate) fn dy(&self) -> Result<ValueId, String> {
        self.outputs[0].ok_or_else(|| "the gradient reaches only a secondary output".into())
    }
    /// Gradient of output `i`, if anything depends on it.
    pub(crate) fn dy_of(&self, i: usize) -> Option<ValueId> {
        self.outputs.get(i).copied().flatten()
    }
    pub(crate) fn wants(&self, i: usize) -> bool {
        self.wanted.get(i).copied().unwrap_or(false)
    }
    pub(crate) fn dtype(&self, v: ValueId) -> DType {
        self.b.graph.dtype(v).unwrap_or(DType::F32)
    }
    pub(crate) fn shape(&self, v: ValueId) -> Result<Shape, String> {
        let why = || {
            let since = shape::unknown_since(self.b.graph, v);
            format!("the shape of '{}' is not known{since}", self.b.graph.name_of(v))
        };
        self.b.graph.shape(v).cloned().ok_or_else(why)
    }
    pub(crate) fn rank(&self, v: ValueId) -> Result<usize, String> {
        self.shape(v).map(|s| s.len())
    }
    /// A float constant of the type of `like`.
    pub(crate) fn c(&mut self, value: f64, like: ValueId) -> ValueId {
        let d = self.dtype(like);
        self.b.float(d, value)
    }
    /// `v` in float32 where it is of a half-width type, for sums; what a rule gives may stay so.
    pub(crate) fn wide(&mut self, v: ValueId) -> ValueId {
        self.b.wide(v)
    }
    pub(crate) fn op(&mut self, op: &str, inputs: &[ValueId]) -> ValueId {
        self.b.op(op, inputs)
    }
    pub(crate) fn op_with(&mut self, op: &str, inputs: &[ValueId], attrs: &[(&str, Attr)]) -> ValueId {
        self.b.op_with(op, inputs, attrs)
    }
    /// Axis attribute or argument counted from the front.
    pub(crate) fn axis(&self, axis: i64, rank: usize) -> Result<usize, String> {
        let a = if axis < 0 { axis + rank as i64 } else { axis };
        usize::try_from(a)
            .ok()
            .filter(|a| *a < rank)
            .ok_or_else(|| format!("axis {axis} of a rank {rank} value"))
    }
    /// The integers of a constant input.
    pub(crate) fn numbers(&self, i: usize) -> Result<Vec<i64>, String> {
        let v = self.x(i)?;
        let known = self.b.graph.fact(v).vector().and_then(|e| e.iter().map(|d| d.known()).collect());
        known
            .or_else(|| self.b.graph.constant(v).and_then(|t| t.to_i64s()))
            .ok_or_else(|| format!("input {i} ('{}') must be constant", self.b.graph.name_of(v)))
    }
}

/// The families of the table, in the manual's order.
const FAMILIES: &[(&str, &[Row])] = &[
    ("Arithmetic and comparisons of elements", elementwise::RULES),
    ("Trigonometric functions", trig::RULES),
    ("Activation functions", activation::RULES),
    ("Matrix products and softmax", linear::RULES),
    ("Einsum", einsum::RULES),
    ("Fourier transform", fourier::RULES),
    ("Convolutions", conv::RULES),
    ("Poolings", pool::RULES),
    ("Normalisations", norm::RULES),
    ("Reductions and running sums", reduce::RULES),
    ("Losses", loss::RULES),
    ("Moving elements", movement::RULES),
    ("Taking and placing by index", scatter::RULES),
    ("Padding, repeating, resampling", window::RULES),
    ("Attention and rotary positions", attention::RULES),
    ("Quantised operators", quant::RULES),
    ("Recurrent operators", recurrent::RULES),
];

fn table() -> &'static HashMap<&'static str, RuleFn> {
    static TABLE: OnceLock<HashMap<&'static str, RuleFn>> = OnceLock::new();
    TABLE.get_or_init(|| FAMILIES.iter().flat_map(|f| f.1).map(|(op, _, rule)| (*op, *rule)).collect())
}

/// Operators that have a gradient rule, sorted; those of another domain than ONNX's own as `domain::Operator`.
pub fn supported() -> Vec<&'static str> {
    let mut names: Vec<_> = table().keys().copied().collect();
    names.sort_unstable();
    names
}

/// Operators through which nothing flows back although their result is a float: piecewise constant ones.
#[rustfmt::skip]
const FLAT: &[&str] = &[
    // Piecewise constant.
    "Floor", "Ceil", "Round", "Sign", "Hardmax",
    // Sizes, and what is made of them.
    "Shape", "Size", "ConstantOfShape", "Range", "EyeLike", "OneHot",
    // Whole numbers and truth values.
    "ArgMax", "ArgMin", "NonZero", "NonMaxSuppression", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual",
    "And", "Or", "Xor", "Not", "IsNaN", "IsInf", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseNot",
    // Drawn, not computed.
    "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial",
];

/// True where a gradient could flow through `node` from its inputs to its outputs.
fn is_differentiable(node: &Node) -> bool {
    !(node.domain.is_empty() && FLAT.contains(&node.op.as_str()))
}

/// For each value: whether it depends on one of `sources` through operators that are not flat and values that carry
/// gradients: floats and what floats were quantised to.
fn depends_on(graph: &Graph, sources: &[ValueId], stopped: &[ValueId]) -> Vec<bool> {
    let mut on = vec![false; graph.value_count()];
    sources.iter().for_each(|v| on[v.index()] = true);
    for n in &graph.nodes {
        let flowing = |(k, v): (usize, &Option<ValueId>)| v.filter(|v| on[v.index()] && quant::flows(n, k));
        let mut sources: Vec<ValueId> = n.inputs.iter().enumerate().filter_map(flowing).collect();
        captured(n, graph, &mut |v| sources.extend(Some(v).filter(|v| on[v.index()])));
        if !is_differentiable(n) || sources.is_empty() {
            continue;
        }
        let held = sources.iter().any(|v| graph.dtype(*v).is_some_and(|d| !d.is_float()));
        for (k, o) in n.outputs.iter().enumerate().filter_map(|(k, o)| o.map(|o| (k, o))) {
            let carries = |d: DType| {
                quant::carried(n, k, d, held) || d.is_float() && !(k > 0 && n.is("DynamicQuantizeLinear"))
            };
            on[o.index()] = graph.dtype(o).is_none_or(carries) && !stopped.contains(&o);
        }
    }
    on
}

/// For each value: whether one of `targets` depends on it.
fn leads_to(graph: &Graph, targets: &[ValueId]) -> Vec<bool> {
    let mut on = vec![false; graph.value_count()];
    targets.iter().for_each(|v| on[v.index()] = true);
    for n in graph.nodes.iter().rev() {
        if n.outputs.iter().flatten().any(|o| on[o.index()]) {
            n.inputs.iter().flatten().for_each(|v| on[v.index()] = true);
            captured(n, graph, &mut |v| on[v.index()] = true);
        }
    }
    on
}

/// The float constants that lie on a path to one of `outputs`, without the running statistics of batch normalisations,
/// which are counted and not trained.
pub fn trainable_constants(graph: &Graph, outputs: &[ValueId]) -> Vec<ValueId> {
    let all: Vec<ValueId> = graph.constants().filter(|(_, t)| t.dtype().is_float()).map(|(v, _)| v).collect();
    let to = leads_to_differentiably(graph, outputs);
    let normalisations = graph.nodes.iter().filter(|n| n.is("BatchNormalization"));
    let counted: Vec<ValueId> = normalisations.flat_map(|n| [n.input(3), n.input(4)]).flatten().collect();
    all.into_iter().filter(|v| to[v.index()] && !counted.contains(v)).collect()
}

fn leads_to_differentiably(graph: &Graph, targets: &[ValueId]) -> Vec<bool> {
    let mut on = vec![false; graph.value_count()];
    targets.iter().for_each(|v| on[v.index()] = true);
    for n in graph.nodes.iter().rev().filter(|n| is_differentiable(n)) {
        if n.outputs.iter().flatten().any(|o| on[o.index()]) {
            let carries = |d: DType| d.is_float() || quant::carried(n, 0, d, true);
            let back =
                n.inputs.iter().enumerate().filter(|(k, _)| quant::flows(n, *k)).filter_map(|(_, v)| *v);
            back.filter(|v| graph.dtype(*v).is_none_or(carries)).for_each(|v| on[v.index()] = true);
        }
    }
    on
}

/// Appends to `graph` the gradients of `Σ seed·output` with respect to `wrt`, for the pairs `(output, seed)` where
/// the seed has the output's shape. Gives, for each of `wrt`, the value that is its gradient (same shape and type).
/// Nothing flows through the values in `stopped`.
///
/// # Errors
/// [`GradError`]; `graph` may then hold some useless nodes.
pub fn grad(
    graph: &mut Graph,
    seeds: &[(ValueId, ValueId)],
    wrt: &[ValueId],
    stopped: &[ValueId],
) -> Result<Vec<ValueId>, GradError> {
    let forward = graph.nodes.len();
    for v in wrt {
        if let Some(dtype) = graph.dtype(*v).filter(|d| !d.is_float()) {
            return Err(GradError::NotFloat { value: graph.name_of(*v).into(), dtype });
        }
    }
    let outputs: Vec<ValueId> = seeds.iter().map(|s| s.0).collect();
    let from = depends_on(graph, wrt, stopped);
    let to = leads_to(graph, &outputs);
    let on_path = |v: ValueId| from[v.index()] && to[v.index()];
    let mut sums: HashMap<ValueId, Vec<ValueId>> = HashMap::new();
    for (output, seed) in seeds {
        sums.entry(*output).or_default().push(*seed);
    }
    let made = graph.producers();
    let mut b = Builder::new(graph, "grad/");
    for i in (0..forward).rev() {
        let mut node = b.graph.nodes[i].clone();
        if !is_differentiable(&node) || !node.outputs.iter().flatten().any(|o| on_path(*o)) {
            continue;
        }
        let wanted: Vec<bool> = node.inputs.iter().map(|v| v.is_some_and(on_path)).collect();
        if !wanted.contains(&true) {
            // What a branch or a loop's body reads by name is no input.
            if node.attrs.values().any(|a| matches!(a, Attr::Graph(_))) {
                return Err(no_rule(b.graph, &node));
            }
            continue;
        }
        b.set_metadata(node.metadata.clone());
        b.set_scope(format!("grad/{}/", node.name));
        let outputs: Vec<Option<ValueId>> =
            node.outputs.iter().map(|o| o.and_then(|o| total(&mut b, &mut sums, o))).collect();
        let Some(dy) = outputs.iter().copied().flatten().next() else { continue };
        let inputs = quant::dequantised_again(&mut b, &made, &node, dy);
        let inputs = std::mem::replace(&mut node.inputs, inputs);
        let grads = apply(&mut b, &node, outputs, wanted.clone())?;
        for (k, g) in grads.into_iter().enumerate() {
            let (Some(g), Some(x)) = (g.filter(|_| wanted[k]), inputs[k]) else { continue };
            // A gradient is of its value's type, also where the rule's last operator has no known one, and where the
            // rule left that of a half-width value in float32, for the sums.
            // A quantised integer's gradient is a float.
            let own = b.graph.dtype(x).filter(|d| d.is_float());
            b.graph.fact_mut(g).dtype = b.graph.dtype(g).or(own);
            let g = broadcast::undo(&mut b, g, x).map_err(|detail| unsupported(b.graph, &node, detail))?;
            let dtype = own.or(b.graph.dtype(g)).unwrap_or(DType::F32);
            let g = b.cast(g, dtype);
            b.graph.fact_mut(g).dtype = Some(dtype);
            sums.entry(x).or_default().push(g);
        }
    }
    b.set_metadata(Vec::new());
    b.set_scope("grad/");
    let mut result = Vec::with_capacity(wrt.len());
    for v in wrt {
        match total(&mut b, &mut sums, *v) {
            Some(g) => result.push(g),
            None => {
                let names: Vec<&str> = outputs.iter().map(|o| b.graph.name_of(*o)).collect();
                return Err(GradError::NoPath {
                    value: b.graph.name_of(*v).into(),
                    outputs: names.join(", "),
                });
            }
        }
    }
    Ok(result)
}

/// The sum of what has flowed back to `v`.
fn total(b: &mut Builder<'_>, sums: &mut HashMap<ValueId, Vec<ValueId>>, v: ValueId) -> Option<ValueId> {
    let parts = sums.get(&v)?.clone();
    let mut parts = parts.into_iter();
    let first = parts.next()?;
    let sum = parts.fold(first, |a, g| b.op("Add", &[a, g]));
    sums.insert(v, vec![sum]);
    Some(sum)
}

fn apply(
    b: &mut Builder<'_>,
    node: &Node,
    outputs: Vec<Option<ValueId>>,
    wanted: Vec<bool>,
) -> Result<Vec<Option<ValueId>>, GradError> {
    quant::check(b, node, &wanted).map_err(|detail| unsupported(b.graph, node, detail))?;
    let rule = table().get(node.full_op().as_str());
    let Some(rule) = rule else { return Err(no_rule(b.graph, node)) };
    let made = rule(&mut Rule { b: &mut *b, node, outputs, wanted });
    let mut made = made.map_err(|detail| unsupported(b.graph, node, detail))?;
    made.resize(node.inputs.len(), None);
    Ok(made)
}

/// The last operator between `wrt` and `outputs` that has no rule, as an error.
fn missing_rule(graph: &Graph, outputs: &[ValueId], wrt: &[ValueId]) -> Option<GradError> {
    let (from, to) = (depends_on(graph, wrt, &[]), leads_to(graph, outputs));
    let on_path = |v: &ValueId| from[v.index()] && to[v.index()];
    let lies_between = |n: &&Node| {
        is_differentiable(n)
            && n.inputs.iter().flatten().any(on_path)
            && n.outputs.iter().flatten().any(on_path)
    };
    let mut between = graph.nodes.iter().rev().filter(lies_between);
    between.find(|n| !table().contains_key(n.full_op().as_str())).map(|n| no_rule(graph, n))
}

/// Why there is no gradient of an operator that the table lacks.
fn no_rule(graph: &Graph, node: &Node) -> GradError {
    let way_out = match node.op.as_str() {
        "If" => {
            Some("a branch that is chosen at run time is not derived; export the model with the choice fixed")
        }
        "Loop" | "Scan" | "SequenceMap" => {
            Some("loops are not derived; export the model with a fixed number of steps, which unrolls it")
        }
        _ => None,
    };
    let way_out = way_out.map(str::to_string).filter(|_| node.domain.is_empty());
    if let Some(detail) = way_out.or_else(|| crate::lower::refusal(graph, node)) {
        return unsupported(graph, node, detail);
    }
    let module = module_path(node).unwrap_or_else(|| "?".into());
    GradError::NoRule { op: node.full_op(), node: node.name.clone(), module }
}

fn unsupported(_: &Graph, node: &Node, detail: String) -> GradError {
    let module = module_path(node).unwrap_or_else(|| "?".into());
    GradError::Unsupported { op: node.full_op(), node: node.name.clone(), module, detail }
}
