//! Tensors, shapes and attributes on the wire.

use prost::{Message, Oneof};

/// A dense tensor.
#[derive(Clone, PartialEq, Message)]
pub struct Tensor {
    /// Name; empty where none is needed.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Element type, ONNX's number.
    #[prost(uint32, tag = "2")]
    pub dtype: u32,
    /// Dimensions.
    #[prost(uint64, repeated, tag = "3")]
    pub shape: Vec<u64>,
    /// Elements, row-major, little-endian.
    #[prost(bytes = "vec", tag = "4")]
    pub data: Vec<u8>,
}

/// Tensors by name.
#[derive(Clone, PartialEq, Message)]
pub struct Tensors {
    /// The tensors.
    #[prost(message, repeated, tag = "1")]
    pub tensors: Vec<Tensor>,
}

/// A dimension; with neither it is unknown.
#[derive(Clone, PartialEq, Message)]
pub struct Dim {
    /// What is known.
    #[prost(oneof = "DimValue", tags = "1, 2")]
    pub value: Option<DimValue>,
}

/// What is known of a dimension.
#[derive(Clone, PartialEq, Oneof)]
pub enum DimValue {
    /// Its extent.
    #[prost(uint64, tag = "1")]
    Known(u64),
    /// Its name, such as `batch`.
    #[prost(string, tag = "2")]
    Symbol(String),
}

/// Element type and shape.
#[derive(Clone, PartialEq, Message)]
pub struct Fact {
    /// Element type, ONNX's number; 0 when unknown.
    #[prost(uint32, tag = "1")]
    pub dtype: u32,
    /// Dimensions.
    #[prost(message, repeated, tag = "2")]
    pub shape: Vec<Dim>,
    /// False when not even the rank is known.
    #[prost(bool, tag = "3")]
    pub ranked: bool,
}

/// An attribute of an operator.
#[derive(Clone, PartialEq, Message)]
pub struct Attr {
    /// Name as in ONNX.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Value.
    #[prost(oneof = "AttrValue", tags = "2, 3, 4, 5, 6, 7, 8")]
    pub value: Option<AttrValue>,
}

/// The value of an attribute.
#[derive(Clone, PartialEq, Oneof)]
pub enum AttrValue {
    /// Integer.
    #[prost(int64, tag = "2")]
    Int(i64),
    /// Float.
    #[prost(float, tag = "3")]
    Float(f32),
    /// Text.
    #[prost(string, tag = "4")]
    Text(String),
    /// Integers.
    #[prost(message, tag = "5")]
    Ints(Ints),
    /// Floats.
    #[prost(message, tag = "6")]
    Floats(Floats),
    /// Texts.
    #[prost(message, tag = "7")]
    Texts(Texts),
    /// A tensor.
    #[prost(message, tag = "8")]
    Tensor(Tensor),
}

/// A list of integers.
#[derive(Clone, PartialEq, Message)]
pub struct Ints {
    /// The integers.
    #[prost(int64, repeated, tag = "1")]
    pub values: Vec<i64>,
}

/// A list of floats.
#[derive(Clone, PartialEq, Message)]
pub struct Floats {
    /// The floats.
    #[prost(float, repeated, tag = "1")]
    pub values: Vec<f32>,
}

/// A list of texts.
#[derive(Clone, PartialEq, Message)]
pub struct Texts {
    /// The texts.
    #[prost(string, repeated, tag = "1")]
    pub values: Vec<String>,
}
