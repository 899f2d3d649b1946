//! The graph: values, nodes and constants.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use bytes::Bytes;
use indexmap::IndexMap;

use crate::dim::{Dim, Shape};
use crate::onnx::MappedFiles;
use crate::tensor::{DType, Tensor};

/// The domain of Graft's own operators; every one of them has a decomposition (see [`crate::fused`]).
pub const GRAFT_DOMAIN: &str = "graft";

/// A value of one graph.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ValueId(pub(crate) u32);

impl ValueId {
    /// The number of this value: dense, from zero. For tables beside a graph and for the plugin boundary.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// What is known of a value before it is computed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fact {
    /// Element type.
    pub dtype: Option<DType>,
    /// Dimensions.
    pub shape: Option<Shape>,
    /// The elements, row-major, of an integer tensor of at most two dimensions: shapes, axes, sizes, pads.
    pub elements: Option<Vec<Dim>>,
}

impl Fact {
    /// The elements of a tensor of at most one dimension.
    pub fn vector(&self) -> Option<&[Dim]> {
        self.elements.as_deref().filter(|_| self.shape.as_ref().is_none_or(|s| s.len() < 2))
    }
}

/// A value's name and what is known of it.
#[derive(Clone, Debug, Default)]
pub struct Value {
    /// Unique in its graph.
    pub name: String,
    /// Type, shape and, for shape computations, elements.
    pub fact: Fact,
}

/// A node's attribute.
#[derive(Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Attr {
    Int(i64),
    Float(f32),
    String(Bytes),
    Tensor(Tensor),
    Graph(Box<Graph>),
    Ints(Vec<i64>),
    Floats(Vec<f32>),
    Strings(Vec<Bytes>),
    /// A reference to an attribute of the enclosing function.
    Reference(String, i32),
}

impl fmt::Debug for Attr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Attr::Int(v) => write!(f, "{v}"),
            Attr::Float(v) => write!(f, "{v}"),
            Attr::String(v) => write!(f, "{:?}", String::from_utf8_lossy(v)),
            Attr::Tensor(v) => write!(f, "{v:?}"),
            Attr::Graph(_) => f.write_str("graph"),
            Attr::Ints(v) => write!(f, "{v:?}"),
            Attr::Floats(v) => write!(f, "{v:?}"),
            Attr::Strings(v) => write!(f, "{} strings", v.len()),
            Attr::Reference(v, _) => write!(f, "@{v}"),
        }
    }
}

impl From<i64> for Attr {
    fn from(v: i64) -> Attr {
        Attr::Int(v)
    }
}
impl From<f32> for Attr {
    fn from(v: f32) -> Attr {
        Attr::Float(v)
    }
}
impl From<&str> for Attr {
    fn from(v: &str) -> Attr {
        Attr::String(Bytes::copy_from_slice(v.as_bytes()))
    }
}
impl From<Vec<i64>> for Attr {
    fn from(v: Vec<i64>) -> Attr {
        Attr::Ints(v)
    }
}
impl From<Tensor> for Attr {
    fn from(v: Tensor) -> Attr {
        Attr::Tensor(v)
    }
}

/// Attributes by name, sorted: the same graph is written the same way.
pub type Attrs = BTreeMap<String, Attr>;

/// One operator application.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    /// Operator type, e.g. `MatMul`.
    pub op: String,
    /// Operator domain; empty for ONNX's own.
    pub domain: String,
    /// The node's name in the file; may be empty.
    pub name: String,
    /// Inputs; `None` where an optional one is left out.
    pub inputs: Vec<Option<ValueId>>,
    /// Outputs; `None` where an optional one is left out.
    pub outputs: Vec<Option<ValueId>>,
    /// Attributes.
    pub attrs: Attrs,
    /// `metadata_props`: the new PyTorch exporter keeps module paths here.
    pub metadata: Vec<(String, String)>,
}

impl Node {
    /// Input `i`, if there is one.
    pub fn input(&self, i: usize) -> Option<ValueId> {
        self.inputs.get(i).copied().flatten()
    }

    /// Output `i`, if there is one.
    pub fn output(&self, i: usize) -> Option<ValueId> {
        self.outputs.get(i).copied().flatten()
    }

    /// True for the operator `op` of ONNX's own domain.
    pub fn is(&self, op: &str) -> bool {
        self.op == op && self.domain.is_empty()
    }

    /// An integer attribute, or the default.
    pub fn int(&self, name: &str, default: i64) -> i64 {
        match self.attrs.get(name) {
            Some(Attr::Int(v)) => *v,
            _ => default,
        }
    }

