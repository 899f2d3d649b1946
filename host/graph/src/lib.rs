//! Graft's graph IR: ONNX in and out, shapes, sites and the transforms over them.

pub mod tensor;

pub use tensor::{DType, Element, Tensor, TensorError};
