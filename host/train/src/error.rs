//! What can go wrong while training.

use std::path::PathBuf;

/// What an engine or a source of batches reports; carried to the user unchanged, with the step before it.
pub type EngineError = Box<dyn std::error::Error + Send + Sync>;

/// Why training did not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The engine failed in a step.
    #[error("step {step} (epoch {epoch}) failed: {source}")]
    Step {
        /// Number of the step, from 1.
        step: u64,
        /// Number of the epoch, from 1.
        epoch: usize,
        /// What the engine says.
        source: EngineError,
    },
    /// The engine failed while evaluating.
    #[error("the evaluation after epoch {epoch} failed: {source}")]
    Evaluation {
        /// Number of the epoch, from 1.
        epoch: usize,
        /// What the engine says.
        source: EngineError,
    },
    /// A batch could not be made.
    #[error("the batches of epoch {epoch} could not be made: {source}")]
    Batches {
        /// Number of the epoch, from 1.
        epoch: usize,
        /// What the source of the batches says.
        source: EngineError,
    },
    /// Loss, gradient or a parameter is NaN or infinite.
    #[error(
        "{what} is {value} at step {step} (epoch {epoch}): training stopped, and the parameters are those of the \
         last step whose loss was finite; lower the learning rate, warm up longer, or clip the gradient \
         (--clip-norm 1)"
    )]
    NotFinite {
        /// Number of the step, from 1.
        step: u64,
        /// Number of the epoch, from 1.
        epoch: usize,
        /// "the loss", "the gradient of `name`" or "the parameter `name`".
        what: String,
        /// NaN or an infinity.
        value: f64,
    },
    /// There is nothing to train.
    #[error("{0}")]
    Plan(String),
    /// The metric that selects the best epoch is not among those of the evaluation.
    #[error("the metric `{metric}` selects the best epoch, but the evaluation gives only: {found}")]
    NoMetric {
        /// The metric asked for.
        metric: String,
        /// Names of the metrics there are, separated by commas.
        found: String,
    },
    /// State of an optimiser that does not fit.
    #[error("the optimiser's state does not fit: {0}")]
    State(String),
    /// A distribution or an initialiser that cannot be drawn from.
    #[error("{0}")]
    Random(String),
    /// A file of metrics could not be written.
    #[error("{path} could not be written: {source}; free space on the disk or choose another folder", path = .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The adapter could not be saved.
    #[error("the adapter could not be saved: {0}")]
    Save(String),
    /// The handler of Ctrl-C could not be set.
    #[error("Ctrl-C cannot be handled: {0}")]
    Interrupt(String),
}
