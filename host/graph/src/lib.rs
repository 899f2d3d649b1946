//! Graft's graph IR: ONNX in and out, shapes, sites and the transforms over them.
//!
//! Pure: the same graph in gives the same graph out, and nothing is read or written besides ONNX files.

pub mod axes;
pub mod batch;
pub mod beside;
pub mod builder;
pub mod cse;
pub mod dim;
pub mod fold;
pub mod functions;
pub mod fused;
pub mod grad;
pub mod hoist;
pub mod ir;
pub mod lower;
pub mod memory;
pub mod model;
pub mod onnx;
pub mod order;
pub mod raise;
pub mod shape;
pub mod sites;
pub mod split;
pub mod tensor;
pub mod tied;
pub mod trim;
mod upgrade;
pub mod work;

pub use builder::Builder;
pub use dim::{Dim, Shape};
pub use ir::{Attr, Attrs, Fact, Function, GRAFT_DOMAIN, Graph, Node, Value, ValueId};
pub use tensor::{DType, Element, Tensor, TensorError};
