//! The parts that architectures are written with. Each makes nodes under a module path, as PyTorch's exporter names
//! them: module `encoder.layer.0.output.dense` gives `/encoder/layer.0/output/dense/MatMul`.

use std::collections::HashMap;

use graft_graph::{Attr, Builder, DType, Graph, Tensor, ValueId};

use crate::error::Result;
use crate::weights::Weights;

/// Operator set of imported bases: the first with Gelu, and the one that the host works in.
const OPSET: i64 = 20;
/// What names of constants begin with that no checkpoint brought.
pub(crate) const CONSTANT_PREFIX: &str = "constant:";

/// The activation functions that configs name.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Activation {
    /// With the error function.
    Gelu,
    /// With the hyperbolic tangent.
    GeluTanh,
    /// `x · sigmoid(1.702 x)`.
    QuickGelu,
    Relu,
    /// `x · sigmoid(x)`.
    Silu,
    Tanh,
}

impl Activation {
    const NAMES: &[(&str, Activation)] = &[
        ("gelu", Activation::Gelu),
        ("gelu_python", Activation::Gelu),
        ("gelu_new", Activation::GeluTanh),
        ("gelu_fast", Activation::GeluTanh),
        ("gelu_pytorch_tanh", Activation::GeluTanh),
        ("quick_gelu", Activation::QuickGelu),
        ("relu", Activation::Relu),
        ("silu", Activation::Silu),
        ("swish", Activation::Silu),
        ("tanh", Activation::Tanh),
    ];

    /// The function that transformers has under `name`.
    pub(crate) fn find(name: &str) -> Option<Activation> {
        Self::NAMES.iter().find(|(n, _)| *n == name).map(|(_, a)| *a)
    }

    /// The names that there are, for messages.
    pub(crate) fn names() -> String {
        Self::NAMES.iter().map(|(n, _)| *n).collect::<Vec<_>>().join(", ")
    }
}

/// Sizes of a self-attention.
#[derive(Clone, Copy)]
pub(crate) struct Heads {
    /// Number of heads.
    pub(crate) count: usize,
    /// Width of the hidden states; a multiple of `count`.
    pub(crate) hidden: usize,
}

/// A graph in the making, with the weights that go into it.
pub(crate) struct Recipe<'a> {
    graph: Graph,
    weights: &'a mut Weights,
    /// How often each node name was wanted.
    names: HashMap<String, usize>,
    /// Small constants, made once.
    constants: HashMap<String, ValueId>,
}

impl<'a> Recipe<'a> {
    pub(crate) fn new(name: &str, weights: &'a mut Weights) -> Recipe<'a> {
        let graph = Graph::new(name, OPSET);
        Recipe { graph, weights, names: HashMap::new(), constants: HashMap::new() }
    }

    /// Ends the graph: `value` becomes its next output, called `name`.
    pub(crate) fn output(&mut self, name: &str, value: ValueId) {
        self.graph.rename(value, name);
        self.graph.outputs.push(value);
    }

    pub(crate) fn finish(self) -> Graph {
        self.graph
    }

    /// An input of integers `[batch, sequence]`.
    pub(crate) fn tokens_input(&mut self, name: &str) -> ValueId {
        self.graph.add_input(name, DType::I64, vec!["batch".into(), "sequence".into()])
    }

    /// One operator of module `module` with one output.
    pub(crate) fn op(
        &mut self,
        module: &str,
        op: &str,
        inputs: &[ValueId],
        attrs: &[(&str, Attr)],
    ) -> ValueId {
        let value = Builder::new(&mut self.graph, "").op_with(op, inputs, attrs);
        let path = module.replace('.', "/").replace("/layer/", "/layer.");
        let stem = if path.is_empty() { format!("/{op}") } else { format!("/{path}/{op}") };
        let count = self.names.entry(stem.clone()).or_insert(0);
        let name = if *count == 0 { stem } else { format!("{stem}_{count}") };
        *count += 1;
        self.graph.rename(value, &format!("{name}_output_0"));
        if let Some(node) = self.graph.nodes.last_mut() {
            node.name = name;
        }
        value
    }

    /// A constant vector of integers: a shape, axes.
    pub(crate) fn ints(&mut self, values: &[i64]) -> ValueId {
        self.small(format!("{values:?}"), || Tensor::vector(values))
    }

    /// A constant integer.
    pub(crate) fn int(&mut self, value: i64) -> ValueId {
        self.small(value.to_string(), || Tensor::scalar(value))
    }

    /// A constant f32.
    pub(crate) fn float(&mut self, value: f32) -> ValueId {
        self.small(format!("{value:?}f"), || Tensor::scalar(value))
    }

    fn small(&mut self, key: String, make: impl FnOnce() -> Tensor) -> ValueId {
        if let Some(v) = self.constants.get(&key) {
            return *v;
        }
        let v = self.graph.add_constant(&format!("{CONSTANT_PREFIX}{key}"), make());
        self.constants.insert(key, v);
        v
    }

    /// True when the checkpoint has that tensor.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.weights.has(name)
    }

    /// A tensor of the checkpoint as a constant.
    pub(crate) fn weight(&mut self, name: &str, shape: &[usize]) -> Result<ValueId> {
        let tensor = self.weights.get(name, shape)?;
        Ok(self.graph.add_constant(name, tensor))
    }

