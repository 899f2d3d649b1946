//! safetensors files: a JSON header and the tensors' bytes.

use std::borrow::Cow;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use bytes::Bytes;
use graft_graph::{DType, Tensor};
use indexmap::IndexMap;
use safetensors::tensor::{Dtype, Metadata, SafeTensors, TensorInfo};

use crate::atomic::{Content, write_file};
use crate::error::{Error, Result};

/// Named tensors, in the order of their names when read from a file.
pub type Tensors = IndexMap<String, Tensor>;

/// The longest header that is parsed, in bytes (some 100 000 tensors).
pub const MAX_HEADER: u64 = 16 << 20;

/// The largest file that [`read_tensors_owned`] takes into memory, in bytes.
pub(crate) const MAX_OWNED: u64 = 2 << 30;

/// Reads a safetensors file without copying: the tensors lie in the mapped file.
///
/// Whoever truncates the file in place while its tensors are alive takes the process down; [`write_tensors`] does not
/// (it replaces the file), and for files that other programs may rewrite there is [`read_tensors_owned`].
///
/// # Errors
/// [`Error::Io`], [`Error::TooLarge`], [`Error::Safetensors`] and [`Error::TensorType`], naming file and tensor.
pub fn read_tensors(path: &Path) -> Result<Tensors> {
    let file = open(path)?;
    check_header_length(path, &file)?;
    // SAFETY: the mapping is read-only and private to this process. Nothing here writes to a mapped file: files are
    // replaced by renaming. A foreign truncation while mapped ends in SIGBUS, as documented.
    let map = unsafe { memmap2::Mmap::map(&file) }.map_err(Error::io(path, "mapping"))?;
    parse(path, Bytes::from_owner(map))
}

/// Reads a safetensors file into memory; nothing that happens to the file later can matter.
///
/// # Errors
/// As [`read_tensors`].
pub fn read_tensors_owned(path: &Path) -> Result<Tensors> {
    parse(path, read_limited(path, "the file", MAX_OWNED)?)
}

/// Opens a regular file. Opening a pipe would wait for a writer that never comes.
pub(crate) fn open(path: &Path) -> Result<File> {
    let meta = std::fs::metadata(path).map_err(Error::io(path, "opening"))?;
    if !meta.is_file() {
        let e = std::io::Error::new(std::io::ErrorKind::InvalidInput, "it is not a regular file");
        return Err(Error::io(path, "opening")(e));
    }
    File::open(path).map_err(Error::io(path, "opening"))
}

/// A file's bytes, refused before reading when there are more than `limit`.
pub(crate) fn read_limited(path: &Path, what: &'static str, limit: u64) -> Result<Bytes> {
    let file = open(path)?;
    let meta = file.metadata().map_err(Error::io(path, "reading"))?;
    let too_large = |bytes| Error::TooLarge { path: path.to_path_buf(), what, bytes, limit };
    if meta.len() > limit {
        return Err(too_large(meta.len()));
    }
    let mut out = Vec::new();
    let no_memory = |_| Error::io(path, "reading")(std::io::ErrorKind::OutOfMemory.into());
    out.try_reserve_exact(meta.len() as usize).map_err(no_memory)?;
    // The file may grow while it is read: never read beyond the limit.
    file.take(limit + 1).read_to_end(&mut out).map_err(Error::io(path, "reading"))?;
    if out.len() as u64 > limit { Err(too_large(out.len() as u64)) } else { Ok(Bytes::from(out)) }
}

fn bad(path: &Path, reason: impl ToString) -> Error {
    Error::Safetensors { path: path.to_path_buf(), reason: reason.to_string() }
}

fn check_header_length(path: &Path, mut file: &File) -> Result<()> {
    let mut length = [0; 8];
    match file.read_exact(&mut length) {
        Ok(()) => check_length(path, u64::from_le_bytes(length)),
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
            Err(bad(path, "it is shorter than 8 bytes"))
        }
        Err(e) => Err(Error::io(path, "reading")(e)),
    }
}

fn check_length(path: &Path, bytes: u64) -> Result<()> {
    if bytes > MAX_HEADER {
        return Err(Error::TooLarge {
            path: path.to_path_buf(),
            what: "the header",
            bytes,
            limit: MAX_HEADER,
        });
    }
    Ok(())
}

