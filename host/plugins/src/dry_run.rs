//! Writes a method or an objective into a tiny base and derives its gradients, without running anything.

use graft_graph::grad::grad;
use graft_graph::model::{Model, describe};
use graft_graph::raise;
use graft_graph::{Attr, Builder, DType, Dim, Graph, Tensor, ValueId};
use graft_plugin_api::{Code, Error, FieldKind, Numbers, Summary};

use crate::{Adapted, Method, Objective, PluginError, Result, adapt};

/// Width of the tiny base.
const WIDTH: usize = 8;
/// Words of its vocabulary.
const WORDS: usize = 10;
/// Layers, each with the modules that methods customarily choose.
const LAYERS: usize = 2;

/// What a dry run came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dry {
    /// Parameters that are declared.
    pub parameters: usize,
    /// Nodes of the graph with its gradients.
    pub nodes: usize,
}

/// Writes `method` into the tiny base and derives the gradient of every parameter with respect to the hidden states.
///
/// # Errors
/// Whatever the method or the host finds wrong; an operator without a gradient rule.
pub(crate) fn method(method: &Method) -> Result<Dry> {
    let fail = |e: Error| PluginError::from_error(e, &method.plugin().manifest().id, method.id(), "dry run");
    let (base, model) = base().map_err(fail)?;
    let mut adapted = adapt(&base, &model, Some(method), None, true)?;
    let hidden = adapted.hidden.or(model.hidden);
    let Some(hidden) = hidden else {
        return Err(fail(Error::new(Code::REFUSED, "the tiny base lost its hidden states")));
    };
    let mean = Builder::new(&mut adapted.graph, "check/").op_with(
        "ReduceMean",
        &[hidden],
        &[("keepdims", Attr::Int(0))],
    );
    gradients(adapted, mean).map_err(fail)
}

/// Writes `objective`, prepared for two labels, onto the tiny base and derives the gradients of its loss; `None` for one
/// that reads other fields than texts and labels, for which no data can be made up.
///
/// # Errors
/// As [`method`].
pub(crate) fn objective(objective: &Objective) -> Result<Option<Dry>> {
    let known = [
        FieldKind::TEXT,
        FieldKind::IMAGE,
        FieldKind::LABEL,
        FieldKind::NUMBER,
        FieldKind::WORDS,
        FieldKind::WORD_LABELS,
    ];
    if objective.fields()?.iter().any(|f| !known.contains(&f.kind)) {
        return Ok(None);
    }
    let fail =
        |e: Error| PluginError::from_error(e, &objective.plugin().manifest().id, objective.id(), "dry run");
    let prepared = without_data(objective)?;
    let (base, model) = base().map_err(fail)?;
    let adapted = adapt(&base, &model, None, Some(&prepared), true)?;
    let Some(loss) = adapted.loss else {
        return Err(fail(Error::new(Code::REFUSED, "it builds no loss in a training graph")));
    };
    gradients(adapted, loss).map(Some).map_err(fail)
}

/// `objective` as if it had seen data: four rows with all of its fields, two labels, numbers from 0 to 3.
///
/// # Errors
/// Whatever the objective finds wrong.
pub fn without_data(objective: &Objective) -> Result<Objective> {
    let fields = objective.fields()?;
    let labels = [FieldKind::LABEL, FieldKind::WORD_LABELS];
    let counts = |_: &_| ["O", "B-one"].map(|l| (l.to_owned(), 2u64)).to_vec();
    let labelled = fields.iter().filter(|f| labels.contains(&f.kind));
    let numbers = fields.iter().filter(|f| f.kind == FieldKind::NUMBER);
    objective.prepare(&Summary {
        rows: 4,
        labels: labelled.map(|f| (f.name.clone(), counts(f))).collect(),
        numbers: numbers.map(|f| (f.name.clone(), Numbers::of(&[0.0, 1.0, 2.0, 3.0]))).collect(),
        fields: fields.iter().map(|f| f.name.clone()).collect(),
    })
}

fn gradients(mut adapted: Adapted, from: ValueId) -> std::result::Result<Dry, Error> {
    let one = Builder::new(&mut adapted.graph, "check/").scalar(1f32);
    let wanted: Vec<ValueId> = adapted.params.iter().filter(|p| p.trained()).map(|p| p.value).collect();
    grad(&mut adapted.graph, &[(from, one)], &wanted, &adapted.stopped)
        .map_err(|e| Error::new(Code::UNSUPPORTED, format!("no gradients can be derived: {e}")))?;
    Ok(Dry { parameters: adapted.params.len(), nodes: adapted.graph.nodes.len() })
}

