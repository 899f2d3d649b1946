//! The Open Inference Protocol (V2), whatever carries it: [`crate::http::v2`] and [`crate::grpc`] only translate.
//!
//! An adapter is a model, its revision the version, and the base is a model under its own name. Rows are texts or token
//! ids; the answers of all kinds of adapters have one shape:
//!
//! | output | what |
//! |---|---|
//! | `label` BYTES `[B]` | the label, empty where there is not one (several labels, spans, numbers, vectors) |
//! | `score` FP32 `[B]` | its score, or the value of a regression; 0 where there is neither, NaN where it is no number |
//! | `json` BYTES `[B]` | the whole answer: all scores, spans or the vector |
//! | `revision` BYTES `[B]` | the revision of the adapter that made it |

mod fault;
pub mod infer;
pub mod models;
pub mod parameters;
pub mod repository;
mod rows;
pub mod tensor;

pub use fault::{Fault, Kind};
pub use infer::{Output, Outputs, Request, Response, infer};
pub use tensor::{Data, DataType, Input};

/// What the server calls itself.
pub const SERVER: &str = "graft";
/// Its version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The extensions of the protocol that are served.
pub const EXTENSIONS: [&str; 4] =
    ["binary_tensor_data", "model_configuration", "model_repository", "statistics"];
