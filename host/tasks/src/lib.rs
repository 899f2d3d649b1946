//! A task of Graft: base, method and objective bound to sessions. What training and answering share.

mod adopt;
mod base;
pub mod binding;
mod checkpoint;
mod differences;
mod error;
mod evaluate;
mod examples;
mod export;
mod fields;
mod gradients;
mod intake;
mod passes;
mod probe;
mod program;
mod projections;
mod starts;
mod task;
pub mod torch;
mod words;

pub use adopt::adopt;
pub use base::{Base, BaseOptions};
pub use checkpoint::Checkpoint;
pub use differences::{Agreement, compare as compare_with_differences};
pub use error::{Result, TaskError};
pub use evaluate::{FORWARD_BATCH, Feed, TextFeed, judge, run_all};
pub use examples::{Batch, Examples};
pub use export::{Export, Exported, TOLERANCE, export};
pub use gradients::{GradientRun, gradients, save_standard};
pub use intake::Intake;
pub use passes::{Pass, passes};
pub use program::Program;
pub use projections::{fit_projections, projected};
pub use starts::starts;
pub use task::{Fitted, Task};
pub use words::table_options;
