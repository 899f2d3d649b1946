//! ONNX files: reading them into a [`Graph`](crate::Graph) and writing them.

pub mod proto;
mod read;
mod tensors;
mod windows;
mod write;

pub use read::{read, read_bytes, read_with_files};
pub use tensors::MappedFiles;
pub use write::{Placement, for_session, shared_constants, to_bytes, write};

use std::path::PathBuf;

use crate::tensor::TensorError;

/// The oldest operator set of ONNX's own domain that is read.
pub const OLDEST_OPSET: i64 = 7;
/// The newest operator set that is read: what ONNX Runtime 1.31 runs.
pub const NEWEST_OPSET: i64 = 26;
/// The operator set that a graph is brought up to when it is read, so that rules see one form of each operator.
pub const WORKING_OPSET: i64 = 20;

/// Why a file is no model that Graft can read, or could not be written.
#[derive(Debug, thiserror::Error)]
pub enum OnnxError {
    /// The file can't be opened, mapped or written.
    #[error("{path}: {source}", path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The bytes are no ONNX protobuf.
    #[error(
        "{path}: this is not an ONNX model, or it is cut short ({detail}). Check that the download or export is \
         complete; a Git LFS pointer is a small text file", path = .path.display()
    )]
    NotOnnx {
        /// The file.
        path: PathBuf,
        /// What the decoder says.
        detail: String,
    },
    /// The operator set is too old or too new.
    #[error(
        "{path}: operator set {version} of domain \"{domain}\" is not supported (supported: {OLDEST_OPSET} to \
         {NEWEST_OPSET}). Export the model again with a supported opset_version", path = .path.display()
    )]
    Opset {
        /// The file.
        path: PathBuf,
        /// Operator domain.
        domain: String,
        /// Version in the file.
        version: i64,
    },
    /// The model breaks one of ONNX's own rules.
    #[error("{path}: {detail}", path = .path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Which rule, where.
        detail: String,
    },
    /// A tensor's data do not fit its type and shape.
    #[error("{path}: initializer '{name}': {source}", path = .path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// What does not fit.
        source: TensorError,
    },
    /// A tensor's external data can't be had.
    #[error("{path}: initializer '{name}': external data '{location}': {detail}", path = .path.display())]
    External {
        /// The model file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Where the data should be.
        location: String,
        /// What is wrong.
        detail: String,
    },
}
