//! Base weights that live once in memory, whatever the number of sessions over them.

use std::sync::Arc;

use graft_graph::{DType, Tensor};
use ort::memory::Allocator;
use ort::session::builder::PrepackedWeights;
use ort::value::DynValue;

use crate::Runtime;
use crate::error::{Result, RuntimeError};
use crate::value::{Aligned, OrtValue, data_ptr, is_aligned};

/// Weights of a base as ONNX Runtime values over the memory they lie in already (a mapped file, say), with the
/// matrices that ONNX Runtime packs for its products, which sessions share too.
///
/// A graph that uses one of them declares it as an initializer with external data: its name, type and shape, but no
/// bytes. See [`SessionSource`](crate::SessionSource).
pub struct SharedWeights {
    // Dropped before `_memory`, which the values point into.
    values: Vec<Weight>,
    packed: PrepackedWeights,
    copied: usize,
    _memory: Vec<Memory>,
}

pub(crate) struct Weight {
    pub(crate) name: String,
    pub(crate) dtype: DType,
    pub(crate) shape: Vec<usize>,
    pub(crate) value: Arc<DynValue>,
    bytes: usize,
}

enum Memory {
    Shared { _tensor: Tensor },
    Copied { _bytes: Aligned },
}

impl std::fmt::Debug for SharedWeights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SharedWeights({} tensors, {} bytes)", self.values.len(), self.total_bytes())
    }
}

impl SharedWeights {
    /// Weights by initializer name. Bytes are copied only where they are not aligned to their element.
    ///
    /// # Errors
    /// [`RuntimeError::UnsupportedType`] for strings.
    pub fn new(
        runtime: &Runtime,
        tensors: impl IntoIterator<Item = (String, Tensor)>,
    ) -> Result<Arc<SharedWeights>> {
        let mut weights = SharedWeights {
            values: Vec::new(),
            packed: PrepackedWeights::new(),
            copied: 0,
            _memory: Vec::new(),
        };
        // Tensors that borrow the whole allocator would need one each; all of them are over memory of ours.
        let allocator = Allocator::default();
        for (name, tensor) in tensors {
            weights.add(runtime, &allocator, name, tensor)?;
        }
        Ok(Arc::new(weights))
    }

    fn add(&mut self, runtime: &Runtime, allocator: &Allocator, name: String, tensor: Tensor) -> Result<()> {
        let bytes = tensor.bytes();
        let len = bytes.len();
        let (memory, ptr) = if is_aligned(tensor.dtype(), bytes) {
            let ptr = data_ptr(bytes);
            (Memory::Shared { _tensor: tensor.clone() }, ptr)
        } else {
            self.copied += len;
            let copy = Aligned::copy(bytes);
            let ptr = copy.as_ptr();
            (Memory::Copied { _bytes: copy }, ptr)
        };
        // SAFETY: the memory is kept in `self` for longer than the value (field order), is aligned, and ONNX Runtime
        // only reads initializers.
        let value = unsafe { OrtValue::over(&runtime.host_memory, tensor.dtype(), tensor.shape(), ptr, len) }
            .map_err(|e| match e {
                RuntimeError::UnsupportedType { dtype, .. } => {
                    RuntimeError::UnsupportedType { name: name.clone(), dtype }
                }
                e => e,
            })?;
        // SAFETY: the pointer is a live tensor whose ownership passes to the value; its memory info is the host's.
        let value: DynValue = unsafe { DynValue::from_ptr(value.into_raw(), Some(allocator)) };
        let (dtype, shape) = (tensor.dtype(), tensor.shape().to_vec());
        self.values.push(Weight { name, dtype, shape, value: Arc::new(value), bytes: len });
        self._memory.push(memory);
        Ok(())
    }

    /// Names of the weights, in the order they were given.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.values.iter().map(|w| w.name.as_str())
    }

    /// Bytes of all weights together.
    pub fn total_bytes(&self) -> usize {
        self.values.iter().map(|w| w.bytes).sum()
    }

    /// Bytes that had to be copied because they were not aligned.
    pub fn copied_bytes(&self) -> usize {
        self.copied
    }

    pub(crate) fn packed(&self) -> &PrepackedWeights {
        &self.packed
    }

    pub(crate) fn values(&self) -> &[Weight] {
        &self.values
    }
}
