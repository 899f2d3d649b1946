//! Plain data of the SDK: element types, tensors, shapes.

use std::fmt;

use crate::{Code, Error, Result, wire};

/// Element type, by ONNX's number (`TensorProto.DataType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DType(pub u32);

impl DType {
    /// 32-bit float.
    pub const F32: DType = DType(1);
    /// Unsigned byte.
    pub const U8: DType = DType(2);
    /// 32-bit integer.
    pub const I32: DType = DType(6);
    /// 64-bit integer.
    pub const I64: DType = DType(7);
    /// Truth value, one byte.
    pub const BOOL: DType = DType(9);
    /// 16-bit float.
    pub const F16: DType = DType(10);
    /// 64-bit float.
    pub const F64: DType = DType(11);
    /// Brain float.
    pub const BF16: DType = DType(16);
}

/// A dimension of a shape.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Dim {
    /// A number.
    Known(u64),
    /// A name, such as `batch`.
    Symbol(String),
    /// Nothing is known.
    Unknown,
}

impl Dim {
    /// The number, if it is one.
    pub fn known(&self) -> Option<u64> {
        if let Dim::Known(n) = self { Some(*n) } else { None }
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Known(n) => write!(f, "{n}"),
            Dim::Symbol(s) => f.write_str(s),
            Dim::Unknown => f.write_str("?"),
        }
    }
}

impl From<u64> for Dim {
    fn from(n: u64) -> Dim {
        Dim::Known(n)
    }
}

impl From<&str> for Dim {
    fn from(s: &str) -> Dim {
        Dim::Symbol(s.to_owned())
    }
}

impl From<wire::Dim> for Dim {
    fn from(d: wire::Dim) -> Dim {
        match d.value {
            Some(wire::DimValue::Known(n)) => Dim::Known(n),
            Some(wire::DimValue::Symbol(s)) => Dim::Symbol(s),
            None => Dim::Unknown,
        }
    }
}

impl From<Dim> for wire::Dim {
    fn from(d: Dim) -> wire::Dim {
        let value = match d {
            Dim::Known(n) => Some(wire::DimValue::Known(n)),
            Dim::Symbol(s) => Some(wire::DimValue::Symbol(s)),
            Dim::Unknown => None,
        };
        wire::Dim { value }
    }
}

/// Element type and shape of a value; either may be unknown.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fact {
    /// Element type.
    pub dtype: Option<DType>,
    /// Dimensions, if the rank is known.
    pub shape: Option<Vec<Dim>>,
}

impl From<wire::Fact> for Fact {
    fn from(f: wire::Fact) -> Fact {
        Fact {
            dtype: (f.dtype != 0).then_some(DType(f.dtype)),
            shape: f.ranked.then(|| f.shape.into_iter().map(Dim::from).collect()),
        }
    }
}

impl From<Fact> for wire::Fact {
    fn from(f: Fact) -> wire::Fact {
        wire::Fact {
            dtype: f.dtype.map_or(0, |d| d.0),
            ranked: f.shape.is_some(),
            shape: f.shape.unwrap_or_default().into_iter().map(Into::into).collect(),
        }
    }
}

/// A dense tensor with a name; row-major, little-endian.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Name; empty where none is needed.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Dimensions.
    pub shape: Vec<usize>,
    /// The bytes.
    pub data: Vec<u8>,
}

impl Tensor {
    /// A tensor of f32. `values` has as many elements as the shape.
    pub fn f32s(name: &str, shape: &[usize], values: &[f32]) -> Tensor {
        let data = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Tensor { name: name.to_owned(), dtype: DType::F32, shape: shape.to_vec(), data }
    }

    /// A tensor of i64. `values` has as many elements as the shape.
    pub fn i64s(name: &str, shape: &[usize], values: &[i64]) -> Tensor {
        let data = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Tensor { name: name.to_owned(), dtype: DType::I64, shape: shape.to_vec(), data }
    }

    /// The elements of an f32 tensor.
    ///
    /// # Errors
    /// `DATA` when it holds another type.
    pub fn to_f32s(&self) -> Result<Vec<f32>> {
        self.elements(DType::F32, f32::from_le_bytes)
    }

    /// The elements of an i64 tensor.
    ///
    /// # Errors
    /// `DATA` when it holds another type.
    pub fn to_i64s(&self) -> Result<Vec<i64>> {
        self.elements(DType::I64, i64::from_le_bytes)
    }

    fn elements<T, const N: usize>(&self, dtype: DType, get: impl Fn([u8; N]) -> T) -> Result<Vec<T>> {
        let count = self.shape.iter().try_fold(N, |a, d| a.checked_mul(*d));
        if self.dtype != dtype || count != Some(self.data.len()) {
            return Err(Error::new(
                Code::DATA,
                format!(
                    "tensor `{}` of type {} with shape {:?} and {} bytes cannot be read as type {}",
                    self.name,
                    self.dtype.0,
                    self.shape,
                    self.data.len(),
                    dtype.0
                ),
            ));
        }
        Ok(self.data.as_chunks::<N>().0.iter().map(|b| get(*b)).collect())
    }
}

/// The tensor called `name`.
///
/// # Errors
/// `DATA` naming the tensors that there are.
pub fn tensor<'a>(tensors: &'a [Tensor], name: &str) -> Result<&'a Tensor> {
    tensors.iter().find(|t| t.name == name).ok_or_else(|| {
        let there: Vec<_> = tensors.iter().map(|t| format!("`{}`", t.name)).collect();
        Error::new(Code::DATA, format!("there is no tensor `{name}`, only {}", there.join(", ")))
    })
}

impl From<wire::Tensor> for Tensor {
    fn from(t: wire::Tensor) -> Tensor {
        let shape = t.shape.iter().map(|d| usize::try_from(*d).unwrap_or(usize::MAX)).collect();
        Tensor { name: t.name, dtype: DType(t.dtype), shape, data: t.data }
    }
}

impl From<Tensor> for wire::Tensor {
    fn from(t: Tensor) -> wire::Tensor {
        let shape = t.shape.iter().map(|d| *d as u64).collect();
        wire::Tensor { name: t.name, dtype: t.dtype.0, shape, data: t.data }
    }
}
