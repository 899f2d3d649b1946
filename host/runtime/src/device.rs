//! Memory of a device: numbers that stay there from run to run, such as banks of adapters.

use std::fmt;
use std::ops::Range;
use std::ptr::{self, NonNull};
use std::sync::{Arc, Mutex, PoisonError};

use graft_graph::DType;
use ort::AsPointer;
use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};

use crate::error::{Doing, Result, RuntimeError};
use crate::provider::Provider;
use crate::run::Plan;
use crate::runtime::Runtime;
use crate::session::{Optimization, Session, SessionOptions, SessionSource};
use crate::value::{OrtValue, View};

/// An ONNX model (opset 17) of one node, `y = Identity(x)`, f32 `[n]`: how numbers come to a device and from it, for
/// ONNX Runtime has no other way to write a part of a tensor there.
const COPY: &[u8] = b"\x08\x08\x3a\x3c\x0a\x10\x0a\x01x\x12\x01y\"\x08Identity\x12\x04copy\x5a\x10\x0a\x01x\x12\x0b\x0a\x09\
\x08\x01\x12\x05\x0a\x03\x12\x01n\x62\x10\x0a\x01y\x12\x0b\x0a\x09\x08\x01\x12\x05\x0a\x03\x12\x01n\x42\x04\x0a\x00\x10\x11";

/// The memory of the device that a provider runs on.
pub struct DeviceMemory {
    // In the order in which they are dropped: an allocator goes before its session.
    allocator: Mutex<Allocator>,
    info: MemoryInfo<'static>,
    copier: Mutex<(Session, Plan)>,
    runtime: &'static Runtime,
    provider: Provider,
}

impl fmt::Debug for DeviceMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceMemory({})", self.provider)
    }
}

/// f32 numbers in the memory of a device.
#[derive(Debug)]
pub struct DeviceTensor {
    // Dropped before `memory`, whose allocator it came from.
    _value: OrtValue,
    at: NonNull<f32>,
    len: usize,
    memory: Arc<DeviceMemory>,
}

// SAFETY: the pointer is that of `_value`, which may move between threads, and is only read through it.
unsafe impl Send for DeviceTensor {}
// SAFETY: as above; every method that takes `&self` only reads.
unsafe impl Sync for DeviceTensor {}

impl DeviceMemory {
    /// The memory that sessions with `provider` find their inputs in without a copy; for the processor that of the process.
    ///
    /// # Errors
    /// [`RuntimeError::ProviderUnavailable`] when the provider can't be had.
    pub fn new(runtime: &'static Runtime, provider: &Provider) -> Result<Arc<DeviceMemory>> {
        let options = SessionOptions {
            name: format!("copies to {provider}"),
            // TensorRT works in the memory of CUDA, and would build an engine for each size.
            provider: provider.as_cuda(),
            threads: Some(1),
            optimization: Optimization::Off,
            kernels: false,
            memory_pattern: false,
            ..SessionOptions::default()
        };
        let doing = || format!("memory of {provider}");
        let session = Session::new(runtime, &SessionSource::plain(COPY.to_vec()), &options)?;
        let plan = session.plan(&["x"], &["y"])?;
        let info = match provider.device() {
            None => MemoryInfo::default(),
            Some(id) => {
                MemoryInfo::new(AllocationDevice::CUDA, id, AllocatorType::Device, MemoryType::Default)
                    .doing(doing)?
            }
        };
        let allocator = session.allocator(info.clone()).doing(doing)?;
        Ok(Arc::new(DeviceMemory {
            allocator: Mutex::new(allocator),
            info,
            copier: Mutex::new((session, plan)),
            runtime,
            provider: provider.clone(),
        }))
    }

