//! Tensors of the protobuf: inline, in typed fields, or in a file beside the model.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::OnnxError;
use super::proto::{Entry, TensorProto};
use crate::tensor::{DType, Element, Tensor};

/// The files that the constants of a graph are mapped from, by their names below the model's folder.
#[derive(Clone, Default)]
pub struct MappedFiles(Arc<Vec<(String, Bytes)>>);

impl MappedFiles {
    pub(super) fn new(files: Vec<(String, Bytes)>) -> MappedFiles {
        MappedFiles(Arc::new(files))
    }

    /// The file that `bytes` are mapped from, and where they begin in it.
    pub fn place(&self, bytes: &Bytes) -> Option<(&str, u64)> {
        let at = bytes.as_ptr() as usize;
        self.0.iter().find_map(|(name, file)| {
            let offset = at.checked_sub(file.as_ptr() as usize)?;
            let inside = offset.checked_add(bytes.len()).is_some_and(|end| end <= file.len());
            inside.then_some((name.as_str(), offset as u64))
        })
    }
}

/// Maps a file for reading; its bytes stay mapped as long as a tensor uses them.
pub(super) fn map_file(path: &Path) -> std::io::Result<Bytes> {
    // Opening a pipe would wait for somebody to write into it.
    if !std::fs::metadata(path)?.is_file() {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let file = File::open(path)?;
    if file.metadata()?.len() == 0 {
        return Ok(Bytes::new());
    }
    // SAFETY: the mapping is private and read-only. A file that somebody truncates while it is mapped can raise
    // SIGBUS; bases are read-only by contract (see SECURITY.md), as for every program that maps its weights.
    let map = unsafe { memmap2::MmapOptions::new().map_copy_read_only(&file)? };
    Ok(Bytes::from_owner(map))
}

/// Reads tensors of one model; external files are mapped once.
pub(super) struct TensorReader<'a> {
    path: &'a Path,
    files: HashMap<String, Bytes>,
}

impl<'a> TensorReader<'a> {
    pub(super) fn new(path: &'a Path) -> Self {
        TensorReader { path, files: HashMap::new() }
    }

    /// The mapped external data files, by their locations.
    pub(super) fn mapped(&self) -> impl Iterator<Item = (String, Bytes)> + '_ {
        self.files.iter().map(|(name, bytes)| (name.clone(), bytes.clone()))
    }

    /// The external data files that tensors were read from, sorted.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let mut names: Vec<&String> = self.files.keys().collect();
        names.sort_unstable();
        names.into_iter().map(|n| self.path.parent().unwrap_or(Path::new("")).join(n)).collect()
    }

    pub(super) fn read(&mut self, t: &TensorProto) -> Result<Tensor, OnnxError> {
        let invalid = |detail: String| OnnxError::Invalid { path: self.path.to_path_buf(), detail };
        let dtype = DType::from_onnx(t.data_type).filter(|d| *d != DType::String).ok_or_else(|| {
            invalid(format!(
                "initializer '{}' has element type {}, which is not supported",
                t.name, t.data_type
            ))
        })?;
        let shape = t
            .dims
            .iter()
            .map(|d| usize::try_from(*d).ok())
            .collect::<Option<Vec<usize>>>()
            .ok_or_else(|| invalid(format!("initializer '{}' has a negative dimension", t.name)))?;
        let data = if t.data_location == 1 { self.external(t, dtype, &shape)? } else { inline(t, dtype) };
        Tensor::from_bytes(dtype, shape, data).map_err(|source| OnnxError::Tensor {
            path: self.path.to_path_buf(),
            name: t.name.clone(),
            source,
        })
    }

    fn external(&mut self, t: &TensorProto, dtype: DType, shape: &[usize]) -> Result<Bytes, OnnxError> {
        let get = |key: &str| t.external_data.iter().find(|e| e.key == key).map(|e| e.value.as_str());
        let location = get("location").unwrap_or_default().to_string();
        let fail = |detail: String| OnnxError::External {
            path: self.path.to_path_buf(),
            name: t.name.clone(),
            location: location.clone(),
            detail,
        };
        let number = |key: &str| -> Result<Option<usize>, OnnxError> {
            get(key).map(|v| v.parse().map_err(|_| fail(format!("{key} '{v}' is not a number")))).transpose()
        };
        let inside =
            Path::new(&location).components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
        if location.is_empty() || !inside {
            return Err(fail("the location must be a path below the model's own folder".into()));
        }
        let offset = number("offset")?.unwrap_or(0);
        let count = shape.iter().try_fold(1usize, |a, d| a.checked_mul(*d));
        let size = count.and_then(|c| dtype.bytes_of(c)).ok_or_else(|| fail("the size overflows".into()))?;
        let length = number("length")?.unwrap_or(size);
        if !self.files.contains_key(&location) {
            let file: PathBuf = self.path.parent().unwrap_or(Path::new("")).join(&location);
            let bytes =
                map_file(&file).map_err(|e| fail(format!("{e}. Keep the data file beside the model")))?;
            self.files.insert(location.clone(), bytes);
        }
        let bytes = &self.files[&location];
        let end = offset.checked_add(length).filter(|e| *e <= bytes.len()).ok_or_else(|| {
            fail(format!("the file has {} bytes, the tensor wants {length} from {offset}", bytes.len()))
        })?;
        Ok(bytes.slice(offset..end))
    }
}

fn inline(t: &TensorProto, dtype: DType) -> Bytes {
    fn put<T: Element>(values: impl Iterator<Item = T>) -> Bytes {
        let mut out = Vec::new();
        values.for_each(|v| v.put(&mut out));
        Bytes::from(out)
    }
    if !t.raw_data.is_empty() {
        return t.raw_data.clone();
    }
    let small = || t.int32_data.iter();
    match dtype {
        DType::F32 => put(t.float_data.iter().copied()),
        DType::F64 => put(t.double_data.iter().copied()),
        DType::I64 => put(t.int64_data.iter().copied()),
        DType::I32 => put(t.int32_data.iter().copied()),
        DType::U32 => put(t.uint64_data.iter().map(|v| *v as u32)),
        DType::U64 => put(t.uint64_data.iter().copied()),
        DType::U16 | DType::I16 | DType::F16 | DType::BF16 => put(small().map(|v| *v as u16)),
        DType::U8 | DType::I8 | DType::Bool | DType::U4 | DType::I4 => put(small().map(|v| *v as u8)),
        DType::String => Bytes::new(),
    }
}

/// The protobuf form of a tensor whose data are inside.
pub(super) fn inline_proto(name: &str, t: &Tensor) -> TensorProto {
    TensorProto { raw_data: t.bytes().clone(), ..head(name, t) }
}

/// The protobuf form of a tensor whose data lie in a file beside the model.
pub(super) fn external_proto(name: &str, t: &Tensor, location: &str, offset: u64) -> TensorProto {
    let entry = |key: &str, value: String| Entry { key: key.into(), value };
    let external_data = vec![
        entry("location", location.into()),
        entry("offset", offset.to_string()),
        entry("length", t.bytes().len().to_string()),
    ];
    TensorProto { external_data, data_location: 1, ..head(name, t) }
}

fn head(name: &str, t: &Tensor) -> TensorProto {
    TensorProto {
        name: name.into(),
        data_type: t.dtype().onnx(),
        dims: t.shape().iter().map(|d| *d as i64).collect(),
        ..TensorProto::default()
    }
}
