//! What leaves memory when there is too much in it.

use std::sync::atomic::Ordering;

use super::Store;
use super::folder::Stamp;

impl Store {
    /// Sees to it that adapters take no more memory than they may: former revisions leave it first, then what was not used
    /// for longest. What is pinned stays, and so do `newest` and what could not be loaded again from its folder.
    pub(super) fn make_room(&self, newest: Option<u64>) {
        if self.catalog().bytes() <= self.keeping.host_bytes {
            return;
        }
        self.forget_former();
        for name in self.oldest_first() {
            let catalog = self.catalog();
            if catalog.bytes() <= self.keeping.host_bytes {
                return;
            }
            let Some(entry) = catalog.entries.get(&name) else { continue };
            let (dir, stamp) = (entry.dir.clone(), entry.stamp.clone());
            drop(catalog);
            if stamp.is_none() || Stamp::of(&dir) != stamp {
                continue;
            }
            let mut catalog = self.change();
            let entry = catalog.entries.get_mut(&name).filter(|e| !e.pinned && e.stamp == stamp);
            let current = entry.and_then(|e| e.current.take_if(|c| Some(c.id) != newest));
            if current.is_some() {
                tracing::debug!("adapter '{name}' has left memory");
                self.metrics.evicted_from_memory(catalog.resident(), catalog.bytes());
            }
        }
    }

    /// Lets former revisions go, as far as there is need. Those whose files are kept can be loaded again.
    fn forget_former(&self) {
        for name in self.oldest_first() {
            let Some(named) = self.named(&name).filter(|n| n.previous.is_some()) else { continue };
            let now = named.by.as_ref().map(|b| &*b.digest).unwrap_or_default();
            let kept = self.kept(&name, &named.dir, now);
            let mut catalog = self.change();
            if catalog.bytes() <= self.keeping.host_bytes {
                return;
            }
            let Some(entry) = catalog.entries.get_mut(&name) else { continue };
            let Some(previous) = &mut entry.previous else { continue };
            if previous.resident.take().is_some() {
                if kept.as_deref() != Some(&*previous.digest) {
                    entry.previous = None;
                }
                self.metrics.evicted_from_memory(catalog.resident(), catalog.bytes());
            }
        }
    }

    /// The names of what is in memory, by when they were asked for last.
    fn oldest_first(&self) -> Vec<String> {
        let catalog = self.catalog();
        let here = catalog.entries.iter().filter(|(_, e)| {
            e.current.is_some() || e.previous.as_ref().is_some_and(|p| p.resident.is_some())
        });
        let mut all: Vec<(u64, &String)> =
            here.map(|(name, e)| (e.used.load(Ordering::Relaxed), name)).collect();
        all.sort();
        all.into_iter().map(|(_, name)| name.clone()).collect()
    }
}
