//! Replacing adapters, going back, taking them away. Each changes the folder first, whole or not at all, and then what
//! answers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use graft_adapters::digest_adapter;

use super::catalog::{Entry, Previous, Terms};
use super::folder::{self, Aside, Stamp, former};
use super::resident::TRIES;
use super::{Resident, Store, StoreError, check_name};

/// What going back turns to.
struct Turn {
    dir: PathBuf,
    /// The digest of what answers.
    now: Arc<str>,
    previous: Previous,
    /// Where the files are kept that it replaced.
    kept: Option<PathBuf>,
}

impl Store {
    /// Puts an adapter whose files lie in `from`, a folder of an [`Aside`], under a name: into the folder of the adapters,
    /// and then in the place of what answered. It is loaded first, and nothing is changed where it can't be. The files
    /// that were there are kept for [`Store::roll_back`]. Where they are the same, nothing changes.
    ///
    /// # Errors
    /// A name that can't be one; an adapter that does not fit; a folder that can't be written.
    pub fn replace(&self, name: &str, root: &Path, from: &Path) -> Result<Arc<Resident>, StoreError> {
        check_name(name)?;
        let place = root.join(name);
        let made = self.fit(name, from)?;
        self.warm(&made);
        let order = self.changing_files();
        if self.known_in(name, &place).is_some_and(|known| known != made.by.digest)
            || !folder::holds_adapter(&place)
            || digest_adapter(&place)? != *made.by.digest
        {
            folder::replace(root, name, from, &made.by.digest)?;
        }
        let published = self.publish(made.moved(&place), Stamp::of(&place), Terms::Any)?;
        drop(order);
        self.make_room(Some(published.id));
        Ok(published)
    }

    /// The digest of the files in a folder, where it is known without reading them: they look as when they were read. Good
    /// for saying that they are others, see [`Stamp`].
    fn known_in(&self, name: &str, dir: &Path) -> Option<Arc<str>> {
        let catalog = self.catalog();
        let entry = catalog.entries.get(name).filter(|e| e.dir == dir)?;
        let (seen, by) = (entry.stamp.clone()?, entry.by.as_ref()?);
        let digest = Arc::clone(&by.digest);
        drop(catalog);
        (Stamp::of(dir) == Some(seen)).then_some(digest)
    }

    /// Goes back to the revision that the current one replaced, in the folder too where its files are kept; the current
    /// one is kept aside in its place.
    ///
    /// # Errors
    /// [`StoreError::Unknown`], [`StoreError::NoPrevious`]; files that can't be read or written.
    pub fn roll_back(&self, name: &str) -> Result<Arc<Resident>, StoreError> {
        for _ in 0..TRIES {
            let Turn { dir, now, previous, kept } = self.turn_of(name)?;
            let target = match (&previous.resident, &kept) {
                (Some(resident), _) => Arc::clone(resident),
                (None, Some(kept)) => Arc::new(self.fit(name, kept)?.moved(&dir)),
                (None, None) => return Err(StoreError::NoPrevious(name.to_owned())),
            };
            let _order = self.changing_files();
            // Somebody may have changed it meanwhile.
            let same = |t: Turn| t.now == now && t.previous.digest == previous.digest;
            if !self.turn_of(name).is_ok_and(same) {
                continue;
            }
            if let (Some(root), Some(kept)) = (self.root(), &kept)
                && digest_adapter(kept)? == *target.by.digest
                && digest_adapter(&dir)? == *now
            {
                let aside = Aside::new(root).map_err(StoreError::io(root))?;
                let again = aside.path().join(name);
                graft_adapters::keep(kept, &again)?;
                folder::replace(root, name, &again, &target.by.digest)?;
            }
            return Ok(self.turn(name, &dir, target, &previous));
        }
        Err(StoreError::Replaced(name.to_owned()))
    }