    /// A float attribute, or the default.
    pub fn float(&self, name: &str, default: f32) -> f32 {
        match self.attrs.get(name) {
            Some(Attr::Float(v)) => *v,
            _ => default,
        }
    }

    /// A list of integers, if the attribute is there.
    pub fn ints(&self, name: &str) -> Option<&[i64]> {
        match self.attrs.get(name) {
            Some(Attr::Ints(v)) => Some(v),
            _ => None,
        }
    }

    /// A string attribute, if it is there and UTF-8.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.attrs.get(name) {
            Some(Attr::String(v)) => std::str::from_utf8(v).ok(),
            _ => None,
        }
    }

    /// `domain::Op`, or just the operator for ONNX's own domain.
    pub fn full_op(&self) -> String {
        if self.domain.is_empty() { self.op.clone() } else { format!("{}::{}", self.domain, self.op) }
    }
}

/// A model-local function: a graph whose inputs and outputs are positional.
#[derive(Clone, PartialEq, Debug)]
pub struct Function {
    /// Domain of the operator that it defines.
    pub domain: String,
    /// Name of the operator that it defines.
    pub name: String,
    /// The body.
    pub body: Graph,
    /// Names of the attributes that it takes.
    pub attributes: Vec<String>,
}

/// An ONNX model in memory. Nodes are in topological order; constants (initializers) share the bytes of the file
/// they were mapped from.
#[derive(Clone, Default)]
pub struct Graph {
    /// The graph's name in the file.
    pub name: String,
    /// Nodes, each after the nodes whose outputs it reads.
    pub nodes: Vec<Node>,
    /// What is fed; initializers are not among them, even where the file lists them.
    pub inputs: Vec<ValueId>,
    /// What is computed.
    pub outputs: Vec<ValueId>,
    /// Operator set version of each domain.
    pub opsets: BTreeMap<String, i64>,
    /// Model-local functions.
    pub functions: Vec<Function>,
    /// `metadata_props` of the model.
    pub metadata: Vec<(String, String)>,
    /// The files that constants are mapped from.
    pub files: MappedFiles,
    values: Vec<Value>,
    constants: IndexMap<ValueId, Tensor>,
    names: HashMap<String, ValueId>,
    fresh: u64,
}

impl PartialEq for Graph {
    fn eq(&self, other: &Graph) -> bool {
        self.nodes == other.nodes && self.inputs == other.inputs && self.outputs == other.outputs
    }
}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Graph({} nodes, {} constants)", self.nodes.len(), self.constants.len())
    }
}

impl Graph {
    /// An empty graph of the given operator set of ONNX's own domain.
    pub fn new(name: impl Into<String>, opset: i64) -> Graph {
        Graph { name: name.into(), opsets: BTreeMap::from([(String::new(), opset)]), ..Graph::default() }
    }

    /// Version of ONNX's own operator set.
    pub fn opset(&self) -> i64 {
        self.opsets.get("").copied().unwrap_or(0)
    }

    /// A new value. A taken (or empty) name gets a number behind it.
    pub fn add_value(&mut self, name: &str, fact: Fact) -> ValueId {
        let id = ValueId(u32::try_from(self.values.len()).unwrap_or(u32::MAX));
        let name = self.free_name(name);
        self.names.insert(name.clone(), id);
        self.values.push(Value { name, fact });
        id
    }

    fn free_name(&mut self, wanted: &str) -> String {
        if !wanted.is_empty() && !self.names.contains_key(wanted) {
            return wanted.to_string();
        }
        let stem = if wanted.is_empty() { "v" } else { wanted };
        loop {
            self.fresh += 1;
            let name = format!("{stem}.{}", self.fresh);
            if !self.names.contains_key(&name) {
                return name;
            }
        }
    }

    /// A new graph input.
    pub fn add_input(&mut self, name: &str, dtype: DType, shape: Shape) -> ValueId {
        let id = self.add_value(name, Fact { dtype: Some(dtype), shape: Some(shape), elements: None });
        self.inputs.push(id);
        id
    }

    /// A new constant.
    pub fn add_constant(&mut self, name: &str, tensor: Tensor) -> ValueId {
        let id = self.add_value(name, Fact::default());
        self.set_constant(id, tensor);
        id
    }

    /// Makes `value` a constant, or replaces the one it is.
    pub fn set_constant(&mut self, value: ValueId, tensor: Tensor) {
        self.values[value.index()].fact = constant_fact(&tensor);
        self.constants.insert(value, tensor);
    }

