//! The weights of a checkpoint directory: `model.safetensors`, or the shards that `model.safetensors.index.json` lists.
//! Files are mapped; tensors lie in the mappings.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use graft_graph::{DType, Tensor};
use indexmap::IndexMap;
use safetensors::tensor::{Dtype, SafeTensors};

use crate::config::read_json;
use crate::error::{ImportError, Result};

/// The weights in one file.
const WHOLE: &str = "model.safetensors";
/// The list of shards: `{"weight_map": {TENSOR: FILE}}`.
const INDEX: &str = "model.safetensors.index.json";
/// The longest index that is read, in bytes (some hundred thousand tensors).
const MAX_INDEX: u64 = 32 << 20;
/// The longest header that is parsed, in bytes.
const MAX_HEADER: u64 = 32 << 20;
/// The most shards that are opened.
const MAX_SHARDS: usize = 4096;

/// Tensors of a checkpoint by name, as the files have them.
pub(crate) type Tensors = IndexMap<String, Tensor>;

/// Weights that cannot be used, each with the reason.
const OTHERS: &[(&str, &str)] = &[
    ("pytorch_model.bin", "That is Python's pickle format, which is never read because it may run code"),
    (
        "pytorch_model.bin.index.json",
        "That is Python's pickle format, which is never read because it may run code",
    ),
    ("tf_model.h5", "TensorFlow's format is not read"),
    ("flax_model.msgpack", "Flax's format is not read"),
];

/// Maps the weights of `dir`.
///
/// Whoever truncates a mapped file while an import runs takes the process down; nothing here writes to one.
pub(crate) fn tensors(dir: &Path) -> Result<Tensors> {
    let whole = dir.join(WHOLE);
    let index = dir.join(INDEX);
    let files = if whole.is_file() {
        vec![whole]
    } else if index.is_file() {
        shards(dir, &index)?
    } else {
        return Err(no_weights(dir));
    };
    let mut all = Tensors::new();
    let mut origin: Vec<PathBuf> = Vec::new();
    for file in files {
        for (name, tensor) in read(&file)? {
            if let Some(at) = all.get_index_of(&name) {
                return Err(ImportError::Twice { tensor: name, first: origin[at].clone(), second: file });
            }
            all.insert(name, tensor);
            origin.push(file.clone());
        }
    }
    Ok(all)
}

fn no_weights(dir: &Path) -> ImportError {
    match OTHERS.iter().find(|(name, _)| dir.join(name).exists()) {
        Some((found, why)) => ImportError::OtherWeights { dir: dir.into(), found: (*found).into(), why },
        None => ImportError::NotACheckpoint {
            dir: dir.into(),
            missing: WHOLE,
            help: " (nor model.safetensors.index.json). Is the download complete?",
        },
    }
}

fn shards(dir: &Path, index: &Path) -> Result<Vec<PathBuf>> {
    let json = read_json(index, "the index", MAX_INDEX)?;
    let bad = |detail: String| ImportError::Json { path: index.into(), detail };
    let map = json
        .get("weight_map")
        .and_then(|m| m.as_object())
        .ok_or_else(|| bad("there is no object `weight_map`".into()))?;
    let mut names = BTreeSet::new();
    for (tensor, file) in map {
        let name = file.as_str().ok_or_else(|| bad(format!("weight_map.{tensor} is no file name")))?;
        // A name with a folder in it could reach out of the directory.
        if name.is_empty() || name == ".." || name.contains(['/', '\\', '\0']) {
            return Err(bad(format!("weight_map.{tensor}: '{name}' is not the name of a file beside it")));
        }
        names.insert(name);
        if names.len() > MAX_SHARDS {
            return Err(bad(format!("there are more than {MAX_SHARDS} shards")));
        }
    }
    Ok(names.into_iter().map(|n| dir.join(n)).collect())
}

/// The tensors of one file, in the order of their names.
fn read(path: &Path) -> Result<Vec<(String, Tensor)>> {
    let bad = |detail: String| ImportError::Safetensors { path: path.into(), detail };
    let file = File::open(path).map_err(ImportError::io(path, "opening"))?;
    // SAFETY: the mapping is read-only; nothing here writes to a checkpoint. A truncation by another program while
    // it is mapped ends in SIGBUS, as `tensors` says.
    let map = unsafe { memmap2::Mmap::map(&file) }.map_err(ImportError::io(path, "mapping"))?;
    let data = Bytes::from_owner(map);
    let length = data.first_chunk::<8>().map(|b| u64::from_le_bytes(*b));
    let length = length.ok_or_else(|| bad("it is shorter than 8 bytes".into()))?;
    if length > MAX_HEADER {
        return Err(bad(format!("its header would take {length} bytes, more than the {MAX_HEADER} allowed")));
    }
    let (header, metadata) = SafeTensors::read_metadata(&data).map_err(|e| bad(e.to_string()))?;
    let body = data.slice(8 + header..);
    let mut out = Vec::new();
    for (name, info) in metadata.tensors() {
        let dtype = dtype(info.dtype).ok_or_else(|| ImportError::TensorType {
            dir: path.into(),
            tensor: name.clone(),
            dtype: info.dtype.to_string(),
        })?;
        // `read_metadata` has checked that offsets are in order, inside the file and as long as the shape says.
        let bytes = body.slice(info.data_offsets.0..info.data_offsets.1);
        let tensor = Tensor::from_bytes(dtype, info.shape.clone(), bytes)
            .map_err(|e| bad(format!("tensor `{name}`: {e}")))?;
        out.push((name, tensor));
    }
    out.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    Ok(out)
}

fn dtype(stored: Dtype) -> Option<DType> {
    Some(match stored {
        Dtype::BOOL => DType::Bool,
        Dtype::U8 => DType::U8,
        Dtype::I8 => DType::I8,
        Dtype::I16 => DType::I16,
        Dtype::U16 => DType::U16,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::I32 => DType::I32,
        Dtype::U32 => DType::U32,
        Dtype::F32 => DType::F32,
        Dtype::F64 => DType::F64,
        Dtype::I64 => DType::I64,
        Dtype::U64 => DType::U64,
        _ => return None,
    })
}