pub(crate) fn parse(path: &Path, data: Bytes) -> Result<Tensors> {
    let length = data.first_chunk::<8>().ok_or_else(|| bad(path, "it is shorter than 8 bytes"))?;
    check_length(path, u64::from_le_bytes(*length))?;
    let (header, metadata) = SafeTensors::read_metadata(&data).map_err(|e| bad(path, e))?;
    let body = data.slice(8 + header..);
    let mut out = Tensors::new();
    for (name, info) in metadata.tensors() {
        let dtype = from_file(info.dtype).ok_or_else(|| Error::TensorType {
            path: path.to_path_buf(),
            tensor: name.clone(),
            dtype: info.dtype.to_string(),
            done: "read",
        })?;
        // `read_metadata` has checked that the offsets are in order, inside the file and as long as the shape says.
        let bytes = body.slice(info.data_offsets.0..info.data_offsets.1);
        let tensor = Tensor::from_bytes(dtype, info.shape.clone(), bytes)
            .map_err(|e| bad(path, format!("tensor `{name}`: {e}")))?;
        out.insert(name, tensor);
    }
    out.sort_unstable_keys();
    Ok(out)
}

/// Writes a safetensors file as PyTorch's own writer does (`{"format":"pt"}`, tensors by falling alignment, then by
/// name), so that the same tensors always give the same bytes. The file is replaced whole or left as it was.
///
/// # Errors
/// [`Error::Io`], or [`Error::TensorType`] for strings and 4-bit integers, which the format does not have.
pub fn write_tensors<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
) -> Result<()> {
    let content = content(path, tensors)?;
    write_file(path, |out| content.iter().try_for_each(|piece| out.write_all(piece)))
}

/// What [`write_tensors`] would write.
pub(crate) fn content<'n, 't>(
    path: &Path,
    tensors: impl IntoIterator<Item = (&'n str, &'t Tensor)>,
) -> Result<Content<'t>> {
    let (header, sorted) = header(path, tensors)?;
    let data = sorted.into_iter().map(|t| Cow::Borrowed(t.bytes().as_ref()));
    Ok(std::iter::once(Cow::Owned(header)).chain(data).collect())
}

fn header<'n, 'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = (&'n str, &'a Tensor)>,
) -> Result<(Vec<u8>, Vec<&'a Tensor>)> {
    let mut all = Vec::new();
    for (name, tensor) in tensors {
        let dtype = to_file(tensor.dtype()).ok_or_else(|| Error::TensorType {
            path: path.to_path_buf(),
            tensor: name.to_string(),
            dtype: tensor.dtype().to_string(),
            done: "written",
        })?;
        all.push((dtype, name, tensor));
    }
    all.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
    let mut start = 0;
    let mut infos = Vec::with_capacity(all.len());
    for (dtype, name, tensor) in &all {
        let end = start + tensor.bytes().len();
        let info = TensorInfo { dtype: *dtype, shape: tensor.shape().to_vec(), data_offsets: (start, end) };
        infos.push((name.to_string(), info));
        start = end;
    }
    let format = [("format".to_string(), "pt".to_string())].into_iter().collect();
    let metadata = Metadata::new(Some(format), infos).map_err(|e| bad(path, e))?;
    let json = serde_json::to_vec(&metadata).map_err(|e| bad(path, e))?;
    let length = json.len().next_multiple_of(8);
    check_length(path, length as u64)?;
    let mut out = (length as u64).to_le_bytes().to_vec();
    out.extend_from_slice(&json);
    out.resize(8 + length, b' ');
    Ok((out, all.into_iter().map(|(_, _, t)| t).collect()))
}

const TYPES: [(Dtype, DType); 13] = [
    (Dtype::BOOL, DType::Bool),
    (Dtype::U8, DType::U8),
    (Dtype::I8, DType::I8),
    (Dtype::I16, DType::I16),
    (Dtype::U16, DType::U16),
    (Dtype::F16, DType::F16),
    (Dtype::BF16, DType::BF16),
    (Dtype::I32, DType::I32),
    (Dtype::U32, DType::U32),
    (Dtype::F32, DType::F32),
    (Dtype::F64, DType::F64),
    (Dtype::I64, DType::I64),
    (Dtype::U64, DType::U64),
];

fn from_file(dtype: Dtype) -> Option<DType> {
    TYPES.iter().find(|t| t.0 == dtype).map(|t| t.1)
}

fn to_file(dtype: DType) -> Option<Dtype> {
    TYPES.iter().find(|t| t.1 == dtype).map(|t| t.0)
}
