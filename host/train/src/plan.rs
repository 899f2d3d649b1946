//! How to train, settled before the first step.

use crate::best::Watch;
use crate::optim::OptimizerConfig;
use crate::schedule::ScheduleKind;

/// Steps of the warm-up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Warmup {
    /// So many.
    Steps(u64),
    /// This part of all steps, rounded up.
    Ratio(f64),
}

impl Warmup {
    /// Steps of the warm-up in a run of `total`.
    pub fn steps(self, total: u64) -> u64 {
        match self {
            Warmup::Steps(n) => n,
            Warmup::Ratio(r) => (total as f64 * r).ceil() as u64,
        }
    }
}

/// How to train.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Passes over the data.
    pub epochs: usize,
    /// The optimiser.
    pub optimizer: OptimizerConfig,
    /// The peak of the learning rate.
    pub lr: f64,
    /// What becomes of it.
    pub schedule: ScheduleKind,
    /// How it begins.
    pub warmup: Warmup,
    /// Largest norm of the gradient; `None` leaves it alone.
    pub clip_norm: Option<f64>,
    /// The metric that selects the best epoch; `None` keeps the last one.
    pub watch: Option<Watch>,
}
