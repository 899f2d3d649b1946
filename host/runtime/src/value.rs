//! Tensors as ONNX Runtime sees them: views over memory that is there already, and values that it owns.

use std::ffi::c_void;
use std::ptr::{self, NonNull};

use graft_graph::{DType, Element, Tensor, TensorError};
use ort::sys;

use crate::device::DeviceTensor;
use crate::error::{Doing, Result, RuntimeError};

/// Borrowed numbers with an element type and a shape: what a run takes as input, without a copy.
///
/// Bytes that are not aligned to their element are copied by the run.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    dtype: DType,
    shape: &'a [usize],
    place: Place<'a>,
}

/// Where the numbers of a view lie.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place<'a> {
    /// In memory of the process.
    Host(&'a [u8]),
    /// On a device, from this number on.
    Device(&'a DeviceTensor, usize),
}

impl<'a> View<'a> {
    /// A view of `values` in row-major order.
    ///
    /// # Errors
    /// [`TensorError`] when `values` are not as many as `shape` asks for.
    pub fn new<T: Element>(shape: &'a [usize], values: &'a [T]) -> Result<View<'a>, TensorError> {
        // SAFETY: every `Element` is a number or bool without padding, so all its bytes are initialised.
        let bytes = unsafe { std::slice::from_raw_parts(values.as_ptr().cast::<u8>(), size_of_val(values)) };
        let count = shape.iter().try_fold(1usize, |a, d| a.checked_mul(*d));
        match count.and_then(|c| T::DTYPE.bytes_of(c)) {
            None => Err(TensorError::Size { dtype: T::DTYPE, shape: shape.to_vec() }),
            Some(expected) if expected != bytes.len() => Err(TensorError::Length {
                dtype: T::DTYPE,
                shape: shape.to_vec(),
                expected,
                found: bytes.len(),
            }),
            Some(_) => Ok(View { dtype: T::DTYPE, shape, place: Place::Host(bytes) }),
        }
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Dimensions.
    pub fn shape(&self) -> &'a [usize] {
        self.shape
    }

    /// Numbers on a device from `start` on; whether they are as many shows when they are lent.
    pub(crate) fn on_device(tensor: &'a DeviceTensor, start: usize, shape: &'a [usize]) -> View<'a> {
        View { dtype: DType::F32, shape, place: Place::Device(tensor, start) }
    }

    /// Bytes that it is.
    pub(crate) fn len_bytes(&self) -> usize {
        match self.place {
            Place::Host(bytes) => bytes.len(),
            Place::Device(..) => self.shape.iter().product::<usize>() * size_of::<f32>(),
        }
    }

    pub(crate) fn place(&self) -> Place<'a> {
        self.place
    }
}

impl<'a> From<&'a Tensor> for View<'a> {
    fn from(t: &'a Tensor) -> View<'a> {
        View { dtype: t.dtype(), shape: t.shape(), place: Place::Host(t.bytes()) }
    }
}

/// An `OrtValue` that is released when dropped.
#[derive(Debug)]
pub(crate) struct OrtValue(NonNull<sys::OrtValue>);

// SAFETY: ONNX Runtime's tensors are plain memory with a reference count that is atomic; none of the functions used
// on them touches thread-local state.
unsafe impl Send for OrtValue {}
// SAFETY: as above, and every method that takes `&self` only reads.
unsafe impl Sync for OrtValue {}

impl Drop for OrtValue {
    fn drop(&mut self) {
        // SAFETY: the pointer is owned by this struct and released once.
        unsafe { (ort::api().ReleaseValue)(self.0.as_ptr()) }
    }
}

impl OrtValue {
    /// Takes over a value that ONNX Runtime made; `None` for null.
    pub(crate) fn own(ptr: *mut sys::OrtValue) -> Option<OrtValue> {
        NonNull::new(ptr).map(OrtValue)
    }

    pub(crate) fn ptr(&self) -> *mut sys::OrtValue {
        self.0.as_ptr()
    }

    /// Gives up the value without releasing it.
    pub(crate) fn into_raw(self) -> NonNull<sys::OrtValue> {
        std::mem::ManuallyDrop::new(self).0
    }

