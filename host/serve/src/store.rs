//! The adapters: which there are, their revisions, loading and unloading.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use graft_adapters::{AdapterInfo, StoredAdapter, digest_files, files_of, info, load};
use graft_plugins::Objective;
use graft_tasks::binding::objective_of;
use graft_tasks::{Base, Fitted, TaskError};
use indexmap::IndexMap;
use serde_json::json;

use crate::ask::{Provenance, Want};
use crate::form::{Form, Rooms, Way};
use crate::memory::{Ceiling, shown};
use crate::metrics::Metrics;
use crate::tally::Tally;

/// Longest name of an adapter.
const MAX_NAME: usize = 128;

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

/// An adapter as it is used: one revision of it.
pub struct Resident {
    /// Name, revision and digest.
    pub by: Provenance,
    /// The adapter as its folder has it, without its tensors; `None` for the base.
    pub stored: Option<StoredAdapter>,
    /// Its folder.
    pub dir: PathBuf,
    /// Where texts are cut.
    pub max_length: Option<usize>,
    /// Distinguishes residents from each other, also from former ones of the same name.
    pub id: u64,
    /// What it is, in a few lines; `None` for the base.
    pub info: Option<AdapterInfo>,
    /// The labels in the order of the head's outputs, or the names of its numbers; none for vectors.
    pub labels: Vec<String>,
    /// What it answered.
    pub tally: Tally,
    own: Option<Form>,
    vector: OnceLock<Form>,
}

impl Resident {
    /// The id of the adapter's own objective (`classification`); none for the base and for adapters without a head.
    pub fn objective(&self) -> Option<&str> {
        self.own.as_ref()?.objective().ok().map(|o| o.id())
    }

    /// The adapter with what makes the wanted of its hidden states; `None` where it has no objective of its own.
    ///
    /// # Errors
    /// Why vectors can't be had, in words.
    pub fn form(&self, store: &Store, want: Want) -> std::result::Result<Option<&Form>, String> {
        let gives_vectors = |f: &Form| f.is(VECTOR_OBJECTIVE);
        match want {
            Want::Answer | Want::Scores => Ok(self.own.as_ref()),
            Want::Vector if self.own.as_ref().is_some_and(gives_vectors) => Ok(self.own.as_ref()),
            Want::Vector => {
                if self.vector.get().is_none() {
                    // What fails today may not tomorrow: only what was made is kept.
                    let made = store.vectors_of(self).map_err(|e| e.to_string())?;
                    let _ = self.vector.set(made);
                }
                Ok(self.vector.get())
            }
        }
    }
}

/// What is known of a name.
#[derive(Clone)]
pub struct Named {
    /// What answers.
    pub current: Arc<Resident>,
    /// What answered before it was replaced.
    pub previous: Option<Arc<Resident>>,
    /// Whether it stays in memory whatever else is asked for.
    pub pinned: bool,
}

/// The objective that makes vectors.
const VECTOR_OBJECTIVE: &str = "embedding";

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
    plugin_dirs: Vec<PathBuf>,
    root: OnceLock<PathBuf>,
    adapters: RwLock<IndexMap<String, Named>>,
    /// The last revision of each name that there ever was, so that no number is given twice.
    revisions: Mutex<HashMap<String, u64>>,
    files: Mutex<()>,
    next: std::sync::atomic::AtomicU64,
}

impl Store {
    /// A store without adapters.
    ///
    /// # Errors
    /// When the base's files can't be read.
    pub fn new(base: Base, base_name: String, plugin_dirs: Vec<PathBuf>) -> Result<Store, StoreError> {
        let by = Provenance { adapter: None, revision: 0, digest: base.digest()?.into() };
        let max_length = base.max_length(None, 0)?;
        let bare = Resident {
            by,
            stored: None,
            dir: base.dir.clone(),
            max_length,
            id: 0,
            info: None,
            labels: Vec::new(),
            tally: Tally::default(),
            own: None,
            vector: OnceLock::new(),
        };
        Ok(Store {
            base,
            bare: Arc::new(bare),
            base_name,
            rooms: Rooms::default(),
            metrics: Arc::new(Metrics::new()),
            memory: Ceiling::default(),
            plugin_dirs,
            root: OnceLock::new(),
            adapters: RwLock::default(),
            revisions: Mutex::default(),
            files: Mutex::default(),
            next: 1.into(),
        })
    }

    /// A fitted adapter as it is run, with a place for it in the session that adapters share.
    fn formed(&self, fitted: Fitted) -> Option<Form> {
        let form = Form::of(&self.base, &self.rooms, fitted);
        if let Some(Way::Alone(fitted, why)) = form.as_ref().map(|f| &f.way) {
            tracing::info!("{} has passes of its own: {why}", fitted.name);
        }
        form
    }

