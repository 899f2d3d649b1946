//! What can be wrong with an adapter directory or a safetensors file.

use std::path::{Path, PathBuf};

use graft_graph::DType;

use crate::align::AlignError;

/// Short for a result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// One variant for each way in which an adapter or a tensor file can be refused.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message names its fields")]
#[non_exhaustive]
pub enum Error {
    /// The file system refused.
    #[error("{}: {doing} failed: {source}", .path.display())]
    Io { path: PathBuf, doing: &'static str, source: std::io::Error },
    /// There is something where something new should go.
    #[error("{} exists already; nothing is written over. Name another place, or remove it first", .path.display())]
    Exists { path: PathBuf },
    /// A file is larger than any honest one.
    #[error("{}: {what} takes {bytes} bytes, more than the {limit} that are read", .path.display())]
    TooLarge { path: PathBuf, what: &'static str, bytes: u64, limit: u64 },
    /// Not a safetensors file, or one whose header contradicts itself or the file's length.
    #[error("{}: not a sound safetensors file: {reason}; it may be truncated, fetch or save it again", .path.display())]
    Safetensors { path: PathBuf, reason: String },
    /// An element type that the other side does not have.
    #[error("{}: tensor `{tensor}` has elements of {dtype}, which cannot be {done} here", .path.display())]
    TensorType { path: PathBuf, tensor: String, dtype: String, done: &'static str },
    /// JSON that does not parse, or not into what the file should hold.
    #[error("{}: {reason}", .path.display())]
    Json { path: PathBuf, reason: String },
    /// A directory without any adapter file.
    #[error("{} holds no adapter: neither adapter_config.json nor graft.json is there", .dir.display())]
    NotAnAdapter { dir: PathBuf },
    /// A directory of the AdapterHub library with another kind of adapter.
    #[error("{} is an adapter of the AdapterHub library of the kind `{kind}`; of that library's only bottleneck adapters with their settings written out are read", .dir.display())]
    AdapterHub { dir: PathBuf, kind: String },
    /// A PEFT type that exists, but is not read here.
    #[error("{}: PEFT type {peft_type} is not supported yet; supported: LORA, IA3, LN_TUNING", .path.display())]
    PeftType { path: PathBuf, peft_type: String },
    /// A `peft_type` that PEFT does not have either.
    #[error("{}: `{peft_type}` is no PEFT type that is known here; was the adapter written by a newer PEFT?", .path.display())]
    UnknownPeftType { path: PathBuf, peft_type: String },
    /// A setting that would change what the adapter does and cannot be honoured.
    #[error("{}: {} cannot be honoured here: {}", .path.display(), plural(.fields, "setting"), .fields.join(", "))]
    Unsupported { path: PathBuf, fields: Vec<String> },
    /// A setting outside its range.
    #[error("{}: {field} is {value}, but must be {must}", .path.display())]
    Setting { path: PathBuf, field: &'static str, value: String, must: &'static str },
    /// Weights in Python's pickle format only.
    #[error("{}: only pickled weights are there ({file}), which are never read because they may run code; save the adapter again with safetensors", .dir.display())]
    Pickled { dir: PathBuf, file: &'static str },
    /// `graft.json` written by a newer Graft.
    #[error("{}: format version {found} is newer than {known}, the newest that this version reads; update graft", .path.display())]
    FormatVersion { path: PathBuf, found: u32, known: u32 },
    /// A manifest naming something that is not a file of an adapter.
    #[error("{}: the manifest names `{name}`, which is not a file of an adapter", .path.display())]
    ManifestName { path: PathBuf, name: String },
    /// A file whose content is not what the manifest says: a mix of old and new files, or one changed by hand.
    #[error("{}: its content is not what graft.json was written for; the directory mixes files of two adapters or was edited. Restore it, or remove graft.json to load it as a plain PEFT adapter", .path.display())]
    FileDigest { path: PathBuf },
    /// A file of the adapter is not there.
    #[error("{} is missing; the adapter is incomplete", .path.display())]
    MissingFile { path: PathBuf },
    /// A tensor that should be there is not.
    #[error("{}: tensor `{tensor}` is missing: {why}", .path.display())]
    MissingTensor { path: PathBuf, tensor: String, why: String },
    /// A tensor that belongs to nothing.
    #[error("{}: tensor `{tensor}` is not expected: {why}", .path.display())]
    ExtraTensor { path: PathBuf, tensor: String, why: String },
    /// A tensor of the wrong shape.
    #[error("{}: tensor `{tensor}` has shape {found:?}, but {expected} is needed", .path.display())]
    Shape { path: PathBuf, tensor: String, found: Vec<usize>, expected: String },
    /// A tensor that is not made of floating-point numbers.
    #[error("{}: tensor `{tensor}` holds {found}; trained tensors are floating point", .path.display())]
    NotFloat { path: PathBuf, tensor: String, found: DType },
    /// A NaN or an infinity.
    #[error("{}: tensor `{tensor}` holds {value} at element {index}; the adapter is broken, train or fetch it again", .path.display())]
    NonFinite { path: PathBuf, tensor: String, index: usize, value: f64 },
    /// The adapter was made for another base.
    #[error("the adapter {} was made for the base `{name}` ({expected}), but this base is {found}; use that base, or train the adapter on this one", .dir.display())]
    OtherBase { dir: PathBuf, name: String, expected: String, found: String },
    /// Module paths of adapter and base cannot be brought together.
    #[error("{}: {source}", .dir.display())]
    Align { dir: PathBuf, source: AlignError },
    /// Projections that the base has fused or split, where what was trained has no equal there.
    #[error("{}: its modules {modules} can't become the base's: {why}", .dir.display())]
    Projections { dir: PathBuf, modules: String, why: String },
    /// Something that PEFT's format cannot say.
    #[error("{} cannot be a plain PEFT adapter: {what}; {help}", .dir.display())]
    NotPeft { dir: PathBuf, what: String, help: &'static str },
    /// Nothing trained, or a composition that has no format.
    #[error("the adapter cannot be stored: {reason}")]
    Compose { reason: String },
}

fn plural(list: &[String], word: &str) -> String {
    if list.len() == 1 { format!("this {word}") } else { format!("these {word}s") }
}

impl Error {
    /// For `map_err`: an I/O error with its path and what was being done.
    pub(crate) fn io(path: &Path, doing: &'static str) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.to_path_buf();
        move |source| Error::Io { path, doing, source }
    }
}
