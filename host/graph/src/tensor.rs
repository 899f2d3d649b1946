//! Tensors: element type, shape and little-endian bytes that may lie in a mapped file.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;

/// Element types, with the numbers that ONNX gives them (`TensorProto.DataType`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(i32)]
#[allow(missing_docs)]
pub enum DType {
    F32 = 1,
    U8 = 2,
    I8 = 3,
    U16 = 4,
    I16 = 5,
    I32 = 6,
    I64 = 7,
    String = 8,
    Bool = 9,
    F16 = 10,
    F64 = 11,
    U32 = 12,
    U64 = 13,
    BF16 = 16,
    U4 = 21,
    I4 = 22,
}

impl DType {
    const ALL: [DType; 16] = [
        DType::F32,
        DType::U8,
        DType::I8,
        DType::U16,
        DType::I16,
        DType::I32,
        DType::I64,
        DType::String,
        DType::Bool,
        DType::F16,
        DType::F64,
        DType::U32,
        DType::U64,
        DType::BF16,
        DType::U4,
        DType::I4,
    ];

    /// The type with ONNX's number `n`, if Graft knows it.
    pub fn from_onnx(n: i32) -> Option<DType> {
        Self::ALL.into_iter().find(|d| *d as i32 == n)
    }

    /// ONNX's number of this type.
    pub fn onnx(self) -> i32 {
        self as i32
    }

    /// Bits an element takes; 0 for strings, which have no fixed size.
    pub fn bits(self) -> usize {
        match self {
            DType::U4 | DType::I4 => 4,
            DType::U8 | DType::I8 | DType::Bool => 8,
            DType::U16 | DType::I16 | DType::F16 | DType::BF16 => 16,
            DType::F32 | DType::I32 | DType::U32 => 32,
            DType::F64 | DType::I64 | DType::U64 => 64,
            DType::String => 0,
        }
    }

    /// Bytes that `count` elements take, `None` on overflow or for strings.
    pub fn bytes_of(self, count: usize) -> Option<usize> {
        match self {
            DType::String => None,
            d => count.checked_mul(d.bits()).map(|b| b.div_ceil(8)),
        }
    }

    /// True for f16, bf16, f32 and f64: the types that carry gradients.
    pub fn is_float(self) -> bool {
        matches!(self, DType::F16 | DType::BF16 | DType::F32 | DType::F64)
    }

    /// The name used in messages: `f32`, `i64`, `bool` …
    pub fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::U8 => "u8",
            DType::I8 => "i8",
            DType::U16 => "u16",
            DType::I16 => "i16",
            DType::I32 => "i32",
            DType::I64 => "i64",
            DType::String => "string",
            DType::Bool => "bool",
            DType::F16 => "f16",
            DType::F64 => "f64",
            DType::U32 => "u32",
            DType::U64 => "u64",
            DType::BF16 => "bf16",
            DType::U4 => "u4",
            DType::I4 => "i4",
        }
    }
}

impl fmt::Debug for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why bytes are not the tensor they are said to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    /// The shape's product overflows, or strings were asked for.
    #[error("a tensor of {dtype} with shape {shape:?} has no size that can be computed")]
    Size {
        /// Element type.
        dtype: DType,
        /// Dimensions.
        shape: Vec<usize>,
    },
    /// Wrong number of bytes.
    #[error("a tensor of {dtype} with shape {shape:?} takes {expected} bytes, but there are {found}")]
    Length {
        /// Element type.
        dtype: DType,
        /// Dimensions.
        shape: Vec<usize>,
        /// Bytes the shape asks for.
        expected: usize,
        /// Bytes there are.
        found: usize,
    },
    /// Another element type is needed.
    #[error("a tensor of {expected} is needed, this one is of {found}")]
    DType {
        /// What the caller reads.
        expected: DType,
        /// What the tensor holds.
        found: DType,
    },
}

/// A dense tensor in row-major order, little-endian. Cloning shares the bytes, which may lie in a mapped file
/// (and then need not be aligned).
#[derive(Clone, PartialEq)]
pub struct Tensor {
    dtype: DType,
    shape: Vec<usize>,
    data: Bytes,
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({} {:?})", self.dtype, self.shape)
    }
}

/// Rust types that are elements of a tensor.
pub trait Element: Copy + Default + Send + Sync + 'static {
    /// The element type they stand for.
    const DTYPE: DType;
    /// Appends the little-endian bytes.
    fn put(self, out: &mut Vec<u8>);
    /// Reads the little-endian bytes; `bytes` has exactly the element's size.
    fn get(bytes: &[u8]) -> Self;
}

macro_rules! element {
    ($($t:ty => $d:ident),*) => {$(
        impl Element for $t {
            const DTYPE: DType = DType::$d;
            fn put(self, out: &mut Vec<u8>) { out.extend_from_slice(&self.to_le_bytes()) }
            fn get(bytes: &[u8]) -> Self {
                let mut b = [0u8; size_of::<$t>()];
                b.copy_from_slice(bytes);
                <$t>::from_le_bytes(b)
            }
        }
    )*};
}
element!(f32 => F32, f64 => F64, i64 => I64, i32 => I32, u8 => U8, i8 => I8, u16 => U16, i16 => I16, u32 => U32, u64 => U64, half::f16 => F16, half::bf16 => BF16);

impl Element for bool {
    const DTYPE: DType = DType::Bool;
    fn put(self, out: &mut Vec<u8>) {
        out.push(self as u8)
    }
    fn get(bytes: &[u8]) -> Self {
        bytes[0] != 0
    }
}

