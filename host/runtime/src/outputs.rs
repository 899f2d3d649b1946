//! What a run gives back.

use std::sync::Arc;

use bytes::Bytes;
use graft_graph::{DType, Tensor};

use crate::error::{Result, RuntimeError};
use crate::lent::Lent;
use crate::session::Keep;
use crate::value::OrtValue;

/// The outputs of one run, in the order they were asked for. They stay valid on their own, also after the session is
/// gone.
pub struct Outputs {
    // Dropped before `_keep`, whose allocator they came from.
    entries: Vec<Entry>,
    _keep: Arc<Keep>,
}

struct Entry {
    name: String,
    kind: i32,
    shape: Vec<usize>,
    data: Data,
}

enum Data {
    /// Memory of ONNX Runtime's.
    Held(OrtValue),
    /// A copy of memory that was only lent for the run.
    Copied(Bytes),
}

impl std::fmt::Debug for Outputs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.entries.iter().map(|e| (&e.name, &e.shape))).finish()
    }
}

impl Outputs {
    pub(crate) fn new(keep: Arc<Keep>) -> Outputs {
        Outputs { entries: Vec::new(), _keep: keep }
    }

    /// Takes over an output. An output that is one of the inputs itself lies in memory that was lent for the run
    /// alone (`lent`), and is copied.
    pub(crate) fn push(&mut self, name: &str, value: OrtValue, lent: &[Lent]) -> Result<()> {
        let (kind, shape) = value.describe()?;
        let mut entry = Entry { name: name.to_owned(), kind, shape, data: Data::Held(value) };
        if let Some((start, _)) = entry.memory()?
            && lent.iter().any(|r| r.range.contains(&(start as usize)))
        {
            entry.data = Data::Copied(Bytes::copy_from_slice(entry.bytes()?));
        }
        self.entries.push(entry);
        Ok(())
    }

    /// Names in the order asked for.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|e| e.name.as_str())
    }

    /// The shape of an output.
    ///
    /// # Errors
    /// [`RuntimeError::UnknownName`] for an output that was not asked for.
    pub fn shape(&self, name: &str) -> Result<&[usize]> {
        Ok(&self.entry(name)?.shape)
    }

    /// The values of an f32 output, where they lie.
    ///
    /// # Errors
    /// [`RuntimeError::UnknownName`], and [`RuntimeError::OutputType`] for an output of another type.
    pub fn f32s(&self, name: &str) -> Result<&[f32]> {
        let entry = self.entry(name)?;
        entry.is(DType::F32)?;
        // SAFETY: any four bytes are an f32; alignment is handled by taking the aligned part and comparing lengths.
        let (head, values, tail) = unsafe { entry.bytes()?.align_to::<f32>() };
        debug_assert!(head.is_empty() && tail.is_empty(), "ONNX Runtime and Bytes align to more than 4");
        Ok(values)
    }

    /// The values of an i64 output, where they lie.
    ///
    /// # Errors
    /// As [`f32s`](Self::f32s).
    pub fn i64s(&self, name: &str) -> Result<&[i64]> {
        let entry = self.entry(name)?;
        entry.is(DType::I64)?;
        // SAFETY: any eight bytes are an i64.
        let (head, values, tail) = unsafe { entry.bytes()?.align_to::<i64>() };
        debug_assert!(head.is_empty() && tail.is_empty(), "ONNX Runtime and Bytes align to more than 8");
        Ok(values)
    }

    /// The one value of an f32 output with one element, such as a loss.
    ///
    /// # Errors
    /// As [`f32s`](Self::f32s), and [`RuntimeError::OutputType`] for an output of several elements.
    pub fn scalar(&self, name: &str) -> Result<f32> {
        match self.f32s(name)? {
            [one] => Ok(*one),
            _ => Err(RuntimeError::OutputType {
                name: name.to_owned(),
                expected: DType::F32,
                found: format!("a tensor of shape {:?}", self.shape(name)?),
            }),
        }
    }

    /// A copy of an output.
    ///
    /// # Errors
    /// [`RuntimeError::UnknownName`], and [`RuntimeError::UnsupportedType`] for strings and what is no tensor.
    pub fn tensor(&self, name: &str) -> Result<Tensor> {
        self.entry(name)?.tensor()
    }

    /// Copies of all outputs, by name.
    ///
    /// # Errors
    /// As [`tensor`](Self::tensor).
    pub fn tensors(&self) -> Result<Vec<(String, Tensor)>> {
        self.entries.iter().map(|e| Ok((e.name.clone(), e.tensor()?))).collect()
    }

    fn entry(&self, name: &str) -> Result<&Entry> {
        self.entries.iter().find(|e| e.name == name).ok_or_else(|| RuntimeError::UnknownName {
            session: "outputs of a run".into(),
            kind: "output",
            name: name.to_owned(),
            known: self.names().collect::<Vec<_>>().join(", "),
        })
    }
}

impl Entry {
    fn dtype(&self) -> Result<DType> {
        DType::from_onnx(self.kind).filter(|d| *d != DType::String).ok_or_else(|| {
            RuntimeError::UnsupportedType {
                name: self.name.clone(),
                dtype: DType::from_onnx(self.kind)
                    .map_or_else(|| format!("type {}", self.kind), |d| d.to_string()),
            }
        })
    }

    fn is(&self, expected: DType) -> Result<()> {
        let found = self.dtype()?;
        if found == expected {
            return Ok(());
        }
        Err(RuntimeError::OutputType { name: self.name.clone(), expected, found: found.to_string() })
    }

    /// Start and length of the elements; `None` for strings, which are no plain memory.
    fn memory(&self) -> Result<Option<(*const u8, usize)>> {
        let Ok(dtype) = self.dtype() else { return Ok(None) };
        let count = self.shape.iter().try_fold(1usize, |a, d| a.checked_mul(*d));
        let Some(len) = count.and_then(|c| dtype.bytes_of(c)) else { return Ok(None) };
        match &self.data {
            Data::Held(value) => Ok(Some((value.data()?.cast_const().cast(), len))),
            Data::Copied(bytes) => Ok(Some((bytes.as_ptr(), bytes.len()))),
        }
    }

    fn bytes(&self) -> Result<&[u8]> {
        if let Data::Copied(bytes) = &self.data {
            return Ok(bytes);
        }
        self.dtype()?;
        match self.memory()? {
            Some((start, len)) if len > 0 && !start.is_null() => {
                // SAFETY: ONNX Runtime made the tensor, of this shape and type and in host memory (outputs that are
                // not bound elsewhere are), and `self` holds it.
                Ok(unsafe { std::slice::from_raw_parts(start, len) })
            }
            _ => Ok(&[]),
        }
    }

    fn tensor(&self) -> Result<Tensor> {
        let data = match &self.data {
            Data::Copied(bytes) => bytes.clone(),
            Data::Held(_) => Bytes::copy_from_slice(self.bytes()?),
        };
        Tensor::from_bytes(self.dtype()?, self.shape.clone(), data)
            .map_err(|source| RuntimeError::Tensor { name: self.name.clone(), source })
    }
}
