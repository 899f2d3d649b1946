//! Why a directory can't be imported.

use std::path::{Path, PathBuf};

use graft_graph::onnx::OnnxError;

/// Short for a result with [`ImportError`].
pub(crate) type Result<T, E = ImportError> = std::result::Result<T, E>;

/// One variant for each way in which a checkpoint directory can be refused.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message names its fields")]
#[non_exhaustive]
pub enum ImportError {
    /// The file system refused.
    #[error("{}: {doing} failed: {source}", .path.display())]
    Io { path: PathBuf, doing: &'static str, source: std::io::Error },
    /// The path is no directory.
    #[error("{} is not a directory. Give the folder of a Hugging Face checkpoint: config.json and model.safetensors lie in it", .dir.display())]
    NotADirectory { dir: PathBuf },
    /// The directory lacks the file that says what the model is.
    #[error("{} is no Hugging Face checkpoint: {missing} is not there{help}", .dir.display())]
    NotACheckpoint { dir: PathBuf, missing: &'static str, help: &'static str },
    /// Weights in a format that is not read.
    #[error("{} holds its weights as {found}, and not as model.safetensors. {why}. Save it again in Python: AutoModel.from_pretrained(DIR).save_pretrained(NEW_DIR, safe_serialization=True)", .dir.display())]
    OtherWeights { dir: PathBuf, found: String, why: &'static str },
    /// A file is larger than any honest one.
    #[error("{}: {what} takes {bytes} bytes, more than the {limit} that are read", .path.display())]
    TooLarge { path: PathBuf, what: &'static str, bytes: u64, limit: u64 },
    /// JSON that does not parse, or not into what the file should hold.
    #[error("{}: {detail}", .path.display())]
    Json { path: PathBuf, detail: String },
    /// A safetensors file whose header contradicts itself or the file's length.
    #[error("{}: not a sound safetensors file: {detail}. It may be cut short; fetch it again (a Git LFS pointer is a small text file)", .path.display())]
    Safetensors { path: PathBuf, detail: String },
    /// A tensor that two shards hold.
    #[error("tensor `{tensor}` is in {} and in {}; a checkpoint holds each tensor once", .first.display(), .second.display())]
    Twice { tensor: String, first: PathBuf, second: PathBuf },
    /// An architecture without a recipe.
    #[error("{}: model_type `{model_type}` is not supported (supported: {supported}). Export the model to ONNX with another tool and use the result as the base", .path.display())]
    Architecture { path: PathBuf, model_type: String, supported: String },
    /// A setting outside its range.
    #[error("{}: {field} is {value}, but must be {must}", .path.display())]
    Setting { path: PathBuf, field: &'static str, value: String, must: String },
    /// A tensor that the architecture needs is not in the checkpoint.
    #[error("{}: tensor `{tensor}` is missing (nearest: {nearest}). The checkpoint is incomplete, or config.json belongs to another one", .dir.display())]
    MissingTensor { dir: PathBuf, tensor: String, nearest: String },
    /// A tensor whose shape is not what the config says.
    #[error("{}: tensor `{tensor}` has shape {found:?}, but config.json makes it {expected:?}", .dir.display())]
    TensorShape { dir: PathBuf, tensor: String, found: Vec<usize>, expected: Vec<usize> },
    /// An element type that weights do not have.
    #[error("{}: tensor `{tensor}` has elements of {dtype}; weights must be f32, f64, f16 or bf16 (quantised checkpoints are not read)", .dir.display())]
    TensorType { dir: PathBuf, tensor: String, dtype: String },
    /// The place to write to is taken.
    #[error("{} exists already. Choose another place, or remove it first; nothing is ever written over", .path.display())]
    Exists { path: PathBuf },
    /// The base could not be written.
    #[error(transparent)]
    Write(#[from] OnnxError),
}

impl ImportError {
    /// For `map_err`: the path and what was being done.
    pub(crate) fn io(path: &Path, doing: &'static str) -> impl FnOnce(std::io::Error) -> ImportError {
        let path = path.to_path_buf();
        move |source| ImportError::Io { path, doing, source }
    }
}
