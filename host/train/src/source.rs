//! Where batches come from.

use crate::error::EngineError;

/// The micro-batches of a step, or why there are none.
pub type StepBatches<B> = Result<Vec<B>, EngineError>;

/// Where the batches come from.
pub trait Source {
    /// A prepared micro-batch.
    type Batch;

    /// Steps in an epoch, the same in each.
    fn steps(&self) -> usize;

    /// The steps of an epoch (from 1), each as its micro-batches (at least one); see [`crate::accumulate::group`].
    ///
    /// # Errors
    /// When the epoch cannot be begun.
    fn epoch(
        &mut self,
        epoch: usize,
    ) -> Result<Box<dyn Iterator<Item = StepBatches<Self::Batch>> + '_>, EngineError>;
}

/// Prepared steps, given in their order in every epoch.
pub struct Prepared<B>(pub Vec<Vec<B>>);

impl<B: Clone> Source for Prepared<B> {
    type Batch = B;

    fn steps(&self) -> usize {
        self.0.len()
    }

    fn epoch(&mut self, _: usize) -> Result<Box<dyn Iterator<Item = StepBatches<B>> + '_>, EngineError> {
        Ok(Box::new(self.0.iter().map(|s| Ok(s.clone()))))
    }
}
