//! Memory that is lent for a run, as ONNX Runtime's values; those of the last runs are kept for the next.

use std::ops::Range;
use std::sync::Arc;

use graft_graph::DType;

use crate::error::Result;
use crate::runtime::Runtime;
use crate::value::{Aligned, OrtValue, Place, View, data_ptr, is_aligned};

/// Values that are kept of an input: the batches of a session may come by turns from two places.
const KEPT: usize = 2;

/// An input for the time of one run.
pub(crate) struct Lent {
    value: Arc<OrtValue>,
    /// Addresses of its bytes.
    pub(crate) range: Range<usize>,
    /// What it had to be copied into where it was misaligned.
    _copy: Option<Aligned>,
}

impl Lent {
    pub(crate) fn ptr(&self) -> *const ort::sys::OrtValue {
        self.value.ptr().cast_const()
    }
}

/// A value over memory that was lent. It is read again only in a run for which that memory is lent again, as numbers of the same
/// type and shape.
struct Kept {
    range: Range<usize>,
    dtype: DType,
    shape: Box<[usize]>,
    value: Arc<OrtValue>,
}

/// What is kept of one input.
#[derive(Default)]
pub(crate) struct Lending {
    kept: [Option<Kept>; KEPT],
    /// Which one goes next.
    next: usize,
}

impl Lending {
    /// A view as a value, which must be gone before the view is.
    pub(crate) fn lend(&mut self, runtime: &Runtime, view: &View<'_>) -> Result<Lent> {
        let bytes = match view.place() {
            Place::Host(bytes) => bytes,
            Place::Device(tensor, start) => {
                let value = Arc::new(tensor.lend(start, view.shape())?);
                let start = value.data()? as usize;
                return Ok(Lent { value, range: start..start + view.len_bytes(), _copy: None });
            }
        };
        let copy = (!is_aligned(view.dtype(), bytes)).then(|| Aligned::copy(bytes));
        let data = copy.as_ref().map_or_else(|| data_ptr(bytes), Aligned::as_ptr);
        let range = data as usize..data as usize + bytes.len();
        let same = |k: &&Kept| k.range == range && k.dtype == view.dtype() && *k.shape == *view.shape();
        if let Some(kept) = self.kept.iter().flatten().find(same) {
            return Ok(Lent { value: Arc::clone(&kept.value), range, _copy: copy });
        }
        // SAFETY: the caller keeps the view's memory until the run is over, `Lent` the copy; inputs are only read. A value that is
        // kept longer is not read before the same memory is lent again.
        let value =
            unsafe { OrtValue::over(&runtime.host_memory, view.dtype(), view.shape(), data, bytes.len()) }?;
        let value = Arc::new(value);
        if copy.is_none() {
            let kept = Kept {
                range: range.clone(),
                dtype: view.dtype(),
                shape: view.shape().into(),
                value: Arc::clone(&value),
            };
            self.kept[self.next] = Some(kept);
            self.next = (self.next + 1) % KEPT;
        }
        Ok(Lent { value, range, _copy: copy })
    }
}
