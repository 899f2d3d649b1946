//! The adapters: which there are, their revisions, loading and unloading.
//!
//! | module | what |
//! |---|---|
//! | `resident` | one revision in memory |
//! | `catalog` | what is known of each name |
//! | `folder` | the folder of the adapters: what lies in it, changes that happen completely or not at all |
//! | `load` | from a folder into memory, under a name |
//! | `change` | replacing, going back, taking away |
//! | `request` | loading what a request asks for |
//! | `memory` | what leaves memory when there is too much |
//! | `watch` | noticing what others change in the folder |

mod catalog;
mod change;
mod error;
mod folder;
mod load;
mod memory;
mod request;
mod resident;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use graft_tasks::Base;

use crate::form::Rooms;
use crate::memory::Ceiling;
use crate::metrics::Metrics;
use catalog::Catalog;
pub use catalog::{Named, Previous};
pub use error::StoreError;
pub use folder::{Aside, clear_leftovers, folders, holds_adapter};
use request::Loads;
pub use resident::Resident;
pub use watch::Watcher;

/// Longest name of an adapter.
const MAX_NAME: usize = 128;

/// When adapters are loaded, and how much of them is kept in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keeping {
    /// Whether adapters of the folder are loaded by the first request that asks for them, and not at the start.
    pub on_request: bool,
    /// Most bytes of adapters in memory; those that were not used for longest leave it, and are loaded again when they are
    /// asked for.
    pub host_bytes: usize,
    /// How long a request waits until its adapter is loaded.
    pub wait: Duration,
}

impl Default for Keeping {
    fn default() -> Keeping {
        Keeping { on_request: false, host_bytes: 8 << 30, wait: Duration::from_secs(30) }
    }
}

/// The adapters over one base.
pub struct Store {
    /// The base.
    pub base: Base,
    /// The base as it is, as an adapter that changes nothing.
    pub bare: Arc<Resident>,
    /// The name under which the base itself may be asked for.
    pub base_name: String,
    /// The sessions that adapters share.
    pub rooms: Rooms,
    /// What happens, in numbers.
    pub metrics: Arc<Metrics>,
    /// How much memory may be used.
    pub memory: Ceiling,
    keeping: Keeping,
    plugin_dirs: Vec<PathBuf>,
    root: OnceLock<PathBuf>,
    catalog: RwLock<Catalog>,
    /// Held by whoever changes files of adapters and then what answers, so that both happen in the same order.
    files: Mutex<()>,
    loads: Loads,
    next: AtomicU64,
    /// Counts uses, to tell which was later.
    clock: AtomicU64,
}

impl Store {
    /// A store without adapters.
    ///
    /// # Errors
    /// When the base's files can't be read.
    pub fn new(base: Base, base_name: String, plugin_dirs: Vec<PathBuf>) -> Result<Store, StoreError> {
        Ok(Store {
            bare: Arc::new(Resident::bare(&base)?),
            base,
            base_name,
            rooms: Rooms::default(),
            metrics: Arc::new(Metrics::new()),
            memory: Ceiling::default(),
            keeping: Keeping::default(),
            plugin_dirs,
            root: OnceLock::new(),
            catalog: RwLock::default(),
            files: Mutex::default(),
            loads: Loads::default(),
            next: 1.into(),
            clock: 1.into(),
        })
    }

    /// The same, keeping adapters in another way.
    pub fn keeping(mut self, keeping: Keeping) -> Store {
        self.keeping = keeping;
        self
    }

    fn catalog(&self) -> RwLockReadGuard<'_, Catalog> {
        self.catalog.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self) -> RwLockWriteGuard<'_, Catalog> {
        self.catalog.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn changing_files(&self) -> MutexGuard<'_, ()> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }

    /// The adapter of that name as it is now, if it is in memory.
    pub fn find(&self, name: &str) -> Option<Arc<Resident>> {
        let catalog = self.catalog();
        let entry = catalog.entries.get(name)?;
        let found = entry.current.as_ref()?;
        entry.used.store(self.tick(), Ordering::Relaxed);
        Some(Arc::clone(found))
    }

    /// Whether there is an adapter of that name, in memory or not.
    pub fn knows(&self, name: &str) -> bool {
        self.catalog().entries.contains_key(name)
    }

    /// What is known of a name.
    pub fn named(&self, name: &str) -> Option<Named> {
        let catalog = self.catalog();
        catalog.entries.get_key_value(name).map(|(name, entry)| Named::of(name, entry))
    }

    /// All adapters, in memory or not, by name.
    pub fn all(&self) -> Vec<Named> {
        let mut all: Vec<Named> = self.catalog().entries.iter().map(|(n, e)| Named::of(n, e)).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// All adapters in memory, by name.
    pub fn list(&self) -> Vec<Arc<Resident>> {
        self.all().into_iter().filter_map(|n| n.current).collect()
    }

    /// Whether a resident is the current revision of a name that is pinned.
    pub fn is_pinned(&self, resident: &Resident) -> bool {
        let catalog = self.catalog();
        let entry = catalog.entries.get(resident.name());
        entry.is_some_and(|e| e.pinned && e.current.as_ref().is_some_and(|c| c.id == resident.id))
    }

    /// Says whether an adapter stays in memory whatever else is asked for.
    ///
    /// # Errors
    /// [`StoreError::Unknown`].
    pub fn pin(&self, name: &str, pinned: bool) -> Result<(), StoreError> {
        let mut catalog = self.change();
        let entry = catalog.entries.get_mut(name).ok_or_else(|| StoreError::Unknown(name.to_owned()))?;
        entry.pinned = pinned;
        Ok(())
    }

    /// The folder of the adapters, if there is one.
    pub fn root(&self) -> Option<&Path> {
        self.root.get().map(PathBuf::as_path)
    }
}

/// Whether `name` may be an adapter's: 1 to 128 of `A-Za-z0-9._-`, the first no dot.
///
/// # Errors
/// [`StoreError::Name`].
pub fn check_name(name: &str) -> Result<(), StoreError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if name.is_empty() || name.len() > MAX_NAME || name.starts_with('.') || !name.chars().all(fits) {
        return Err(StoreError::Name(name.chars().take(MAX_NAME).collect()));
    }
    Ok(())
}
