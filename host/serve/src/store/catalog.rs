//! What is known of each name.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use indexmap::IndexMap;

use super::folder::Stamp;
use super::{Resident, StoreError};
use crate::ask::Provenance;

/// What answered before it was replaced.
#[derive(Clone)]
pub struct Previous {
    /// The digest of its files.
    pub digest: Arc<str>,
    /// Its revision; `None` where it was replaced before this server started.
    pub revision: Option<u64>,
    /// As long as it is in memory.
    pub resident: Option<Arc<Resident>>,
}

impl Previous {
    pub(super) fn of(resident: Arc<Resident>) -> Previous {
        let by = &resident.by;
        Previous { digest: Arc::clone(&by.digest), revision: Some(by.revision), resident: Some(resident) }
    }
}

/// What is known of a name.
#[derive(Clone)]
pub struct Named {
    /// The name.
    pub name: String,
    /// The folder that it is loaded from.
    pub dir: PathBuf,
    /// What answers, if it is in memory.
    pub current: Option<Arc<Resident>>,
    /// What answers, or did when it was in memory last; `None` where it never was.
    pub by: Option<Provenance>,
    /// What answered before it was replaced.
    pub previous: Option<Previous>,
    /// Whether it stays in memory whatever else is asked for.
    pub pinned: bool,
}

impl Named {
    pub(super) fn of(name: &str, entry: &Entry) -> Named {
        Named {
            name: name.to_owned(),
            dir: entry.dir.clone(),
            current: entry.current.clone(),
            by: entry.by.clone(),
            previous: entry.previous.clone(),
            pinned: entry.pinned,
        }
    }
}

/// A name's place in the catalog; see [`Named`].
pub(super) struct Entry {
    pub(super) dir: PathBuf,
    /// What is seen of the files that `by` was read from; `None` where the folder has others.
    pub(super) stamp: Option<Stamp>,
    pub(super) current: Option<Arc<Resident>>,
    pub(super) by: Option<Provenance>,
    pub(super) previous: Option<Previous>,
    pub(super) pinned: bool,
    /// When it was asked for last.
    pub(super) used: AtomicU64,
    /// Files that could not be loaded, and why not.
    pub(super) refused: Option<(Option<Stamp>, String)>,
}

impl Entry {
    /// A name of which nothing is in memory.
    pub(super) fn new(dir: PathBuf) -> Entry {
        Entry {
            dir,
            stamp: None,
            current: None,
            by: None,
            previous: None,
            pinned: false,
            used: AtomicU64::new(0),
            refused: None,
        }
    }
}

/// On which terms something is put under its name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Terms {
    /// There must be none.
    New,
    /// Whatever is there is replaced.
    Any,
    /// It must be there still: somebody asked for it.
    Known,
    /// It was found in the folder; who said by hand that it is not to be there is right.
    Found,
}

/// What is known of all names.
#[derive(Default)]
pub(super) struct Catalog {
    pub(super) entries: IndexMap<String, Entry>,
    /// The last revision of each name that there ever was, so that no number is given twice.
    revisions: HashMap<String, u64>,
    /// What lay in the folders of those that were taken away by hand.
    pub(super) dismissed: HashMap<String, Option<Stamp>>,
    /// What could not be loaded at the start, or was: what the folder held then.
    pub(super) seen: HashMap<String, Stamp>,
}

impl Catalog {
    /// Bytes of all that is in memory.
    pub(super) fn bytes(&self) -> usize {
        let of = |r: Option<&Arc<Resident>>| r.map_or(0, |r| r.bytes());
        let entry =
            |e: &Entry| of(e.current.as_ref()) + of(e.previous.as_ref().and_then(|p| p.resident.as_ref()));
        self.entries.values().map(entry).sum()
    }

    /// How many are in memory.
    pub(super) fn resident(&self) -> usize {
        self.entries.values().filter(|e| e.current.is_some()).count()
    }

    /// The number of a revision that was not there before.
    pub(super) fn number(&mut self, name: &str) -> u64 {
        let last = self.revisions.entry(name.to_owned()).or_default();
        *last += 1;
        *last
    }

    /// Whether somebody said by hand that these files are not to be served.
    pub(super) fn is_dismissed(&self, name: &str, stamp: Option<&Stamp>) -> bool {
        self.dismissed.get(name).is_some_and(|d| d.as_ref() == stamp)
    }

    /// Puts what was made under its name. What answered before is kept aside; what was only out of memory comes back with
    /// the number that it had. `stamp` is that of its files.
    pub(super) fn publish(
        &mut self,
        mut made: Resident,
        stamp: Option<Stamp>,
        terms: Terms,
        now: u64,
    ) -> Result<Arc<Resident>, StoreError> {
        let name = made.name().to_owned();
        let before = self.entries.get(&name);
        match terms {
            Terms::New if before.is_some() => return Err(StoreError::Exists(name)),
            Terms::Known if before.is_none() => return Err(StoreError::Unknown(name)),
            Terms::Found if self.is_dismissed(&name, stamp.as_ref()) => {
                return Err(StoreError::Unknown(name));
            }
            _ => {}
        }
        let same = |b: &&Provenance| b.digest == made.by.digest;
        let known = before.filter(|b| b.dir == made.dir).and_then(|b| b.by.as_ref()).filter(same);
        let returns = known.is_some();
        made.by.revision = match known.map(|b| b.revision) {
            Some(revision) => revision,
            None => self.number(&name),
        };
        self.dismissed.remove(&name);
        let entry = self.entries.entry(name).or_insert_with(|| Entry::new(made.dir.clone()));
        entry.dir.clone_from(&made.dir);
        entry.stamp = stamp;
        entry.refused = None;
        entry.used.store(now, Ordering::Relaxed);
        if returns && let Some(there) = &entry.current {
            return Ok(Arc::clone(there));
        }
        let by = entry.by.replace(made.by.clone());
        let current = Arc::new(made);
        let old = entry.current.replace(Arc::clone(&current));
        if !returns {
            let gone = by.map(|b| Previous { digest: b.digest, revision: Some(b.revision), resident: None });
            entry.previous = old.map(Previous::of).or(gone);
        }
        Ok(current)
    }
}