/// An embedding, and layers with the modules of a BERT.
fn base() -> std::result::Result<(Graph, Model), Error> {
    let mut g = Graph::new("tiny", 20);
    let shape = || vec![Dim::from("batch"), Dim::from("sequence")];
    let ids = g.add_input("input_ids", DType::I64, shape());
    g.add_input("attention_mask", DType::I64, shape());
    let table = numbers(&mut g, "embeddings.word_embeddings.weight", &[WORDS, WIDTH])?;
    let mut x = op(&mut g, "Gather", &[table, ids]);
    for layer in 0..LAYERS {
        let path = |module: &str| format!("encoder.layer.{layer}.{module}");
        let query = linear(&mut g, &path("attention.self.query"), x)?;
        let key = linear(&mut g, &path("attention.self.key"), x)?;
        let value = linear(&mut g, &path("attention.self.value"), x)?;
        let mixed =
            attention(&mut g, &format!("/encoder/layer.{layer}/attention/self/"), [query, key, value]);
        let mixed = linear(&mut g, &path("attention.output.dense"), mixed)?;
        x = norm(&mut g, &path("attention.output.LayerNorm"), mixed, x)?;
        let wide = linear(&mut g, &path("intermediate.dense"), x)?;
        let wide = op(&mut g, "Tanh", &[wide]);
        let narrow = linear(&mut g, &path("output.dense"), wide)?;
        x = norm(&mut g, &path("output.LayerNorm"), narrow, x)?;
    }
    g.rename(x, "last_hidden_state");
    g.outputs = vec![x];
    raise::raise(&mut g);
    let model = describe(&g, None).map_err(|e| Error::new(Code::REFUSED, e.to_string()))?;
    Ok((g, model))
}

/// Scaled products of queries and keys choose among values, in two heads.
fn attention(g: &mut Graph, scope: &str, [query, key, value]: [ValueId; 3]) -> ValueId {
    let mut b = Builder::new(g, scope);
    let (split, whole) = (b.ints(&[0, 0, 2, WIDTH as i64 / 2]), b.ints(&[0, 0, WIDTH as i64]));
    let mut heads = |x, order: [i64; 4]| {
        let x = b.op("Reshape", &[x, split]);
        b.op_with("Transpose", &[x], &[("perm", Attr::Ints(order.to_vec()))])
    };
    let (query, value) = (heads(query, [0, 2, 1, 3]), heads(value, [0, 2, 1, 3]));
    let key = heads(key, [0, 2, 3, 1]);
    let scores = b.op("MatMul", &[query, key]);
    let weights = b.op_with("Softmax", &[scores], &[("axis", Attr::Int(-1))]);
    let mixed = b.op("MatMul", &[weights, value]);
    let mixed = b.op_with("Transpose", &[mixed], &[("perm", Attr::Ints(vec![0, 2, 1, 3]))]);
    b.op("Reshape", &[mixed, whole])
}

fn op(g: &mut Graph, name: &str, inputs: &[ValueId]) -> ValueId {
    Builder::new(g, "").op(name, inputs)
}

/// The norm of a sum.
fn norm(g: &mut Graph, path: &str, x: ValueId, beside: ValueId) -> std::result::Result<ValueId, Error> {
    let sum = op(g, "Add", &[x, beside]);
    let scale = numbers(g, &format!("{path}.weight"), &[WIDTH])?;
    let shift = numbers(g, &format!("{path}.bias"), &[WIDTH])?;
    let axis = [("axis", Attr::Int(-1))];
    Ok(Builder::new(g, "").op_with("LayerNormalization", &[sum, scale, shift], &axis))
}

fn numbers(g: &mut Graph, name: &str, shape: &[usize]) -> std::result::Result<ValueId, Error> {
    let values: Vec<f32> = (0..shape.iter().product::<usize>()).map(|i| (i % 7) as f32 / 8.0).collect();
    let tensor = Tensor::new(shape, &values).map_err(|e| Error::new(Code::REFUSED, e.to_string()))?;
    Ok(g.add_constant(name, tensor))
}

fn linear(g: &mut Graph, path: &str, x: ValueId) -> std::result::Result<ValueId, Error> {
    let weight = numbers(g, &format!("{path}.weight"), &[WIDTH, WIDTH])?;
    let bias = numbers(g, &format!("{path}.bias"), &[WIDTH])?;
    let y = op(g, "MatMul", &[x, weight]);
    Ok(op(g, "Add", &[y, bias]))
}