    /// A tensor over `len` bytes at `data`, which it neither copies nor frees.
    ///
    /// # Safety
    /// The bytes must stay where they are, readable (and writable, if the value is used as an output) until the
    /// value and everything that may alias it is released; `data` must be aligned to the element.
    pub(crate) unsafe fn over(
        info: &ort::memory::MemoryInfo<'static>,
        dtype: DType,
        shape: &[usize],
        data: *mut c_void,
        len: usize,
    ) -> Result<OrtValue> {
        use ort::AsPointer;
        let dims: Vec<i64> = shape.iter().map(|d| i64::try_from(*d).unwrap_or(i64::MAX)).collect();
        let mut out = ptr::null_mut();
        let kind = element(dtype).ok_or_else(|| RuntimeError::UnsupportedType {
            name: format!("{dtype} {shape:?}"),
            dtype: dtype.to_string(),
        })?;
        // SAFETY: all pointers are valid for the call; the caller vouches for `data`.
        let status = unsafe {
            (ort::api().CreateTensorWithDataAsOrtValue)(
                info.ptr(),
                data,
                len,
                dims.as_ptr(),
                dims.len(),
                kind,
                &mut out,
            )
        };
        // SAFETY: the status comes from the call above and is consumed once.
        unsafe { ort::Error::result_from_status(status) }
            .doing(|| format!("making a tensor of {dtype} {shape:?}"))?;
        OrtValue::own(out).ok_or_else(|| RuntimeError::Ort {
            doing: format!("making a tensor of {dtype} {shape:?}"),
            message: "ONNX Runtime returned nothing".into(),
        })
    }

    /// Element type (as ONNX's number) and shape.
    pub(crate) fn describe(&self) -> Result<(i32, Vec<usize>)> {
        let api = ort::api();
        let doing = || "reading the shape of an output".to_owned();
        let mut info = ptr::null_mut();
        // SAFETY: the value is alive, `info` is written by the call.
        let status = unsafe { (api.GetTensorTypeAndShape)(self.0.as_ptr(), &mut info) };
        // SAFETY: each status below comes from the call before it and is consumed once; `info` is released at the end.
        unsafe {
            ort::Error::result_from_status(status).doing(doing)?;
            let mut kind = sys::ONNXTensorElementDataType::ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
            let mut rank = 0;
            let mut dims = Vec::new();
            let read = ort::Error::result_from_status((api.GetTensorElementType)(info, &mut kind))
                .and_then(|()| ort::Error::result_from_status((api.GetDimensionsCount)(info, &mut rank)))
                .and_then(|()| {
                    dims = vec![0i64; rank];
                    ort::Error::result_from_status((api.GetDimensions)(info, dims.as_mut_ptr(), rank))
                });
            (api.ReleaseTensorTypeAndShapeInfo)(info);
            read.doing(doing)?;
            Ok((kind as i32, dims.into_iter().map(|d| usize::try_from(d).unwrap_or(0)).collect()))
        }
    }

    /// Where the elements lie; null for empty tensors and device memory is not followed.
    pub(crate) fn data(&self) -> Result<*mut c_void> {
        let mut out = ptr::null_mut();
        // SAFETY: the value is alive, `out` is written by the call.
        let status = unsafe { (ort::api().GetTensorMutableData)(self.0.as_ptr(), &mut out) };
        // SAFETY: the status comes from the call above.
        unsafe { ort::Error::result_from_status(status) }.doing(|| "reading an output".into())?;
        Ok(out)
    }
}

/// Memory that is aligned to any element: what misaligned bytes are copied into.
pub(crate) struct Aligned(Vec<u64>);

impl Aligned {
    pub(crate) fn copy(bytes: &[u8]) -> Aligned {
        let mut words = vec![0u64; bytes.len().div_ceil(8)];
        // SAFETY: the words hold at least as many bytes, and the two do not overlap.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), words.as_mut_ptr().cast(), bytes.len()) };
        Aligned(words)
    }

    pub(crate) fn as_ptr(&self) -> *mut c_void {
        self.0.as_ptr().cast_mut().cast()
    }
}

/// True when the bytes can be used in place.
pub(crate) fn is_aligned(dtype: DType, bytes: &[u8]) -> bool {
    (bytes.as_ptr() as usize).is_multiple_of((dtype.bits() / 8).max(1))
}

/// The pointer to give to ONNX Runtime: never one outside an allocation that it could dislike.
pub(crate) fn data_ptr(bytes: &[u8]) -> *mut c_void {
    if bytes.is_empty() {
        return NonNull::<u64>::dangling().as_ptr().cast();
    }
    bytes.as_ptr().cast_mut().cast()
}

fn element(dtype: DType) -> Option<sys::ONNXTensorElementDataType> {
    use sys::ONNXTensorElementDataType as E;
    Some(match dtype {
        DType::F32 => E::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
        DType::U8 => E::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8,
        DType::I8 => E::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8,
        DType::U16 => E::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16,
        DType::I16 => E::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16,
        DType::I32 => E::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32,
        DType::I64 => E::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64,
        DType::Bool => E::ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL,
        DType::F16 => E::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
        DType::F64 => E::ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE,
        DType::U32 => E::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32,
        DType::U64 => E::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64,
        DType::BF16 => E::ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16,
        DType::U4 => E::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT4,
        DType::I4 => E::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT4,
        DType::String => return None,
    })
}