    /// Takes the constant away; the value must then get a node or become an input.
    pub fn remove_constant(&mut self, value: ValueId) -> Option<Tensor> {
        self.constants.shift_remove(&value)
    }

    /// The constant that `value` is.
    pub fn constant(&self, value: ValueId) -> Option<&Tensor> {
        self.constants.get(&value)
    }

    /// All constants.
    pub fn constants(&self) -> impl Iterator<Item = (ValueId, &Tensor)> {
        self.constants.iter().map(|(v, t)| (*v, t))
    }

    /// Name and fact of a value.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.index()]
    }

    /// Name of a value.
    pub fn name_of(&self, id: ValueId) -> &str {
        &self.values[id.index()].name
    }

    /// What is known of a value.
    pub fn fact(&self, id: ValueId) -> &Fact {
        &self.values[id.index()].fact
    }

    /// What is known of a value, to be changed.
    pub fn fact_mut(&mut self, id: ValueId) -> &mut Fact {
        &mut self.values[id.index()].fact
    }

    /// Element type of a value, where known.
    pub fn dtype(&self, id: ValueId) -> Option<DType> {
        self.fact(id).dtype
    }

    /// Shape of a value, where known.
    pub fn shape(&self, id: ValueId) -> Option<&Shape> {
        self.fact(id).shape.as_ref()
    }

    /// The value of that name.
    pub fn find(&self, name: &str) -> Option<ValueId> {
        self.names.get(name).copied()
    }

    /// Gives a value another name; the name's former holder, if any, is renamed.
    pub fn rename(&mut self, id: ValueId, name: &str) {
        if self.names.get(name) == Some(&id) {
            return;
        }
        if let Some(holder) = self.names.remove(name) {
            let other = self.free_name(&format!("{name}.was"));
            self.names.insert(other.clone(), holder);
            self.values[holder.index()].name = other;
        }
        let old = std::mem::replace(&mut self.values[id.index()].name, name.to_string());
        self.names.remove(&old);
        self.names.insert(name.to_string(), id);
    }

    /// All values, in the order of their numbers.
    pub fn values(&self) -> impl Iterator<Item = ValueId> + use<> {
        (0..u32::try_from(self.values.len()).unwrap_or(u32::MAX)).map(ValueId)
    }

    /// Number of values ever made; ids are below it.
    pub fn value_count(&self) -> usize {
        self.values.len()
    }

    /// For each value the node that makes it.
    pub fn producers(&self) -> Vec<Option<usize>> {
        let mut made = vec![None; self.values.len()];
        for (i, n) in self.nodes.iter().enumerate() {
            for o in n.outputs.iter().flatten() {
                made[o.index()] = Some(i);
            }
        }
        made
    }

    /// For each value the nodes that read it, in order; a node that reads it twice is listed twice.
    pub fn consumers(&self) -> Vec<Vec<usize>> {
        let mut read = vec![Vec::new(); self.values.len()];
        for (i, n) in self.nodes.iter().enumerate() {
            for v in n.inputs.iter().flatten() {
                read[v.index()].push(i);
            }
        }
        read
    }

    /// Every use of `old`, as an input of a node or an output of the graph, becomes a use of `new`.
    pub fn replace_uses(&mut self, old: ValueId, new: ValueId) {
        for n in &mut self.nodes {
            n.inputs.iter_mut().filter(|i| **i == Some(old)).for_each(|i| *i = Some(new));
        }
        self.outputs.iter_mut().filter(|o| **o == old).for_each(|o| *o = new);
    }

    /// Drops nodes and constants that no output needs. Values keep their ids.
    pub fn remove_dead(&mut self) {
        let mut live = vec![false; self.values.len()];
        self.outputs.iter().for_each(|o| live[o.index()] = true);
        let mut keep = vec![false; self.nodes.len()];
        for (i, n) in self.nodes.iter().enumerate().rev() {
            if n.outputs.iter().flatten().any(|o| live[o.index()]) {
                keep[i] = true;
                n.inputs.iter().flatten().for_each(|v| live[v.index()] = true);
                captured(n, self, &mut |v| live[v.index()] = true);
            }
        }
        let mut it = keep.iter();
        self.nodes.retain(|_| *it.next().unwrap_or(&false));
        // An optional output that nothing reads need not be computed. Outputs of a list are not optional: ONNX Runtime
        // crashes on a Split of which one has no name.
        let is_list = |n: &Node| matches!(n.op.as_str(), "Split" | "If" | "Loop" | "Scan");
        for n in self.nodes.iter_mut().filter(|n| !is_list(n)) {
            for o in n.outputs.iter_mut().skip(1) {
                if o.is_some_and(|v| !live[v.index()]) {
                    *o = None;
                }
            }
            while n.outputs.len() > 1 && n.outputs.last() == Some(&None) {
                n.outputs.pop();
            }
        }
        self.constants.retain(|v, _| live[v.index()]);
    }

    /// A copy that computes `outputs` and nothing else; it has the inputs that these depend on.
    pub fn cut_to(&self, outputs: &[ValueId]) -> Graph {
        let mut graph = self.clone();
        graph.outputs = outputs.to_vec();
        graph.remove_dead();
        let read = graph.read();
        graph.inputs.retain(|v| read[v.index()] || outputs.contains(v));
        graph
    }

    /// For each value whether a node reads it, be it from within a subgraph.
    pub(crate) fn read(&self) -> Vec<bool> {
        let mut read = vec![false; self.value_count()];
        for n in &self.nodes {
            n.inputs.iter().flatten().for_each(|v| read[v.index()] = true);
            captured(n, self, &mut |v| read[v.index()] = true);
        }
        read
    }

    /// Sorts nodes so that each stands after what it reads. Order is kept where it may be.
    ///
    /// # Errors
    /// The name of a value on a cycle.
    pub fn sort(&mut self) -> Result<(), String> {
        let producers = self.producers();
        let mut waiting: Vec<usize> = Vec::with_capacity(self.nodes.len());
        let mut readers: Vec<Vec<usize>> = vec![Vec::new(); self.nodes.len()];
        for (i, n) in self.nodes.iter().enumerate() {
            let mut count = 0;
            let mut needs = |v: ValueId| {
                if let Some(p) = producers[v.index()] {
                    readers[p].push(i);
                    count += 1;
                }
            };
            n.inputs.iter().flatten().for_each(|v| needs(*v));
            captured(n, self, &mut needs);
            waiting.push(count);
        }
        let mut ready: std::collections::BinaryHeap<std::cmp::Reverse<usize>> =
            waiting.iter().enumerate().filter(|(_, c)| **c == 0).map(|(i, _)| std::cmp::Reverse(i)).collect();
        let mut order = Vec::with_capacity(self.nodes.len());
        while let Some(std::cmp::Reverse(i)) = ready.pop() {
            order.push(i);
            for r in &readers[i] {
                waiting[*r] -= 1;
                if waiting[*r] == 0 {
                    ready.push(std::cmp::Reverse(*r));
                }
            }
        }
        if order.len() != self.nodes.len() {
            let stuck = waiting.iter().position(|c| *c > 0).unwrap_or(0);
            let value = self.nodes[stuck].output(0);
            return Err(value.map_or_else(String::new, |v| self.name_of(v).to_string()));
        }
        let mut old: Vec<Option<Node>> = std::mem::take(&mut self.nodes).into_iter().map(Some).collect();
        self.nodes = order.into_iter().filter_map(|i| old[i].take()).collect();
        Ok(())
    }
}

