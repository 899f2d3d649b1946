//! What a run tells those who watch it: metrics files, progress, whoever saves the best adapter.

use crate::best::Metrics;
use crate::error::TrainError;
use crate::params::Parameters;
use crate::report::FitReport;
use crate::solve::Optimum;

/// One finished step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepRecord {
    /// Number of the step, from 1.
    pub step: u64,
    /// Number of the epoch, from 1.
    pub epoch: usize,
    /// Mean loss of the step's micro-batches, before the update.
    pub loss: f64,
    /// Learning rate of the update, without the parameters' own multipliers.
    pub lr: f64,
    /// Norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Examples in the step.
    pub samples: usize,
    /// Seconds of training up to and with this step, evaluations left out.
    pub seconds: f64,
}

/// One finished epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct EpochRecord {
    /// Number of the epoch, from 1.
    pub epoch: usize,
    /// Steps done so far.
    pub step: u64,
    /// Mean loss over the epoch's steps.
    pub train_loss: f64,
    /// Metrics of the evaluation, if there is data for one.
    pub evaluation: Option<Metrics>,
    /// Whether this is the best epoch so far; `None` if nothing selects the best, and the last is kept.
    pub improved: Option<bool>,
    /// Seconds of training so far, evaluations left out.
    pub seconds: f64,
    /// Examples trained on per second of training so far.
    pub samples_per_second: f64,
}

/// One penalty that cross-validation tried on a convex head.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PenaltyRecord {
    /// Strength: `l2 / 2 · ‖weight‖²` beside the mean loss of all rows.
    pub l2: f64,
    /// Mean loss of the held-out rows, over the folds.
    pub loss: f64,
    /// Accuracy on the held-out rows, over the folds.
    pub accuracy: f64,
    /// Iterations, over all folds.
    pub iterations: usize,
}

/// What happened.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// Training begins.
    Start {
        /// Steps planned, over all epochs.
        steps: u64,
        /// Epochs planned.
        epochs: usize,
        /// Elements that are trained.
        trainable: usize,
    },
    /// A step is done.
    Step(&'a StepRecord),
    /// An epoch, with its evaluation, is done.
    Epoch {
        /// Its figures.
        record: &'a EpochRecord,
        /// The parameters as they are now; to be saved unless `record.improved` is `Some(false)`.
        params: &'a Parameters,
    },
    /// Cross-validation tried a penalty.
    Penalty(&'a PenaltyRecord),
    /// A convex head is solved to its optimum.
    Solved {
        /// What was found.
        optimum: &'a Optimum,
        /// The parameters, the solved head among them.
        params: &'a Parameters,
    },
    /// Training is over; not sent when it failed.
    Finish(&'a FitReport),
}

/// Watches a run.
pub trait Observer {
    /// Takes in one event.
    ///
    /// # Errors
    /// An error here stops training, with the parameters as they are.
    fn observe(&mut self, event: &Event<'_>) -> Result<(), TrainError>;
}
