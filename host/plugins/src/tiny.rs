//! A base that is small enough to be written and run in no time, with the modules that methods customarily choose.

use graft_graph::model::{Model, describe};
use graft_graph::raise;
use graft_graph::{Attr, Builder, DType, Dim, Graph, Tensor, ValueId};
use graft_plugin_api::{Code, Course, Error, Role};

use crate::adapt::{Param, Start};
use crate::host::{GraphHost, NoGraph};

/// Width of the base.
const WIDTH: usize = 8;
/// Words of its vocabulary.
const WORDS: usize = 10;
/// Its layers.
const LAYERS: usize = 2;

/// What the base reads: `[rows, length]` each.
pub(crate) fn inputs(rows: usize, length: usize) -> std::result::Result<Vec<(String, Tensor)>, Error> {
    let ids: Vec<i64> = (0..rows * length).map(|i| (i * 7 % WORDS) as i64).collect();
    let tensor = |values: &[i64]| {
        Tensor::new([rows, length], values).map_err(|e| Error::new(Code::REFUSED, e.to_string()))
    };
    Ok(vec![
        ("input_ids".to_owned(), tensor(&ids)?),
        ("attention_mask".to_owned(), tensor(&vec![1; rows * length])?),
    ])
}

/// A weight for each feature of the hidden states.
pub(crate) fn weights(name: &str) -> std::result::Result<Tensor, Error> {
    spread(name, &[WIDTH], 0.0)
}

/// Makes the last norm of the base trainable.
pub(crate) fn train_last_norm(graph: &mut Graph) -> Vec<Param> {
    let mut params = Vec::new();
    for part in ["weight", "bias"] {
        let name = format!("encoder.layer.{}.output.LayerNorm.{part}", LAYERS - 1);
        let Some(value) = graph.find(&name) else { continue };
        let Some(tensor) = graph.remove_constant(value) else { continue };
        graph.inputs.push(value);
        let shape = tensor.shape().to_vec();
        params.push(Param {
            value,
            name: name.clone(),
            key: name.clone(),
            site: None,
            shape,
            dtype: DType::F32,
            init: Start::Base(tensor.clone()),
            neutral: Start::Base(tensor),
            paddable: Vec::new(),
            role: Role::Adapter,
            decay: false,
            rate: None,
            course: Course::Trained,
            base: Some(name),
            used: true,
        });
    }
    params
}

/// An embedding, and layers with the modules of a BERT.
pub(crate) fn base() -> std::result::Result<(Graph, Model), Error> {
    let mut g = Graph::new("tiny", 20);
    let shape = || vec![Dim::from("batch"), Dim::from("sequence")];
    let ids = g.add_input("input_ids", DType::I64, shape());
    g.add_input("attention_mask", DType::I64, shape());
    let table = numbers(&mut g, "embeddings.word_embeddings.weight", &[WORDS, WIDTH], 0.0)?;
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
    let scale = numbers(g, &format!("{path}.weight"), &[WIDTH], 1.0)?;
    let shift = numbers(g, &format!("{path}.bias"), &[WIDTH], 0.0)?;
    let axis = [("axis", Attr::Int(-1))];
    Ok(Builder::new(g, "").op_with("LayerNormalization", &[sum, scale, shift], &axis))
}

/// Numbers that are all different, within ±0.4 around `around`, and the same ones for the same name.
fn spread(name: &str, shape: &[usize], around: f32) -> std::result::Result<Tensor, Error> {
    let count = shape.iter().product::<usize>();
    let drawn = NoGraph.random(0, name, count as u64)?;
    let values: Vec<f32> = drawn.into_iter().map(|v| around + 0.8 * (v - 0.5)).collect();
    Tensor::new(shape, &values).map_err(|e| Error::new(Code::REFUSED, e.to_string()))
}

fn numbers(g: &mut Graph, name: &str, shape: &[usize], around: f32) -> std::result::Result<ValueId, Error> {
    let tensor = spread(name, shape, around)?;
    Ok(g.add_constant(name, tensor))
}

fn linear(g: &mut Graph, path: &str, x: ValueId) -> std::result::Result<ValueId, Error> {
    let weight = numbers(g, &format!("{path}.weight"), &[WIDTH, WIDTH], 0.0)?;
    let bias = numbers(g, &format!("{path}.bias"), &[WIDTH], 0.0)?;
    let y = op(g, "MatMul", &[x, weight]);
    Ok(op(g, "Add", &[y, bias]))
}
