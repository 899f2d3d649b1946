//! Appending nodes to a graph, with shapes inferred as one goes.

use crate::dim::Shape;
use crate::ir::{Attr, Attrs, Fact, Graph, Node, ValueId};
use crate::shape;
use crate::tensor::{DType, Element, Tensor};

/// Appends nodes to a graph. Names of what it makes begin with `scope`.
pub struct Builder<'g> {
    /// The graph that grows.
    pub graph: &'g mut Graph,
    scope: String,
    metadata: Vec<(String, String)>,
}

impl<'g> Builder<'g> {
    /// A builder whose nodes are named below `scope`.
    pub fn new(graph: &'g mut Graph, scope: impl Into<String>) -> Builder<'g> {
        Builder { graph, scope: scope.into(), metadata: Vec::new() }
    }

    /// Changes the prefix of names of the nodes that follow.
    pub fn set_scope(&mut self, scope: impl Into<String>) {
        self.scope = scope.into();
    }

    /// Nodes that follow carry this metadata.
    pub fn set_metadata(&mut self, metadata: Vec<(String, String)>) {
        self.metadata = metadata;
    }

    /// Appends a node of any operator; `None` inputs are left out optional ones. Gives its `outputs` outputs.
    pub fn emit(
        &mut self,
        op: &str,
        domain: &str,
        inputs: &[Option<ValueId>],
        attrs: Attrs,
        outputs: usize,
    ) -> Vec<ValueId> {
        let name = format!("{}{op}_{}", self.scope, self.graph.nodes.len());
        let made: Vec<ValueId> = (0..outputs)
            .map(|k| {
                let value = if k == 0 { name.clone() } else { format!("{name}_{k}") };
                self.graph.add_value(&value, Fact::default())
            })
            .collect();
        self.graph.nodes.push(Node {
            op: op.into(),
            domain: domain.into(),
            name,
            inputs: inputs.to_vec(),
            outputs: made.iter().copied().map(Some).collect(),
            attrs,
            metadata: self.metadata.clone(),
        });
        shape::infer_at(self.graph, self.graph.nodes.len() - 1);
        made
    }

    /// A node of ONNX's own domain with one output.
    pub fn op(&mut self, op: &str, inputs: &[ValueId]) -> ValueId {
        self.op_with(op, inputs, &[])
    }

    /// A node of ONNX's own domain with attributes and one output.
    pub fn op_with(&mut self, op: &str, inputs: &[ValueId], attrs: &[(&str, Attr)]) -> ValueId {
        let inputs: Vec<Option<ValueId>> = inputs.iter().copied().map(Some).collect();
        let attrs = attrs.iter().map(|(k, v)| (k.to_string(), v.clone())).collect();
        self.emit(op, "", &inputs, attrs, 1)[0]
    }

    /// A constant tensor. Small equal constants are made once.
    pub fn constant(&mut self, tensor: Tensor) -> ValueId {
        let name = format!("{}const", self.scope);
        self.graph.add_constant(&name, tensor)
    }

    /// A constant scalar.
    pub fn scalar<T: Element>(&mut self, value: T) -> ValueId {
        self.constant(Tensor::scalar(value))
    }

    /// A constant float scalar of the given element type.
    pub fn float(&mut self, dtype: DType, value: f64) -> ValueId {
        self.constant(match dtype {
            DType::F64 => Tensor::scalar(value),
            DType::F16 => Tensor::scalar(half::f16::from_f64(value)),
            DType::BF16 => Tensor::scalar(half::bf16::from_f64(value)),
            _ => Tensor::scalar(value as f32),
        })
    }

    /// A constant vector of integers: a shape, axes.
    pub fn ints(&mut self, values: &[i64]) -> ValueId {
        self.constant(Tensor::vector(values))
    }

    /// `Cast` to `dtype`; the value itself where it has that type already.
    pub fn cast(&mut self, x: ValueId, dtype: DType) -> ValueId {
        if self.graph.dtype(x) == Some(dtype) {
            return x;
        }
        self.op_with("Cast", &[x], &[("to", Attr::Int(i64::from(dtype.onnx())))])
    }

    /// `x` in float32 where it is of a half-width float type, in which sums lose digits and overflow; else `x`.
    pub fn wide(&mut self, x: ValueId) -> ValueId {
        match self.graph.dtype(x) {
            Some(DType::F16 | DType::BF16) => self.cast(x, DType::F32),
            _ => x,
        }
    }

    /// `ReduceSum` of `x`, summed in float32 where `x` is of a half-width type; the sum is of the type of `x`.
    pub fn reduce_sum(&mut self, x: ValueId, axes: ValueId, attrs: &[(&str, Attr)]) -> ValueId {
        let dtype = self.graph.dtype(x);
        let wide = self.wide(x);
        let sum = self.op_with("ReduceSum", &[wide, axes], attrs);
        match dtype.filter(|_| wide != x) {
            Some(dtype) => self.cast(sum, dtype),
            None => sum,
        }
    }

    /// `Reshape` of `x` to the shape that `like` has, known or not.
    pub fn reshape_like(&mut self, x: ValueId, like: ValueId) -> ValueId {
        let (from, to) = (self.graph.shape(x), self.graph.shape(like).cloned());
        if from.is_some() && from == to.as_ref() {
            return x;
        }
        let shape = self.shape_of(like, to.as_ref());
        self.op("Reshape", &[x, shape])
    }

    /// The shape of a value as a tensor: a constant where it is known, else a `Shape` node.
    pub fn shape_of(&mut self, like: ValueId, known: Option<&Shape>) -> ValueId {
        let numbers: Option<Vec<i64>> = known.and_then(|s| s.iter().map(|d| d.known()).collect());
        match numbers {
            Some(n) => self.ints(&n),
            None => self.op("Shape", &[like]),
        }
    }

    /// `x` as a matrix: every axis but the last one in one. Shapes `[.., n]` → `[m, n]`.
    pub fn as_matrix(&mut self, x: ValueId) -> ValueId {
        let shape = self.graph.shape(x);
        if shape.is_some_and(|s| s.len() == 2) {
            return x;
        }
        let last = shape.and_then(|s| s.last().and_then(|d| d.known()));
        match last {
            Some(n) => {
                let to = self.ints(&[-1, n]);
                self.op("Reshape", &[x, to])
            }
            None => self.op_with("Flatten", &[x], &[("axis", Attr::Int(-1))]),
        }
    }
}
