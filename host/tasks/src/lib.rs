//! A task of Graft: base, method and objective bound to sessions. What training and answering share.

mod base;
mod error;
mod gradients;

pub use base::{Base, BaseOptions};
pub use error::{Result, TaskError};
pub use gradients::{GradientRun, gradients, save_standard};
