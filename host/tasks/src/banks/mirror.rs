//! A bank in the memory of a device: only what changes is sent there.

use std::ops::Range;
use std::sync::Arc;

use graft_runtime::{DeviceMemory, DeviceTensor, View};

use crate::error::Result;

/// What a device has of a bank's numbers.
pub(super) struct Mirror {
    memory: Arc<DeviceMemory>,
    tensor: Option<DeviceTensor>,
    /// Numbers that are not there yet.
    stale: Vec<Range<usize>>,
}

impl Mirror {
    /// A mirror of numbers of which none are there yet.
    pub(super) fn new(memory: Arc<DeviceMemory>) -> Mirror {
        Mirror { memory, tensor: None, stale: Vec::new() }
    }

    /// These numbers changed. What comes one after the other is sent at once.
    pub(super) fn changed(&mut self, numbers: Range<usize>) {
        match self.stale.last_mut() {
            Some(last) if last.end == numbers.start => last.end = numbers.end,
            _ => self.stale.push(numbers),
        }
    }

    /// All of them changed, and there may be fewer: the device's memory is let go until they are sent.
    pub(super) fn forget(&mut self) {
        self.tensor = None;
    }

    /// Sends what changed. `values` are all numbers of the bank, with room for as many as `capacity` there.
    ///
    /// # Errors
    /// What the device says; what was not sent is sent the next time.
    pub(super) fn bring(&mut self, values: &[f32], capacity: usize) -> Result<()> {
        let room = self.tensor.as_ref().map_or(0, DeviceTensor::len);
        if room < values.len() {
            // The process has all of it, so that the device never holds both.
            self.tensor = None;
            self.tensor = Some(self.memory.tensor(capacity.max(values.len()))?);
            self.stale = std::iter::once(0..values.len()).collect();
        }
        let Some(tensor) = &mut self.tensor else { return Ok(()) };
        while let Some(numbers) = self.stale.last() {
            // Rows that changed and are no more are nobody's.
            let within = numbers.start.min(values.len())..numbers.end.min(values.len());
            tensor.write(within.start, &values[within])?;
            self.stale.pop();
        }
        Ok(())
    }

    /// The bank as an input of a run, once [`bring`](Self::bring) was called.
    pub(super) fn view<'a>(&'a self, shape: &'a [usize]) -> Option<View<'a>> {
        self.tensor.as_ref()?.view(shape)
    }
}
