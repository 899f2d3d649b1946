//! The engine over ONNX Runtime: a method and an objective on a base, trained by the loop.

mod cache;
mod chosen;
mod features;
mod head;
mod job;
mod key;
mod outcome;
mod peft;
mod prepared;
mod reader;
mod rows;
mod run;
mod save;
mod source;
mod step;
mod stored;
mod sweep;
mod values;

pub use cache::Precision;
pub use chosen::{Chosen, CutPlace};
pub use features::FeatureCache;
pub use job::{Job, JobError, Prepare};
pub use outcome::{Outcome, TestReport};
pub use source::{BatchSource, TrainBatch};
pub use step::{Evaluation, Step};
pub use sweep::{Point as SweepPoint, Sweep, Table as SweepTable};