    /// Room for `len` numbers, which are anything at first.
    ///
    /// # Errors
    /// [`RuntimeError::Ort`] when there is not as much left.
    pub fn tensor(self: &Arc<Self>, len: usize) -> Result<DeviceTensor> {
        let doing = || format!("taking {len} numbers of the memory of {}", self.provider);
        let mut out = ptr::null_mut();
        // A tensor of no element would have no address.
        let dims = [i64::try_from(len.max(1)).unwrap_or(i64::MAX)];
        let kind = ort::sys::ONNXTensorElementDataType::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
        {
            let allocator = self.allocator.lock().unwrap_or_else(PoisonError::into_inner);
            // SAFETY: the allocator is alive and used by one thread at a time, the shape has one dimension, `out` is
            // written by the call.
            let status = unsafe {
                (ort::api().CreateTensorAsOrtValue)(
                    allocator.ptr().cast_mut(),
                    dims.as_ptr(),
                    1,
                    kind,
                    &mut out,
                )
            };
            // SAFETY: the status comes from the call above and is consumed once.
            unsafe { ort::Error::result_from_status(status) }.doing(doing)?;
        }
        let nothing =
            || RuntimeError::Ort { doing: doing(), message: "ONNX Runtime returned nothing".into() };
        let value = OrtValue::own(out).ok_or_else(nothing)?;
        let at = NonNull::new(value.data()?.cast()).ok_or_else(nothing)?;
        Ok(DeviceTensor { _value: value, at, len, memory: Arc::clone(self) })
    }

    pub(crate) fn info(&self) -> &MemoryInfo<'static> {
        &self.info
    }

    /// Copies `from`, which is `[n]`, into `to`, which is as long.
    fn copy(&self, from: &View<'_>, to: &OrtValue) -> Result<()> {
        let mut copier = self.copier.lock().unwrap_or_else(PoisonError::into_inner);
        let (session, plan) = &mut *copier;
        session.run_onto(plan, std::slice::from_ref(from), std::slice::from_ref(to))
    }
}

impl DeviceTensor {
    /// How many numbers it holds.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Writes `values` from the number `start` on. When it returns, they are there.
    ///
    /// # Errors
    /// [`RuntimeError::BadSetting`] when they don't fit, [`RuntimeError::Ort`] when the copy fails.
    pub fn write(&mut self, start: usize, values: &[f32]) -> Result<()> {
        let range = self.checked(start, values.len())?;
        if range.is_empty() {
            return Ok(());
        }
        let to = self.lend(range.start, &[range.len()])?;
        let named = |source| RuntimeError::Tensor { name: "numbers for a device".into(), source };
        self.memory.copy(&View::new(&[values.len()], values).map_err(named)?, &to)
    }

    /// A copy of a part.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn read(&self, start: usize, len: usize) -> Result<Vec<f32>> {
        let range = self.checked(start, len)?;
        let mut values = vec![0.0f32; len];
        if range.is_empty() {
            return Ok(values);
        }
        let memory = &self.memory;
        // SAFETY: the buffer is borrowed mutably until the copy has ended, and is one of f32.
        let to = unsafe {
            let data = values.as_mut_ptr().cast();
            OrtValue::over(&memory.runtime.host_memory, DType::F32, &[len], data, size_of_val(&values[..]))
        }?;
        memory.copy(&View::on_device(self, range.start, &[len]), &to)?;
        drop(to);
        Ok(values)
    }

    /// Its first numbers as an input of a run; `None` where `shape` asks for more than there are.
    pub fn view<'a>(&'a self, shape: &'a [usize]) -> Option<View<'a>> {
        let count = shape.iter().try_fold(1usize, |a, d| a.checked_mul(*d))?;
        (count <= self.len).then(|| View::on_device(self, 0, shape))
    }

    /// As ONNX Runtime sees `shape` from the number `start` on.
    pub(crate) fn lend(&self, start: usize, shape: &[usize]) -> Result<OrtValue> {
        let count = shape.iter().try_fold(1usize, |a, d| a.checked_mul(*d)).unwrap_or(usize::MAX);
        let range = self.checked(start, count)?;
        // SAFETY: the range lies in this tensor, which the caller borrows for as long as it uses the value; numbers of
        // f32 are aligned to f32.
        unsafe {
            let data = self.at.as_ptr().add(range.start).cast();
            OrtValue::over(self.memory.info(), DType::F32, shape, data, range.len() * size_of::<f32>())
        }
    }

    fn checked(&self, start: usize, len: usize) -> Result<Range<usize>> {
        let end = start.checked_add(len).filter(|end| *end <= self.len);
        end.map(|end| start..end).ok_or_else(|| RuntimeError::BadSetting {
            setting: format!("numbers {start} and on of the memory of {}", self.memory.provider),
            reason: format!("{len} of them do not fit into {}", self.len),
        })
    }
}
