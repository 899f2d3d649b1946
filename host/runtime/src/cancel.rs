//! Stopping a run that is under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ort::AsPointer;
use ort::session::{NoSelectedOutputs, RunOptions};

use crate::Runtime;
use crate::error::{Doing, Result};

/// Stops runs from another thread: every run that was given this token ends with
/// [`RuntimeError::Cancelled`](crate::RuntimeError::Cancelled) after the operator it is in. Clones are the same token.
#[derive(Clone)]
pub struct CancelToken {
    options: Arc<RunOptions<NoSelectedOutputs>>,
    cancelled: Arc<AtomicBool>,
}

impl std::fmt::Debug for CancelToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CancelToken(cancelled: {})", self.is_cancelled())
    }
}

impl CancelToken {
    /// A token that has not been used.
    ///
    /// # Errors
    /// Only what ONNX Runtime says when it is out of memory.
    pub fn new(_started: &Runtime) -> Result<CancelToken> {
        let options = RunOptions::new().doing(|| "making a cancel token".into())?;
        Ok(CancelToken { options: Arc::new(options), cancelled: Arc::default() })
    }

    /// Stops what is running with this token and everything that starts with it from now on.
    ///
    /// # Errors
    /// What ONNX Runtime says; none is known.
    pub fn cancel(&self) -> Result<()> {
        self.cancelled.store(true, Ordering::SeqCst);
        self.options.terminate().doing(|| "stopping a run".into())
    }

    /// Makes the token usable again.
    ///
    /// # Errors
    /// What ONNX Runtime says; none is known.
    pub fn reset(&self) -> Result<()> {
        self.cancelled.store(false, Ordering::SeqCst);
        self.options.unterminate().doing(|| "resetting a cancel token".into())
    }

    /// Whether [`cancel`](Self::cancel) was called since the last [`reset`](Self::reset).
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::SeqCst)
    }

    pub(crate) fn run_options(&self) -> *const ort::sys::OrtRunOptions {
        self.options.ptr()
    }
}
