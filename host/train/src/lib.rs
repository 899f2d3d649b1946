//! The training loop: optimisers, schedules, checkpoints, metrics.
//!
//! [`fit`] owns the parameters and everything between gradient and report; an [`Engine`] gives losses and gradients,
//! a [`Source`] the batches, [`Observer`]s get to know what happens.

pub mod accumulate;
pub mod best;
mod bulk;
pub mod clip;
pub mod engine;
mod error;
mod fit;
pub mod grid;
pub mod guard;
mod interrupt;
mod metrics;
mod observe;
pub mod optim;
mod params;
mod plan;
mod progress;
pub mod random;
pub mod recipe;
mod report;
pub mod schedule;
pub mod solve;
mod source;
mod tensorboard;

pub use best::{Direction, Metrics, Watch};
pub use error::{EngineError, TrainError};
pub use fit::{At, Engine, StepOutput, fit};
pub use interrupt::{EXIT_STATUS, Interrupt, Press};
pub use metrics::{METRICS_VERSION, MetricsFile};
pub use observe::{EpochRecord, Event, Observer, PenaltyRecord, StepRecord};
pub use optim::OptimizerConfig;
pub use params::{Parameter, Parameters};
pub use plan::{Plan, Warmup};
pub use progress::Progress;
pub use random::{Distribution, Init};
pub use recipe::{Layer, Part, Recipe, RecipeError};
pub use report::{Ended, FitReport, Kept};
pub use schedule::ScheduleKind;
pub use source::{Prepared, Source, StepBatches};
pub use tensorboard::EventFile;
