//! What can go wrong between Graft and ONNX Runtime.

use std::path::PathBuf;

use graft_graph::{DType, TensorError};

/// Result of everything in this crate.
pub type Result<T, E = RuntimeError> = std::result::Result<T, E>;

/// An error of the runtime: each says what happened, where, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// There is no library in any of the places looked at.
    #[error(
        "ONNX Runtime ({needed}) was not found. Looked at:\n{}\nRun `cargo xtask quickstart`, which fetches it, or \
         `pip install onnxruntime=={needed}` and set ORT_DYLIB_PATH to its onnxruntime/capi/libonnxruntime.so.{needed}",
        list(.places)
    )]
    LibraryNotFound {
        /// Version that is looked for.
        needed: &'static str,
        /// Every file or folder looked at, in order.
        places: Vec<PathBuf>,
    },
    /// A path that was named explicitly does not lead to a file.
    #[error("{origin} names {}, where there is no file; correct it, or leave it out so that the usual places are searched", path.display())]
    LibraryPathMissing {
        /// Who named it: the option or the environment variable.
        origin: &'static str,
        /// The path.
        path: PathBuf,
    },
    /// The file can't be loaded as a library.
    #[error("{} can't be loaded as ONNX Runtime: {reason}; give the path of libonnxruntime.so.{needed} for this machine", path.display())]
    NotALibrary {
        /// The file.
        path: PathBuf,
        /// What the loader says.
        reason: String,
        /// Version that is needed.
        needed: &'static str,
    },
    /// Another version than the one Graft is built for.
    #[error("{} is ONNX Runtime {found}, but {needed} is needed; `cargo xtask quickstart` fetches it, or `pip install onnxruntime=={needed}`", path.display())]
    WrongVersion {
        /// The file.
        path: PathBuf,
        /// Version found.
        found: String,
        /// Version needed.
        needed: &'static str,
    },
    /// A second start with another library than the first.
    #[error("ONNX Runtime is already loaded from {}; a process can load only one, so {} is refused", loaded.display(), asked.display())]
    AlreadyLoaded {
        /// Library in use.
        loaded: PathBuf,
        /// Library asked for.
        asked: PathBuf,
    },
    /// A provider's text is not understood.
    #[error("provider `{text}`: {reason}; write cpu, cuda, cuda:ID, tensorrt or tensorrt:ID")]
    BadProvider {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The provider can't be had on this machine.
    #[error("the provider {provider} can't be started: {reason}\n{help}")]
    ProviderUnavailable {
        /// The provider as written by the user.
        provider: String,
        /// What ONNX Runtime says.
        reason: String,
        /// What is missing and how to get it.
        help: String,
    },
    /// A setting that this crate or the provider does not accept.
    #[error("{setting}: {reason}")]
    BadSetting {
        /// The setting's name.
        setting: String,
        /// What is wrong and what is accepted.
        reason: String,
    },
    /// ONNX Runtime refused or failed; its own words name operator and node.
    #[error("{doing}: {message}")]
    Ort {
        /// What Graft was doing, with the session's name.
        doing: String,
        /// ONNX Runtime's message.
        message: String,
    },
    /// A run that was stopped by its [`CancelToken`](crate::CancelToken).
    #[error("{doing}: stopped on request")]
    Cancelled {
        /// What was stopped.
        doing: String,
    },
    /// A name that the graph does not have.
    #[error("session {session} has no {kind} `{name}`; it has: {known}")]
    UnknownName {
        /// The session's name.
        session: String,
        /// `input` or `output`.
        kind: &'static str,
        /// The name given.
        name: String,
        /// The names there are.
        known: String,
    },
    /// An input that must be given was not.
    #[error("session {session}: no value for input `{name}` ({expected})")]
    MissingInput {
        /// The session's name.
        session: String,
        /// The input.
        name: String,
        /// Its type and shape.
        expected: String,
    },
    /// An input of the wrong type or shape.
    #[error("session {session}: input `{name}` takes {expected}, not {found}")]
    InputMismatch {
        /// The session's name.
        session: String,
        /// The input.
        name: String,
        /// Type and shape that the graph takes.
        expected: String,
        /// Type and shape given.
        found: String,
    },
    /// A weight that is not what the model declares it to be.
    #[error(
        "session {session}: the model declares weight `{name}` as {declared}, but it is {found}; model and weights belong to different bases"
    )]
    WeightMismatch {
        /// The session's name.
        session: String,
        /// The weight.
        name: String,
        /// Type and shape in the model.
        declared: String,
        /// Type and shape of the weight.
        found: String,
    },
    /// Values read as another type than they have.
    #[error("output `{name}` holds {found}, not {expected}")]
    OutputType {
        /// The output.
        name: String,
        /// Type asked for.
        expected: DType,
        /// Type held.
        found: String,
    },
    /// A type that has no place in this crate (strings, 4-bit numbers).
    #[error("tensor `{name}`: elements of {dtype} can't be passed to ONNX Runtime")]
    UnsupportedType {
        /// The tensor.
        name: String,
        /// Its type.
        dtype: String,
    },
    /// Bytes that do not fill a shape.
    #[error("tensor `{name}`: {source}")]
    Tensor {
        /// The tensor.
        name: String,
        /// What is wrong with it.
        source: TensorError,
    },
    /// A profile that can't be read.
    #[error("profile {}: {reason}", path.display())]
    Profile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

fn list(places: &[PathBuf]) -> String {
    places.iter().map(|p| format!("  {}", p.display())).collect::<Vec<_>>().join("\n")
}

/// Adds what was being done to an error of ONNX Runtime.
pub(crate) trait Doing<T> {
    /// Wraps the error; `doing` is only computed when there is one.
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T>;
}

impl<T, R> Doing<T> for std::result::Result<T, ort::Error<R>> {
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| {
            let message = e.message().to_owned();
            // The words of ONNX Runtime's sequential executor when the terminate flag is up; there is no code for it.
            if message.contains("terminate flag") {
                return RuntimeError::Cancelled { doing: doing() };
            }
            RuntimeError::Ort { doing: doing(), message }
        })
    }
}
