//! ONNX models written by hand, for tests, and the library they run on.

#![allow(dead_code, reason = "each test file uses its part")]

use graft_runtime::{Runtime, RuntimeError, RuntimeOptions, SessionSource};
use prost::Message;

/// The runtime, or `None` with a word on stdout where there is no library. On a build server that is a failure.
pub fn runtime() -> Option<&'static Runtime> {
    match Runtime::start(&RuntimeOptions::default()) {
        Ok(r) => Some(r),
        Err(RuntimeError::LibraryNotFound { .. }) if std::env::var_os("CI").is_none() => {
            println!("skipped: no ONNX Runtime library");
            None
        }
        Err(e) => panic!("{e}"),
    }
}

#[derive(Clone, PartialEq, Message)]
pub struct Model {
    #[prost(int64, tag = "1")]
    pub ir_version: i64,
    #[prost(message, optional, tag = "7")]
    pub graph: Option<Graph>,
    #[prost(message, repeated, tag = "8")]
    pub opset_import: Vec<Opset>,
    #[prost(message, repeated, tag = "25")]
    pub functions: Vec<Function>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Opset {
    #[prost(string, tag = "1")]
    pub domain: String,
    #[prost(int64, tag = "2")]
    pub version: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Graph {
    #[prost(message, repeated, tag = "1")]
    pub node: Vec<Node>,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(message, repeated, tag = "5")]
    pub initializer: Vec<Init>,
    #[prost(message, repeated, tag = "11")]
    pub input: Vec<ValueInfo>,
    #[prost(message, repeated, tag = "12")]
    pub output: Vec<ValueInfo>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Node {
    #[prost(string, repeated, tag = "1")]
    pub input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub output: Vec<String>,
    #[prost(string, tag = "3")]
    pub name: String,
    #[prost(string, tag = "4")]
    pub op_type: String,
    #[prost(message, repeated, tag = "5")]
    pub attribute: Vec<Attr>,
    #[prost(string, tag = "7")]
    pub domain: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Attr {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(float, optional, tag = "2")]
    pub f: Option<f32>,
    #[prost(int64, optional, tag = "3")]
    pub i: Option<i64>,
    #[prost(message, optional, tag = "5")]
    pub t: Option<Init>,
    #[prost(int64, repeated, tag = "8")]
    pub ints: Vec<i64>,
    #[prost(int32, tag = "20")]
    pub kind: i32,
    #[prost(string, tag = "21")]
    pub ref_attr_name: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Init {
    #[prost(int64, repeated, tag = "1")]
    pub dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    pub data_type: i32,
    #[prost(string, tag = "8")]
    pub name: String,
    #[prost(bytes = "vec", optional, tag = "9")]
    pub raw_data: Option<Vec<u8>>,
    #[prost(message, repeated, tag = "13")]
    pub external_data: Vec<Entry>,
    #[prost(int32, tag = "14")]
    pub data_location: i32,
}

#[derive(Clone, PartialEq, Message)]
pub struct Entry {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct ValueInfo {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, optional, tag = "2")]
    pub kind: Option<Type>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Type {
    #[prost(message, optional, tag = "1")]
    pub tensor: Option<TensorType>,
}

#[derive(Clone, PartialEq, Message)]
pub struct TensorType {
    #[prost(int32, tag = "1")]
    pub elem: i32,
    #[prost(message, optional, tag = "2")]
    pub shape: Option<Shape>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Shape {
    #[prost(message, repeated, tag = "1")]
    pub dim: Vec<Dim>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Dim {
    #[prost(int64, optional, tag = "1")]
    pub value: Option<i64>,
    #[prost(string, optional, tag = "2")]
    pub param: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Function {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, repeated, tag = "4")]
    pub input: Vec<String>,
    #[prost(string, repeated, tag = "5")]
    pub output: Vec<String>,
    #[prost(string, repeated, tag = "6")]
    pub attribute: Vec<String>,
    #[prost(message, repeated, tag = "7")]
    pub node: Vec<Node>,
    #[prost(message, repeated, tag = "9")]
    pub opset_import: Vec<Opset>,
    #[prost(string, tag = "10")]
    pub domain: String,
}

/// An f32 value; dimensions are numbers or names.
pub fn value(name: &str, dims: &[&str]) -> ValueInfo {
    typed(name, dims, 1)
}

/// A value of ONNX's type `elem`.
pub fn typed(name: &str, dims: &[&str], elem: i32) -> ValueInfo {
    let dim = |d: &&str| match d.parse() {
        Ok(n) => Dim { value: Some(n), param: None },
        Err(_) => Dim { value: None, param: Some((*d).to_owned()) },
    };
    let shape = Shape { dim: dims.iter().map(dim).collect() };
    ValueInfo {
        name: name.into(),
        kind: Some(Type { tensor: Some(TensorType { elem, shape: Some(shape) }) }),
    }
}

pub fn opset(domain: &str, version: i64) -> Opset {
    Opset { domain: domain.into(), version }
}

pub fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> Node {
    Node {
        op_type: op.into(),
        name: format!("node_{op}_{}", outputs.join("_")),
        input: inputs.iter().map(|s| s.to_string()).collect(),
        output: outputs.iter().map(|s| s.to_string()).collect(),
        ..Node::default()
    }
}

impl Node {
    pub fn domain(mut self, domain: &str) -> Node {
        self.domain = domain.into();
        self
    }
    pub fn int(mut self, name: &str, i: i64) -> Node {
        self.attribute.push(Attr { name: name.into(), i: Some(i), kind: 2, ..Attr::default() });
        self
    }
    pub fn float(mut self, name: &str, f: f32) -> Node {
        self.attribute.push(Attr { name: name.into(), f: Some(f), kind: 1, ..Attr::default() });
        self
    }
    pub fn tensor(mut self, name: &str, t: Init) -> Node {
        self.attribute.push(Attr { name: name.into(), t: Some(t), kind: 4, ..Attr::default() });
        self
    }
    /// An attribute that takes the function's own, of ONNX's attribute type `kind`.
    pub fn refers(mut self, name: &str, to: &str, kind: i32) -> Node {
        self.attribute.push(Attr { name: name.into(), ref_attr_name: to.into(), kind, ..Attr::default() });
        self
    }
}

pub fn floats(name: &str, dims: &[i64], values: &[f32]) -> Init {
    Init {
        name: name.into(),
        dims: dims.to_vec(),
        data_type: 1,
        raw_data: Some(values.iter().flat_map(|v| v.to_le_bytes()).collect()),
        ..Init::default()
    }
}

pub fn ints(name: &str, dims: &[i64], values: &[i64]) -> Init {
    Init {
        name: name.into(),
        dims: dims.to_vec(),
        data_type: 7,
        raw_data: Some(values.iter().flat_map(|v| v.to_le_bytes()).collect()),
        ..Init::default()
    }
}

/// A model of f32 inputs and outputs at opset 17, with domain `graft` imported.
pub fn model(inputs: &[(&str, &[&str])], outputs: &[(&str, &[&str])], nodes: Vec<Node>) -> Model {
    Model {
        ir_version: 8,
        graph: Some(Graph {
            name: "test".into(),
            node: nodes,
            input: inputs.iter().map(|(n, d)| value(n, d)).collect(),
            output: outputs.iter().map(|(n, d)| value(n, d)).collect(),
            initializer: Vec::new(),
        }),
        opset_import: vec![opset("", 17), opset("graft", 1), opset("com.microsoft", 1)],
        functions: Vec::new(),
    }
}

impl Model {
    pub fn with(mut self, init: Init) -> Model {
        self.graph.as_mut().expect("model() sets it").initializer.push(init);
        self
    }
    pub fn source(&self) -> SessionSource {
        SessionSource::plain(self.encode_to_vec())
    }
}

/// Numbers between −1 and 1 that are the same each time (a multiplicative generator).
pub fn numbers(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// An f32 initializer without its bytes.
pub fn external(name: &str, dims: &[i64], location: &str) -> Init {
    let entry = |k: &str, v: &str| Entry { key: k.into(), value: v.into() };
    let bytes = 4 * dims.iter().product::<i64>();
    Init {
        name: name.into(),
        dims: dims.to_vec(),
        data_type: 1,
        data_location: 1,
        external_data: vec![
            entry("location", location),
            entry("offset", "0"),
            entry("length", &bytes.to_string()),
        ],
        ..Init::default()
    }
}