    fn vectors_of(&self, resident: &Resident) -> Result<Form, StoreError> {
        if let Some(name) = &resident.by.adapter {
            self.memory.room(name, bytes_of(&resident.dir))?;
        }
        let fitted = self.fitted_vectors(resident)?;
        let lost = || StoreError::Unknown(resident.by.adapter.as_deref().unwrap_or_default().to_owned());
        self.formed(fitted).ok_or_else(lost)
    }

    fn fitted_vectors(&self, resident: &Resident) -> Result<Fitted, StoreError> {
        let objective = Objective::find(&self.plugin_dirs, VECTOR_OBJECTIVE, &json!({}));
        let objective = objective.map_err(TaskError::from)?;
        let stored = resident.stored.is_some().then(|| self.reload(resident)).transpose()?;
        Ok(Fitted::with_objective(&self.base, stored.as_ref(), objective, &self.plugin_dirs)?)
    }

    /// The adapter of a resident with its tensors, from its folder.
    fn reload(&self, resident: &Resident) -> Result<StoredAdapter, StoreError> {
        let name = || resident.by.adapter.as_deref().unwrap_or_default().to_owned();
        let (stored, digest) = read(&resident.dir)?;
        if digest != *resident.by.digest {
            return Err(StoreError::Replaced(name()));
        }
        Ok(stored)
    }

    fn adapters(&self) -> RwLockReadGuard<'_, IndexMap<String, Named>> {
        self.adapters.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self) -> RwLockWriteGuard<'_, IndexMap<String, Named>> {
        self.adapters.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The adapter of that name as it is now.
    pub fn find(&self, name: &str) -> Option<Arc<Resident>> {
        self.adapters().get(name).map(|n| Arc::clone(&n.current))
    }

    /// The adapter of that name, what it replaced, whether it is pinned.
    pub fn named(&self, name: &str) -> Option<Named> {
        self.adapters().get(name).cloned()
    }

    /// Whether a resident is the current revision of a name that is pinned.
    pub fn is_pinned(&self, resident: &Resident) -> bool {
        let named = resident.by.adapter.as_deref().and_then(|name| self.named(name));
        named.is_some_and(|n| n.pinned && n.current.id == resident.id)
    }

    /// All adapters, by name.
    pub fn list(&self) -> Vec<Arc<Resident>> {
        let mut all: Vec<Arc<Resident>> = self.adapters().values().map(|n| Arc::clone(&n.current)).collect();
        all.sort_by(|a, b| a.by.adapter.cmp(&b.by.adapter));
        all
    }

    /// Loads the adapter in `dir` under a name. One that is there already is replaced where `replace` says so: requests
    /// that it was found for are still answered by it.
    ///
    /// # Errors
    /// A name that can't be one or is taken; an adapter that can't be read or does not fit. Nothing is changed then.
    pub fn load(&self, name: &str, dir: &Path, replace: bool) -> Result<Arc<Resident>, StoreError> {
        check_name(name)?;
        if !replace && self.find(name).is_some() {
            return Err(StoreError::Exists(name.to_owned()));
        }
        self.publish(self.fit(name, dir)?, replace)
    }

    /// Reads the adapter in `dir` and fits it to the base, without anybody seeing it; [`Store::publish`] puts it under its
    /// name.
    ///
    /// # Errors
    /// A name that can't be one; an adapter that can't be read or does not fit.
    pub fn fit(&self, name: &str, dir: &Path) -> Result<Resident, StoreError> {
        check_name(name)?;
        self.memory.room(name, bytes_of(dir))?;
        let (mut stored, digest) = read(dir)?;
        let own = self.formed(Fitted::open(&self.base, &stored, &self.plugin_dirs)?);
        let (labels, info) = (labels(&self.base, &stored), info(&stored));
        stored.parameters.clear();
        stored.head = None;
        let virtual_tokens = own.as_ref().map_or(0, |f| f.virtual_tokens);
        let trained = stored.graft.as_ref().and_then(|g| g.training.as_ref());
        let trained = trained.and_then(|t| usize::try_from(t.recipe.get("max_length")?.as_u64()?).ok());
        // What an adapter's own file says is no reason to go beyond the base.
        let max_length = self.base.max_length(trained.filter(|n| *n > 0), virtual_tokens)?;
        let max_length = max_length.into_iter().chain(self.base.longest()).min();
        let by = Provenance { adapter: Some(name.into()), revision: 0, digest: digest.into() };
        self.memory.room(name, 0)?;
        let id = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Ok(Resident {
            by,
            stored: Some(stored),
            dir: dir.to_path_buf(),
            max_length,
            id,
            info: Some(info),
            labels,
            tally: Tally::default(),
            own,
            vector: OnceLock::new(),
        })
    }

    /// Held by whoever changes files of adapters and then what answers, so that both happen in the same order.
    pub(crate) fn changing_files(&self) -> MutexGuard<'_, ()> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts what was fitted under its name, as its next revision. What it replaces is kept aside.
    ///
    /// # Errors
    /// [`StoreError::Exists`] where there is one and `replace` does not say so.
    pub fn publish(&self, mut made: Resident, replace: bool) -> Result<Arc<Resident>, StoreError> {
        let name = made.by.adapter.as_deref().unwrap_or_default().to_owned();
        let mut all = self.change();
        let before = all.get(&name).cloned();
        if before.is_some() && !replace {
            return Err(StoreError::Exists(name));
        }
        let mut revisions = self.revisions.lock().unwrap_or_else(PoisonError::into_inner);
        let revision = revisions.entry(name.clone()).or_default();
        *revision += 1;
        made.by.revision = *revision;
        let current = Arc::new(made);
        let pinned = before.as_ref().is_some_and(|b| b.pinned);
        let previous = before.map(|b| b.current);
        all.insert(name, Named { current: Arc::clone(&current), previous, pinned });
        self.metrics.loaded(all.len());
        Ok(current)
    }

    /// Goes back to the revision that the current one replaced; the current one is kept aside in its place.
    ///
    /// # Errors
    /// [`StoreError::Unknown`], [`StoreError::NoPrevious`].
    pub fn roll_back(&self, name: &str) -> Result<Arc<Resident>, StoreError> {
        let mut all = self.change();
        let named = all.get_mut(name).ok_or_else(|| StoreError::Unknown(name.to_owned()))?;
        let previous = named.previous.take().ok_or_else(|| StoreError::NoPrevious(name.to_owned()))?;
        named.previous = Some(std::mem::replace(&mut named.current, previous));
        Ok(Arc::clone(&named.current))
    }

    /// Says whether an adapter stays in memory whatever else is asked for.
    ///
    /// # Errors
    /// [`StoreError::Unknown`].
    pub fn pin(&self, name: &str, pinned: bool) -> Result<(), StoreError> {
        let mut all = self.change();
        let named = all.get_mut(name).ok_or_else(|| StoreError::Unknown(name.to_owned()))?;
        named.pinned = pinned;
        Ok(())
    }

    /// Takes an adapter away; requests that it was found for are still answered.
    ///
    /// # Errors
    /// [`StoreError::Unknown`].
    pub fn unload(&self, name: &str) -> Result<Arc<Resident>, StoreError> {
        let mut all = self.change();
        let named = all.shift_remove(name).ok_or_else(|| StoreError::Unknown(name.to_owned()))?;
        self.metrics.unloaded(all.len());
        Ok(named.current)
    }

    /// Loads every folder below `root` that holds an adapter, each under its own name. What can't be loaded is told of
    /// and left out. The first `root` is where [`Store::root`] points from then on.
    ///
    /// # Errors
    /// When the folder can't be listed.
    pub fn load_all(&self, root: &Path) -> Result<Vec<(String, StoreError)>, StoreError> {
        let _ = self.root.set(root.to_owned());
        let mut failed = Vec::new();
        for (name, dir) in folders(root)? {
            if let Err(e) = self.load(&name, &dir, true) {
                failed.push((name, e));
            }
        }
        Ok(failed)
    }

    /// The folder of the adapters, if there is one.
    pub fn root(&self) -> Option<&Path> {
        self.root.get().map(PathBuf::as_path)
    }
}

