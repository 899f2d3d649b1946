//! What can go wrong with an adapter.

use std::path::{Path, PathBuf};

use graft_tasks::TaskError;

use super::MAX_NAME;
use crate::memory::shown;

/// What can go wrong with an adapter.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The name can't be one.
    #[error("'{0}' can't be the name of an adapter: 1 to {MAX_NAME} of A-Z a-z 0-9 . _ - and no leading dot")]
    Name(String),
    /// There is none of that name.
    #[error("there is no adapter '{0}' here")]
    Unknown(String),
    /// There is one already.
    #[error("there is an adapter '{0}' already")]
    Exists(String),
    /// It is another one by now.
    #[error("the folder of adapter '{0}' holds other files than those that it was loaded from")]
    Replaced(String),
    /// It was never replaced.
    #[error("there is no former revision of adapter '{0}' to go back to")]
    NoPrevious(String),
    /// There is no memory left for it.
    #[error(
        "no memory for adapter '{name}': it needs {}, and {} of the {} that may be used (limits.memory_bytes) are; take others away",
        shown(*.needed), shown(*.used), shown(*.most)
    )]
    Memory {
        /// The adapter.
        name: String,
        /// Bytes that it takes.
        needed: u64,
        /// Bytes that are used.
        used: u64,
        /// Bytes that may be.
        most: u64,
    },
    /// The folder can't be read.
    #[error("{path}: {source}", path = .path.display())]
    Io {
        /// What was read.
        path: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// The adapter does not fit.
    #[error(transparent)]
    Task(#[from] TaskError),
}

impl From<graft_adapters::Error> for StoreError {
    fn from(e: graft_adapters::Error) -> StoreError {
        StoreError::Task(e.into())
    }
}

impl StoreError {
    /// The error of something at `path`.
    pub(super) fn io(path: &Path) -> impl Fn(std::io::Error) -> StoreError {
        let path = path.to_owned();
        move |source| StoreError::Io { path: path.clone(), source }
    }

    /// Somebody writes into a folder all the time.
    pub(super) fn restless(path: &Path) -> StoreError {
        StoreError::io(path)(std::io::Error::other("its files change while they are read"))
    }
}
