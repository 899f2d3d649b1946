//! Noticing what others change in the folder of the adapters. By looking, at intervals: that works on network file systems
//! too. Only names, sizes and times of files are looked at until something differs.

use std::collections::HashMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::catalog::Terms;
use super::folder::{Stamp, stamped};
use super::{Store, StoreError, check_name};
use crate::background::step_back;

/// A thread that looks at the folder of the adapters until this is dropped.
pub struct Watcher {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Looks at [`Store::root`] every so often. What [`Store::load_all`] saw there is known already.
    ///
    /// # Errors
    /// When there can be no further thread.
    pub fn start(store: Arc<Store>, every: Duration) -> io::Result<Watcher> {
        let (stop, stopped) = channel();
        let mut watch = Watch::new(store);
        let run = move || {
            step_back();
            while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                if catch_unwind(AssertUnwindSafe(|| watch.look())).is_err() {
                    tracing::error!("looking at the folder of the adapters failed; the next look may not");
                }
            }
        };
        let thread = std::thread::Builder::new().name("adapters".into()).spawn(run)?;
        Ok(Watcher { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Watch {
    store: Arc<Store>,
    /// What was dealt with of each name: loaded, or told of.
    dealt: HashMap<String, Stamp>,
    /// What differed at the last look, and so is dealt with if it still is there at this one; `None` for what was gone.
    moving: HashMap<String, Option<Stamp>>,
    /// Why the folder could not be looked at, the last time.
    trouble: Option<String>,
    /// Which folder the root was when adapters were seen in it.
    place: Option<(u64, u64)>,
}

impl Watch {
    fn new(store: Arc<Store>) -> Watch {
        let dealt = std::mem::take(&mut store.change().seen);
        let place = store.root().and_then(place);
        Watch { store, dealt, moving: HashMap::new(), trouble: None, place }
    }

    fn look(&mut self) {
        let Some(root) = self.store.root().map(Path::to_owned) else { return };
        match self.listed(&root) {
            Ok(found) => {
                self.trouble = None;
                self.deal(&root, found);
            }
            Err(e) => {
                let why = e.to_string();
                if self.trouble.as_ref() != Some(&why) {
                    tracing::warn!(
                        "the folder of the adapters can't be looked at; all stay as they are: {why}"
                    );
                }
                self.trouble = Some(why);
            }
        }
        self.store.make_room(None);
    }

    /// What lies in the folder.
    fn listed(&mut self, root: &Path) -> Result<HashMap<String, (PathBuf, Stamp)>, StoreError> {
        let all: HashMap<_, _> =
            stamped(root)?.into_iter().map(|(name, dir, stamp)| (name, (dir, stamp))).collect();
        let place = place(root);
        if all.is_empty() && !self.dealt.is_empty() && place != self.place {
            // A file system that is not mounted leaves an empty folder.
            return Err(StoreError::io(root)(io::Error::other("another folder is there, which is empty")));
        }
        self.place = place;
        Ok(all)
    }

    fn deal(&mut self, root: &Path, found: HashMap<String, (PathBuf, Stamp)>) {
        let gone: Vec<String> = self.dealt.keys().filter(|n| !found.contains_key(*n)).cloned().collect();
        self.moving.retain(|name, seen| seen.is_none() != found.contains_key(name));
        for name in gone {
            if self.moving.insert(name.clone(), None).is_some() {
                self.moving.remove(&name);
                self.dealt.remove(&name);
                self.store.withdraw(&name, &root.join(&name));
            }
        }
        for (name, (dir, stamp)) in found {
            if self.dealt.get(&name) == Some(&stamp) {
                self.moving.remove(&name);
                continue;
            }
            // Somebody may still be writing.
            let before = self.moving.insert(name.clone(), Some(stamp.clone()));
            if before.flatten().as_ref() != Some(&stamp) {
                continue;
            }
            self.moving.remove(&name);
            self.dealt.insert(name.clone(), stamp.clone());
            if let Err(e) = self.store.found(&name, &dir, &stamp) {
                self.store.metrics.load_failed();
                tracing::warn!(
                    "adapter '{name}' in the folder can't be loaded; what it was still answers: {e}"
                );
            }
        }
    }
}

#[cfg(unix)]
fn place(root: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    root.metadata().ok().map(|m| (m.dev(), m.ino()))
}

#[cfg(not(unix))]
fn place(_: &Path) -> Option<(u64, u64)> {
    None
}

impl Store {
    /// Deals with files that were found in the folder, and that nothing was done about yet.
    fn found(&self, name: &str, dir: &Path, stamp: &Stamp) -> Result<(), StoreError> {
        check_name(name)?;
        let here = {
            let mut catalog = self.change();
            if catalog.is_dismissed(name, Some(stamp)) {
                return Ok(());
            }
            let Some(entry) = catalog.entries.get_mut(name) else {
                drop(catalog);
                return match self.keeping.on_request {
                    true => self.note(name, dir),
                    false => self.announced(name, dir),
                };
            };
            // Somebody said by hand that it is to be loaded from elsewhere, or has put these files there over HTTP.
            if entry.dir != dir || entry.stamp.as_ref() == Some(stamp) {
                return Ok(());
            }
            entry.current.is_some()
        };
        // What is not in memory is read when it is asked for.
        if here { self.announced(name, dir) } else { Ok(()) }
    }

    fn announced(&self, name: &str, dir: &Path) -> Result<(), StoreError> {
        let before = self.named(name).and_then(|n| n.current).map(|r| r.id);
        let loaded = match self.load_on(name, dir, Terms::Found) {
            // It was taken away by hand meanwhile.
            Err(StoreError::Unknown(_)) => return Ok(()),
            other => other?,
        };
        if before != Some(loaded.id) {
            tracing::info!("adapter '{name}' was loaded from the folder, revision {}", loaded.by.revision);
        }
        Ok(())
    }
}