    /// Linear layer with bias `[.., input]` → `[.., output]`; its weight is stored as `[input, output]`.
    pub(crate) fn linear(
        &mut self,
        module: &str,
        x: ValueId,
        input: usize,
        output: usize,
    ) -> Result<ValueId> {
        let name = format!("{module}.weight");
        let turned = self.weights.get_transposed(&name, output, input)?;
        let weight = self.graph.add_constant(&name, turned);
        let bias = self.weight(&format!("{module}.bias"), &[output])?;
        let product = self.op(module, "MatMul", &[x, weight], &[]);
        Ok(self.op(module, "Add", &[product, bias], &[]))
    }

    /// Rows of a table `[rows, width]` at `ids`.
    pub(crate) fn embedding(
        &mut self,
        module: &str,
        ids: ValueId,
        rows: usize,
        width: usize,
    ) -> Result<ValueId> {
        let table = self.weight(&format!("{module}.weight"), &[rows, width])?;
        Ok(self.op(module, "Gather", &[table, ids], &[]))
    }

    /// Layer norm over the last axis, of size `width`.
    pub(crate) fn layer_norm(
        &mut self,
        module: &str,
        x: ValueId,
        width: usize,
        epsilon: f32,
    ) -> Result<ValueId> {
        let scale = self.weight(&format!("{module}.weight"), &[width])?;
        let bias = self.weight(&format!("{module}.bias"), &[width])?;
        let attrs = [("axis", Attr::Int(-1)), ("epsilon", Attr::Float(epsilon))];
        Ok(self.op(module, "LayerNormalization", &[x, scale, bias], &attrs))
    }

    /// An activation function, element by element.
    pub(crate) fn activation(&mut self, module: &str, x: ValueId, function: Activation) -> ValueId {
        match function {
            Activation::Gelu => self.op(module, "Gelu", &[x], &[]),
            Activation::GeluTanh => self.op(module, "Gelu", &[x], &[("approximate", "tanh".into())]),
            Activation::Relu => self.op(module, "Relu", &[x], &[]),
            Activation::Tanh => self.op(module, "Tanh", &[x], &[]),
            Activation::Silu => {
                let gate = self.op(module, "Sigmoid", &[x], &[]);
                self.op(module, "Mul", &[x, gate], &[])
            }
            Activation::QuickGelu => {
                let slope = self.float(1.702);
                let steeper = self.op(module, "Mul", &[x, slope], &[]);
                let gate = self.op(module, "Sigmoid", &[steeper], &[]);
                self.op(module, "Mul", &[x, gate], &[])
            }
        }
    }

    /// The length of `tokens [batch, sequence]` as positions `0, 1, …` of shape `[sequence]`.
    pub(crate) fn positions(&mut self, module: &str, tokens: ValueId) -> ValueId {
        let shape = self.op(module, "Shape", &[tokens], &[]);
        let axis = self.int(1);
        let length = self.op(module, "Gather", &[shape, axis], &[]);
        let (zero, one) = (self.int(0), self.int(1));
        self.op(module, "Range", &[zero, length, one], &[])
    }

    /// What is added to attention scores `[batch, heads, sequence, sequence]`: 0 where `mask [batch, sequence]` lets
    /// a key be seen, the lowest f32 where not. It is no infinity, so that a row without any key stays a number
    /// (every key then weighs the same, as in transformers).
    pub(crate) fn additive_mask(&mut self, mask: ValueId) -> ValueId {
        let seen = self.op("", "Cast", &[mask], &[("to", Attr::Int(i64::from(DType::Bool.onnx())))]);
        let (zero, lowest) = (self.float(0.0), self.float(f32::MIN));
        let added = self.op("", "Where", &[seen, zero, lowest], &[]);
        let axes = self.ints(&[1, 2]);
        self.op("", "Unsqueeze", &[added, axes], &[])
    }

    /// `softmax(q·kᵀ / √d + mask)·v` for each head: `[batch, sequence, hidden]` three times → the same.
    pub(crate) fn attention(
        &mut self,
        module: &str,
        [q, k, v]: [ValueId; 3],
        mask: ValueId,
        heads: Heads,
    ) -> ValueId {
        let width = heads.hidden / heads.count;
        let [q, k, v] = [q, k, v].map(|x| self.split_heads(module, x, heads));
        let scale = self.float((1.0 / (width as f64).sqrt()) as f32);
        let q = self.op(module, "Mul", &[q, scale], &[]);
        let k = self.op(module, "Transpose", &[k], &[("perm", vec![0, 1, 3, 2].into())]);
        let scores = self.op(module, "MatMul", &[q, k], &[]);
        let scores = self.op(module, "Add", &[scores, mask], &[]);
        let shares = self.op(module, "Softmax", &[scores], &[("axis", Attr::Int(-1))]);
        let mixed = self.op(module, "MatMul", &[shares, v], &[]);
        let back = self.op(module, "Transpose", &[mixed], &[("perm", vec![0, 2, 1, 3].into())]);
        let joined = self.ints(&[0, 0, heads.hidden as i64]);
        self.op(module, "Reshape", &[back, joined], &[])
    }

    /// `[batch, sequence, heads·width]` → `[batch, heads, sequence, width]`.
    fn split_heads(&mut self, module: &str, x: ValueId, heads: Heads) -> ValueId {
        let shape = self.ints(&[0, 0, heads.count as i64, (heads.hidden / heads.count) as i64]);
        let split = self.op(module, "Reshape", &[x, shape], &[]);
        self.op(module, "Transpose", &[split], &[("perm", vec![0, 2, 1, 3].into())])
    }
}