/// The folders below `root` that hold an adapter, by name.
///
/// # Errors
/// When the folder can't be listed.
pub fn folders(root: &Path) -> Result<Vec<(String, PathBuf)>, StoreError> {
    let io = |source| StoreError::Io { path: root.to_owned(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if holds_adapter(&path) {
            found.push((path.file_name().unwrap_or_default().to_string_lossy().into_owned(), path));
        }
    }
    found.sort();
    Ok(found)
}

/// Bytes of an adapter's files.
fn bytes_of(dir: &Path) -> u64 {
    files_of(dir).iter().filter_map(|f| f.metadata().ok()).map(|m| m.len()).sum()
}

/// Whether a file of an adapter lies in a folder.
pub fn holds_adapter(dir: &Path) -> bool {
    !files_of(dir).is_empty()
}

/// An adapter and the digest of its files, which somebody may be replacing meanwhile.
fn read(dir: &Path) -> Result<(StoredAdapter, String), StoreError> {
    let digest = || digest_files(files_of(dir));
    let mut before = digest()?;
    for _ in 0..3 {
        let stored = load(dir)?;
        let after = digest()?;
        if before == after {
            return Ok((stored, after));
        }
        before = after;
    }
    let source = std::io::Error::other("its files change while they are read");
    Err(StoreError::Io { path: dir.to_owned(), source })
}

/// The names of what a head gives, in order.
fn labels(base: &Base, stored: &StoredAdapter) -> Vec<String> {
    if let Some(g) = stored.graft.as_ref().filter(|g| !g.objective.labels.is_empty()) {
        return g.objective.labels.clone();
    }
    let config = objective_of(base, stored).map(|c| c.config).unwrap_or_default();
    let list = ["labels", "targets"].into_iter().find_map(|key| config.get(key)?.as_array().cloned());
    list.unwrap_or_default().iter().filter_map(|l| l.as_str().map(str::to_owned)).collect()
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
