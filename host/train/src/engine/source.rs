//! Where a run's batches come from.

use std::collections::HashMap;

use graft_data::{Batches, Order};
use graft_graph::Tensor;
use graft_plugins::Objective;
use graft_tasks::{Examples, Feed};

use crate::accumulate;
use crate::error::EngineError;
use crate::source::{Source, StepBatches};

/// A micro-batch: tensors by input name.
#[derive(Clone, Debug, Default)]
pub struct TrainBatch {
    /// Inputs of the base (or its features) and of the objective.
    pub tensors: HashMap<String, Tensor>,
    /// Rows.
    pub rows: usize,
}

/// Batches of examples, drawn anew in each epoch.
pub struct BatchSource<'a> {
    /// What the graph reads of each row.
    pub feed: &'a dyn Feed,
    /// The rows.
    pub examples: &'a Examples,
    /// Makes the targets.
    pub objective: &'a Objective,
    /// Rows of a micro-batch.
    pub batch_size: usize,
    /// Micro-batches of a step.
    pub accumulation: usize,
    /// Whether a batch has rows of similar length.
    pub order: Order,
    /// The seed of the run.
    pub seed: u64,
}

impl BatchSource<'_> {
    pub(super) fn make(&self, rows: &[usize], seed: u64) -> Result<TrainBatch, EngineError> {
        let mut tensors = self.feed.batch(rows)?;
        tensors.extend(self.examples.collate(self.objective, rows, seed)?);
        Ok(TrainBatch { tensors, rows: rows.len() })
    }
}

impl Source for BatchSource<'_> {
    type Batch = TrainBatch;

    fn steps(&self) -> usize {
        accumulate::steps(self.examples.len().div_ceil(self.batch_size.max(1)), self.accumulation)
    }

    fn epoch(
        &mut self,
        epoch: usize,
    ) -> Result<Box<dyn Iterator<Item = StepBatches<TrainBatch>> + '_>, EngineError> {
        let batches =
            Batches::new(&self.feed.lengths(), self.batch_size, self.order, self.seed, epoch as u64)?;
        let all: Vec<Vec<usize>> = batches.iter().map(<[usize]>::to_vec).collect();
        let seed = self.seed;
        let this = &*self;
        let made = all.into_iter().enumerate().map(move |(i, rows)| {
            // Objectives that draw per batch see another seed in each batch of each epoch.
            let drawn = seed ^ ((epoch as u64) << 40) ^ ((i as u64) << 8);
            this.make(&rows, drawn)
        });
        Ok(Box::new(accumulate::group(made, self.accumulation)))
    }
}
