//! The training loop: optimisers, schedules, checkpoints, metrics.
//!
//! [`fit`] owns the parameters and everything between gradient and report; an [`Engine`] gives losses and gradients,
//! a [`Source`] the batches, [`Observer`]s get to know what happens.

pub mod accumulate;
pub mod best;
pub mod clip;
mod error;
mod fit;
pub mod guard;
mod interrupt;
mod metrics;
mod observe;
pub mod optim;
mod params;
mod progress;
pub mod random;
pub mod recipe;
pub mod schedule;
mod tensorboard;

pub use best::{Direction, Metrics, Watch};
pub use error::{EngineError, TrainError};
pub use fit::{
    At, Ended, Engine, FitReport, Kept, Plan, Prepared, Source, StepBatches, StepOutput, Warmup, fit,
};
pub use interrupt::{EXIT_STATUS, Interrupt, Press};
pub use metrics::{METRICS_VERSION, MetricsFile};
pub use observe::{EpochRecord, Event, Observer, StepRecord};
pub use optim::OptimizerConfig;
pub use params::{Parameter, Parameters};
pub use progress::Progress;
pub use random::{Distribution, Init};
pub use recipe::{Layer, Part, Recipe, RecipeError};
pub use schedule::ScheduleKind;
pub use tensorboard::EventFile;
