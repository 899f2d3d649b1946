//! Errors of tasks.

use std::path::PathBuf;

/// What can go wrong between a base, an adapter and a session.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// No model where one was named.
    #[error("{path}: no base here: {detail}", path = .path.display())]
    NoModel {
        /// What was named.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// A tensor that a command needs is missing or unfit.
    #[error("{what}: {detail}")]
    Input {
        /// Which input.
        what: String,
        /// What is wrong and what to do.
        detail: String,
    },
    /// The model file.
    #[error(transparent)]
    Onnx(#[from] graft_graph::onnx::OnnxError),
    /// Hidden states.
    #[error(transparent)]
    Model(#[from] graft_graph::model::ModelError),
    /// Gradients.
    #[error(transparent)]
    Grad(#[from] graft_graph::grad::GradError),
    /// Tensors.
    #[error(transparent)]
    Tensor(#[from] graft_graph::TensorError),
    /// ONNX Runtime.
    #[error(transparent)]
    Runtime(#[from] graft_runtime::RuntimeError),
    /// Plugins.
    #[error(transparent)]
    Plugin(#[from] Box<graft_plugins::PluginError>),
    /// Tables, texts and tokenizers.
    #[error(transparent)]
    Data(#[from] graft_data::DataError),
    /// Adapter directories and tensor files.
    #[error(transparent)]
    Adapter(#[from] graft_adapters::Error),
}

/// Results of this crate.
pub type Result<T> = std::result::Result<T, TaskError>;
