//! The engine over ONNX Runtime: a method and an objective on a base, trained by the loop.

mod features;
mod head;
mod job;
mod outcome;
mod peft;
mod prepared;
mod reader;
mod save;
mod source;
mod step;
mod values;

pub use job::{Job, JobError, Outcome, Prepare, TestReport};
pub use source::{BatchSource, TrainBatch};
pub use step::{Evaluation, Step};