impl Tensor {
    /// A tensor over bytes that are there already (shared, not copied).
    ///
    /// # Errors
    /// [`TensorError::Length`] when the bytes are not exactly what the shape takes.
    pub fn from_bytes(
        dtype: DType,
        shape: impl Into<Vec<usize>>,
        data: Bytes,
    ) -> Result<Tensor, TensorError> {
        let shape = shape.into();
        let count = shape.iter().try_fold(1usize, |a, d| a.checked_mul(*d));
        let expected = count.and_then(|c| dtype.bytes_of(c));
        match expected {
            None => Err(TensorError::Size { dtype, shape }),
            Some(n) if n != data.len() => {
                Err(TensorError::Length { dtype, shape, expected: n, found: data.len() })
            }
            Some(_) => Ok(Tensor { dtype, shape, data }),
        }
    }

    /// A tensor of the given elements, row-major.
    ///
    /// # Errors
    /// [`TensorError::Length`] when `values` are not as many as the shape asks for.
    pub fn new<T: Element>(shape: impl Into<Vec<usize>>, values: &[T]) -> Result<Tensor, TensorError> {
        let mut out = Vec::with_capacity(size_of_val(values));
        values.iter().for_each(|v| v.put(&mut out));
        Tensor::from_bytes(T::DTYPE, shape, Bytes::from(out))
    }

    /// A scalar (shape `[]`).
    pub fn scalar<T: Element>(value: T) -> Tensor {
        let mut out = Vec::new();
        value.put(&mut out);
        Tensor { dtype: T::DTYPE, shape: Vec::new(), data: Bytes::from(out) }
    }

    /// A one-dimensional tensor.
    pub fn vector<T: Element>(values: &[T]) -> Tensor {
        let mut out = Vec::with_capacity(size_of_val(values));
        values.iter().for_each(|v| v.put(&mut out));
        Tensor { dtype: T::DTYPE, shape: vec![values.len()], data: Bytes::from(out) }
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Dimensions.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// True when a dimension is zero.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes, little-endian, row-major; not necessarily aligned to the element.
    pub fn bytes(&self) -> &Bytes {
        &self.data
    }

    /// The same bytes under another shape of as many elements.
    ///
    /// # Errors
    /// [`TensorError::Length`] when the element count differs.
    pub fn reshape(&self, shape: impl Into<Vec<usize>>) -> Result<Tensor, TensorError> {
        Tensor::from_bytes(self.dtype, shape, self.data.clone())
    }

    /// The elements, borrowed when the bytes are aligned, copied otherwise.
    ///
    /// # Errors
    /// [`TensorError::DType`] when the tensor holds another type.
    pub fn values<T: Element>(&self) -> Result<Cow<'_, [T]>, TensorError> {
        if T::DTYPE != self.dtype {
            return Err(TensorError::DType { expected: T::DTYPE, found: self.dtype });
        }
        // Bool is left out: a byte that is neither 0 nor 1 must not become a Rust bool by reinterpretation.
        if T::DTYPE != DType::Bool {
            // SAFETY: every `Element` but bool is a plain number for which any bit pattern is valid; `align_to`
            // itself only yields the aligned middle part.
            let (head, body, tail) = unsafe { self.data.align_to::<T>() };
            if head.is_empty() && tail.is_empty() && cfg!(target_endian = "little") {
                return Ok(Cow::Borrowed(body));
            }
        }
        Ok(Cow::Owned(self.data.chunks_exact(size_of::<T>().max(1)).map(T::get).collect()))
    }

    /// Integers of any width, or bools, as `i64`; `None` for floats, strings and packed types.
    pub fn to_i64s(&self) -> Option<Vec<i64>> {
        fn all<T: Element>(t: &Tensor, f: impl Fn(T) -> i64) -> Option<Vec<i64>> {
            Some(t.values::<T>().ok()?.iter().map(|v| f(*v)).collect())
        }
        match self.dtype {
            DType::I64 => all::<i64>(self, |v| v),
            DType::I32 => all::<i32>(self, i64::from),
            DType::I16 => all::<i16>(self, i64::from),
            DType::I8 => all::<i8>(self, i64::from),
            DType::U8 => all::<u8>(self, i64::from),
            DType::U16 => all::<u16>(self, i64::from),
            DType::U32 => all::<u32>(self, i64::from),
            DType::Bool => all::<bool>(self, i64::from),
            _ => None,
        }
    }

    /// Floats of any width as `f64`; `None` for other types.
    pub fn to_f64s(&self) -> Option<Vec<f64>> {
        fn all<T: Element>(t: &Tensor, f: impl Fn(T) -> f64) -> Option<Vec<f64>> {
            Some(t.values::<T>().ok()?.iter().map(|v| f(*v)).collect())
        }
        match self.dtype {
            DType::F32 => all::<f32>(self, f64::from),
            DType::F64 => all::<f64>(self, |v| v),
            DType::F16 => all::<half::f16>(self, f64::from),
            DType::BF16 => all::<half::bf16>(self, f64::from),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_do_not_fill_the_shape_are_refused() {
        let e = Tensor::from_bytes(DType::F32, [2, 2], Bytes::from_static(&[0; 15])).unwrap_err();
        assert!(matches!(e, TensorError::Length { expected: 16, found: 15, .. }));
        assert!(matches!(
            Tensor::from_bytes(DType::F32, [usize::MAX, 2], Bytes::new()),
            Err(TensorError::Size { .. })
        ));
    }

    #[test]
    fn values_are_read_from_unaligned_bytes_too() {
        let mut b = vec![0u8];
        b.extend_from_slice(&1.5f32.to_le_bytes());
        let t = Tensor::from_bytes(DType::F32, [1], Bytes::from(b).slice(1..)).unwrap();
        assert_eq!(&*t.values::<f32>().unwrap(), &[1.5]);
        assert!(t.values::<i64>().is_err());
    }
}
