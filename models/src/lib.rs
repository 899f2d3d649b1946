//! Architectures as graph recipes: a Hugging Face checkpoint directory to an ONNX base.
//!
//! ```no_run
//! # fn main() -> Result<(), graft_models::ImportError> {
//! let report = graft_models::import("all-MiniLM-L6-v2".as_ref(), "base".as_ref())?;
//! println!("{} parameters, outputs {}", report.parameters, report.outputs.join(", "));
//! # Ok(()) }
//! ```
//!
//! One file in `architectures` describes one family of models: the settings that it reads from `config.json`, and the
//! forward graph, written with the parts in `recipe` (linear layer, norm, attention …). A table there picks it by
//! `model_type`. Reading checkpoints and writing bases know nothing of architectures.

mod architectures;
mod checkpoint;
mod config;
mod error;
mod import;
mod recipe;
mod staging;
mod weights;

pub use architectures::supported;
pub use error::ImportError;
pub use import::{ImportReport, import};