    /// What going back would turn to. That works for what can't be loaded, too.
    fn turn_of(&self, name: &str) -> Result<Turn, StoreError> {
        let unknown = || StoreError::Unknown(name.to_owned());
        let named = self.named(name);
        let place = self.root().map(|root| root.join(name));
        if named.is_none() && self.catalog().dismissed.contains_key(name) {
            return Err(unknown());
        }
        let dir = named.as_ref().map(|n| n.dir.clone()).or_else(|| place.clone()).ok_or_else(unknown)?;
        let now: Arc<str> = match named.as_ref().and_then(|n| n.by.as_ref()) {
            Some(by) => Arc::clone(&by.digest),
            None if folder::holds_adapter(&dir) => digest_adapter(&dir)?.into(),
            None => return Err(unknown()),
        };
        let kept = self.root().filter(|_| place.as_ref() == Some(&dir)).map(|root| former(root, name, &now));
        let kept = kept.filter(|dir| folder::holds_adapter(dir));
        let none = || StoreError::NoPrevious(name.to_owned());
        let previous = match (named.and_then(|n| n.previous), &kept) {
            (Some(previous), _) => previous,
            (None, Some(kept)) => {
                let digest = digest_adapter(kept)?.into();
                Previous { digest, revision: None, resident: None }
            }
            (None, None) => return Err(none()),
        };
        Ok(Turn { dir, now, previous, kept })
    }

    /// Lets a former revision answer again.
    fn turn(&self, name: &str, dir: &Path, target: Arc<Resident>, previous: &Previous) -> Arc<Resident> {
        let holds = digest_adapter(dir).is_ok_and(|d| d == *target.by.digest);
        let stamp = Stamp::of(dir).filter(|_| holds);
        let now = self.tick();
        let mut catalog = self.change();
        let target = match Arc::try_unwrap(target) {
            Ok(mut own) => {
                own.by.revision = previous.revision.unwrap_or_else(|| catalog.number(name));
                Arc::new(own)
            }
            // It is in memory since it answered, and has its number.
            Err(shared) => shared,
        };
        let entry = catalog.entries.entry(name.to_owned()).or_insert_with(|| Entry::new(dir.to_owned()));
        let by = entry.by.replace(target.by.clone());
        let gone = by.map(|b| Previous { digest: b.digest, revision: Some(b.revision), resident: None });
        entry.previous = entry.current.replace(Arc::clone(&target)).map(Previous::of).or(gone);
        entry.stamp = stamp;
        entry.refused = None;
        entry.used.store(now, Ordering::Relaxed);
        self.metrics.loaded(catalog.resident(), catalog.bytes());
        target
    }

    /// Takes an adapter away until it is loaded again by hand, or until its files change; requests that it was found for
    /// are still answered. What answered last, if it was in memory.
    ///
    /// # Errors
    /// [`StoreError::Unknown`].
    pub fn unload(&self, name: &str) -> Result<Option<Arc<Resident>>, StoreError> {
        let lies_there = self.root().and_then(|root| Stamp::of(&root.join(name)));
        let mut catalog = self.change();
        let unknown = || StoreError::Unknown(name.to_owned());
        let gone = catalog.entries.shift_remove(name).ok_or_else(unknown)?;
        catalog.dismissed.insert(name.to_owned(), lies_there);
        self.metrics.unloaded(catalog.resident(), catalog.bytes());
        Ok(gone.current)
    }

    /// Takes an adapter away and removes its folder, with what is kept of former revisions. What answered last, if it was
    /// in memory.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] where there is neither; a folder that can't be removed.
    pub fn remove(&self, name: &str, root: Option<&Path>) -> Result<Option<Arc<Resident>>, StoreError> {
        let _order = self.changing_files();
        let gone = self.unload(name);
        let removed = root.map_or(Ok(false), |root| folder::remove(root, name))?;
        match gone {
            // It could not be loaded, but it was there.
            Err(_) if removed => Ok(None),
            gone => gone,
        }
    }

    /// Takes away what others removed from the folder.
    pub(super) fn withdraw(&self, name: &str, dir: &Path) {
        let _order = self.changing_files();
        let empty = !folder::holds_adapter(dir);
        let mut catalog = self.change();
        catalog.dismissed.remove(name);
        if empty && catalog.entries.get(name).is_some_and(|e| e.dir == dir) {
            catalog.entries.shift_remove(name);
            self.metrics.unloaded(catalog.resident(), catalog.bytes());
            tracing::info!("adapter '{name}' is gone from the folder");
        }
    }
}
