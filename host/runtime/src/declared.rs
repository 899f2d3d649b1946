//! What a model declares about its initializers: read before weights are lent to it, since ONNX Runtime compares
//! neither their shapes nor their types.

use std::collections::HashMap;

use graft_graph::DType;
use prost::Message;

use crate::error::{Result, RuntimeError};

/// The part of `ModelProto` that is read here; everything else is skipped where it lies.
#[derive(Clone, PartialEq, Message)]
struct Model {
    #[prost(message, optional, tag = "7")]
    graph: Option<Graph>,
}

#[derive(Clone, PartialEq, Message)]
struct Graph {
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<Initializer>,
}

#[derive(Clone, PartialEq, Message)]
struct Initializer {
    #[prost(int64, repeated, tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(string, tag = "8")]
    name: String,
    #[prost(int32, tag = "14")]
    data_location: i32,
}

/// An initializer's declaration.
pub(crate) struct Declared {
    dtype: i32,
    dims: Vec<i64>,
}

/// Initializers with external data, by name.
///
/// # Errors
/// [`RuntimeError::Ort`] when the bytes are no `ModelProto`.
pub(crate) fn external(session: &str, proto: &[u8]) -> Result<HashMap<String, Declared>> {
    const EXTERNAL: i32 = 1;
    let model = Model::decode(proto).map_err(|e| RuntimeError::Ort {
        doing: format!("loading {session}"),
        message: format!("the bytes are not an ONNX model: {e}"),
    })?;
    let all = model.graph.unwrap_or_default().initializer.into_iter();
    Ok(all
        .filter(|i| i.data_location == EXTERNAL)
        .map(|i| (i.name, Declared { dtype: i.data_type, dims: i.dims }))
        .collect())
}

impl Declared {
    /// Whether a weight is of the type and shape declared.
    ///
    /// # Errors
    /// [`RuntimeError::WeightMismatch`].
    pub(crate) fn check(&self, session: &str, name: &str, dtype: DType, shape: &[usize]) -> Result<()> {
        let same = self.dims.len() == shape.len()
            && self.dims.iter().zip(shape).all(|(d, s)| usize::try_from(*d) == Ok(*s));
        if same && self.dtype == dtype.onnx() {
            return Ok(());
        }
        let declared =
            DType::from_onnx(self.dtype).map_or_else(|| format!("type {}", self.dtype), |d| d.to_string());
        Err(RuntimeError::WeightMismatch {
            session: session.to_owned(),
            name: name.to_owned(),
            declared: format!("{declared} {:?}", self.dims),
            found: format!("{dtype} {shape:?}"),
        })
    }
}
