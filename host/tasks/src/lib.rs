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
mod probe;
mod program;
mod starts;
mod task;
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
pub use program::Program;
pub use starts::starts;
pub use task::Task;
pub use words::table_options;
