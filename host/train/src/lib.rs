//! The training loop: optimisers, schedules, checkpoints, metrics.

pub mod accumulate;
pub mod clip;
mod error;
pub mod guard;
pub mod optim;
mod params;
pub mod schedule;

pub use error::{EngineError, TrainError};
pub use params::{Parameter, Parameters};