/// Calls `see` with each value of `outer` that a subgraph of `node` reads by name.
pub(crate) fn captured(node: &Node, outer: &Graph, see: &mut dyn FnMut(ValueId)) {
    for attr in node.attrs.values() {
        let Attr::Graph(g) = attr else { continue };
        let made = g.producers();
        let is_inner =
            |v: ValueId| made[v.index()].is_some() || g.constant(v).is_some() || g.inputs.contains(&v);
        let inner_reads = g.nodes.iter().flat_map(|n| n.inputs.iter().flatten()).chain(&g.outputs);
        for v in inner_reads.filter(|v| !is_inner(**v)) {
            if let Some(o) = outer.find(g.name_of(*v)) {
                see(o);
            }
        }
        for n in &g.nodes {
            captured(n, outer, see);
        }
    }
}

/// Longest integer constant whose elements are kept as dimensions.
const MAX_ELEMENTS: usize = 256;

/// What is known of a value that is the constant `tensor`.
pub fn constant_fact(tensor: &Tensor) -> Fact {
    let small = tensor.shape().len() <= 1 && tensor.len() <= MAX_ELEMENTS;
    let integer = matches!(tensor.dtype(), DType::I64 | DType::I32 | DType::Bool);
    let elements = if small && integer {
        tensor.to_i64s().map(|v| v.into_iter().map(Dim::from).collect())
    } else {
        None
    };
    Fact {
        dtype: Some(tensor.dtype()),
        shape: Some(tensor.shape().iter().map(|d| Dim::from(*d)).collect()),
        elements,
    }
}
