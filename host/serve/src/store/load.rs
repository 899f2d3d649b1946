//! From a folder into memory, under a name.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use graft_adapters::digest_adapter;

use super::catalog::{Entry, Previous, Terms};
use super::folder::{Stamp, former, holds_adapter, stamped};
use super::resident::TRIES;
use super::{Resident, Store, StoreError, check_name};
use crate::ask::Want;

impl Store {
    /// Loads the adapter in `dir` under a name. One that is there already is replaced where `replace` says so: requests
    /// that it was found for are still answered by it. Where the folder holds what answers already, nothing changes.
    ///
    /// # Errors
    /// A name that can't be one or is taken; an adapter that can't be read or does not fit. Nothing is changed then.
    pub fn load(&self, name: &str, dir: &Path, replace: bool) -> Result<Arc<Resident>, StoreError> {
        check_name(name)?;
        if !replace && self.knows(name) {
            return Err(StoreError::Exists(name.to_owned()));
        }
        self.load_on(name, dir, if replace { Terms::Any } else { Terms::New })
    }

    /// As [`Store::load`]. Name, files and answer never disagree: what was read is published only if it is still what lies
    /// there when nobody else can change it.
    pub(super) fn load_on(&self, name: &str, dir: &Path, terms: Terms) -> Result<Arc<Resident>, StoreError> {
        let began = Instant::now();
        let dir = &self.place_of(name, dir);
        for _ in 0..TRIES {
            if let Some(found) = self.unchanged(name, dir)? {
                return Ok(found);
            }
            let before = Stamp::of(dir);
            let made = self.fit(name, dir)?;
            self.warm(&made);
            let order = self.changing_files();
            let stamp = Stamp::of(dir);
            if stamp == before || digest_adapter(dir)? == *made.by.digest {
                let published = self.publish(made, stamp, terms)?;
                drop(order);
                self.metrics.loading(began.elapsed());
                self.make_room(Some(published.id));
                return Ok(published);
            }
        }
        Err(StoreError::restless(dir))
    }

    /// A folder as it is known here: that of a name by the root and the name, whichever way it was named.
    fn place_of(&self, name: &str, dir: &Path) -> PathBuf {
        let place = self.root().map(|root| root.join(name));
        let same = |p: &PathBuf| p.canonicalize().is_ok_and(|p| dir.canonicalize().is_ok_and(|d| d == p));
        place.filter(same).unwrap_or_else(|| dir.to_owned())
    }

    /// What answers to a name, where the folder holds the files that it was loaded from.
    fn unchanged(&self, name: &str, dir: &Path) -> Result<Option<Arc<Resident>>, StoreError> {
        let Some(current) = self.named(name).filter(|n| n.dir == dir).and_then(|n| n.current) else {
            return Ok(None);
        };
        let _order = self.changing_files();
        let stamp = Stamp::of(dir);
        if stamp.is_none() || digest_adapter(dir)? != *current.by.digest || stamp != Stamp::of(dir) {
            return Ok(None);
        }
        let mut catalog = self.change();
        let entry = catalog.entries.get_mut(name);
        let entry = entry.filter(|e| e.current.as_ref().is_some_and(|c| c.id == current.id));
        Ok(entry.map(|entry| {
            entry.stamp = stamp;
            entry.refused = None;
            current
        }))
    }

    /// Makes what the one in its place was asked for, so that nobody waits for it.
    pub(super) fn warm(&self, made: &Resident) {
        let before = self.named(made.name()).and_then(|n| n.current);
        if before.is_some_and(|b| b.has_vectors()) {
            // Where it can't be made, whoever asks for it is told why.
            let _ = made.form(self, Want::Vector);
        }
    }

    /// Puts what was read under its name; [`Store::changing_files`] is held.
    pub(super) fn publish(
        &self,
        made: Resident,
        stamp: Option<Stamp>,
        terms: Terms,
    ) -> Result<Arc<Resident>, StoreError> {
        // What replaces something knows it without asking the folder.
        let is_new = self.named(made.name()).is_none_or(|n| n.by.is_none());
        let kept = is_new.then(|| self.kept(made.name(), &made.dir, &made.by.digest)).flatten();
        let mut catalog = self.change();
        let published = catalog.publish(made, stamp, terms, self.tick())?;
        if let (Some(digest), Some(entry)) = (kept, catalog.entries.get_mut(published.name()))
            && entry.previous.is_none()
        {
            entry.previous = Some(Previous { digest: digest.into(), revision: None, resident: None });
        }
        self.metrics.loaded(catalog.resident(), catalog.bytes());
        Ok(published)
    }

    /// The digest of the files that are kept of what those with this digest replaced.
    pub(super) fn kept(&self, name: &str, dir: &Path, digest: &str) -> Option<String> {
        let root = self.root().filter(|root| root.join(name) == dir)?;
        let kept = former(root, name, digest);
        if holds_adapter(&kept) { digest_adapter(&kept).ok() } else { None }
    }

    /// Loads every folder below `root` that holds an adapter, each under its own name; or only takes note of it, where
    /// adapters are loaded on request. What can't be loaded is told of and left out. The first `root` is where
    /// [`Store::root`] points from then on.
    ///
    /// # Errors
    /// When the folder can't be listed.
    pub fn load_all(&self, root: &Path) -> Result<Vec<(String, StoreError)>, StoreError> {
        let _ = self.root.set(root.to_owned());
        let mut failed = Vec::new();
        for (name, dir, stamp) in stamped(root)? {
            self.change().seen.insert(name.clone(), stamp);
            let done = match self.keeping.on_request {
                true => self.note(&name, &dir),
                false => self.load_on(&name, &dir, Terms::Any).map(drop),
            };
            if let Err(e) = done {
                self.metrics.load_failed();
                failed.push((name, e));
            }
        }
        Ok(failed)
    }

    /// Takes note of an adapter that is loaded when it is asked for.
    pub(super) fn note(&self, name: &str, dir: &Path) -> Result<(), StoreError> {
        check_name(name)?;
        let stamp = Stamp::of(dir);
        let mut catalog = self.change();
        if !catalog.is_dismissed(name, stamp.as_ref()) {
            catalog.entries.entry(name.to_owned()).or_insert_with(|| Entry::new(dir.to_owned()));
        }
        Ok(())
    }
}
