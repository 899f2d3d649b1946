//! What a run came to.

use crate::best::Metrics;

/// Which parameters the run ended with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// Those after the last step.
    Last,
    /// Those after the best epoch (from 1).
    Best {
        /// That epoch.
        epoch: usize,
    },
}

/// Why the run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All epochs are done.
    Complete,
    /// The watched metric no longer improved.
    Early,
    /// Somebody pressed Ctrl-C.
    Interrupted,
}

/// What a run came to.
#[derive(Debug, Clone, PartialEq)]
pub struct FitReport {
    /// Steps done.
    pub steps: u64,
    /// Epochs done in full.
    pub epochs: usize,
    /// Examples trained on, counted each time.
    pub samples: usize,
    /// Seconds of training alone: batches, gradients, updates; no evaluation.
    pub train_seconds: f64,
    /// Seconds of all evaluations.
    pub evaluation_seconds: f64,
    /// `samples / train_seconds`.
    pub samples_per_second: f64,
    /// Loss of the last step; NaN if there was none.
    pub last_loss: f64,
    /// Which parameters are kept.
    pub kept: Kept,
    /// Metrics of the evaluation of the kept parameters, if they were evaluated.
    pub evaluation: Option<Metrics>,
    /// Why the run ended.
    pub ended: Ended,
}

impl FitReport {
    /// Number (from 1) of the epoch whose parameters are kept, `None` if they are those of the last step.
    pub fn kept_epoch(&self) -> Option<usize> {
        match self.kept {
            Kept::Best { epoch } => Some(epoch),
            Kept::Last => None,
        }
    }
}
