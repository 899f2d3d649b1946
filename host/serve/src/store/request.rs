//! Loading what a request asks for: once, however many ask.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};

use super::catalog::Terms;
use super::folder::Stamp;
use super::{Resident, Store, StoreError};
use crate::ask::Refusal;
use crate::background;
use crate::inside::without;

/// Most adapters that wait to be loaded.
const MOST_WAITING: usize = 256;

type Outcome = Option<Result<Arc<Resident>, Refusal>>;

/// What is being loaded because somebody asked for it.
pub(super) struct Loads {
    running: Mutex<HashMap<String, watch::Receiver<Outcome>>>,
    /// One core is left to those who answer.
    at_once: Arc<Semaphore>,
}

impl Default for Loads {
    fn default() -> Loads {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Loads { running: Mutex::default(), at_once: Arc::new(Semaphore::new((cores - 1).clamp(1, 4))) }
    }
}

impl Loads {
    fn running(&self) -> MutexGuard<'_, HashMap<String, watch::Receiver<Outcome>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A load that ends, whatever becomes of it.
struct Running {
    store: Arc<Store>,
    name: String,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.store.loads.running().remove(&self.name);
    }
}

impl Store {
    /// The adapter of that name as it is now; one that is not in memory is loaded, off the threads that answer. Needs the
    /// runtime of tokio.
    ///
    /// # Errors
    /// [`Refusal::UnknownAdapter`]; [`Refusal::NotLoaded`] where the folder holds something that can't be loaded;
    /// [`Refusal::Busy`] where that takes too long, or too many wait already.
    pub async fn get(self: &Arc<Store>, name: &str) -> Result<Arc<Resident>, Refusal> {
        if let Some(found) = self.find(name) {
            return Ok(found);
        }
        let busy = || Refusal::Busy { adapter: None, retry_after: Duration::from_secs(1) };
        let mut outcome = self.begin(name)?;
        let done = tokio::time::timeout(self.keeping.wait, outcome.wait_for(Option::is_some)).await;
        match done.map_err(|_| busy())? {
            Ok(done) => done.as_ref().map_or_else(|| Err(busy()), Clone::clone),
            Err(_) => Err(Refusal::Internal("loading the adapter failed".into())),
        }
    }

    /// Starts loading an adapter, or joins those who wait for it already.
    fn begin(self: &Arc<Store>, name: &str) -> Result<watch::Receiver<Outcome>, Refusal> {
        let mut running = self.loads.running();
        if let Some(outcome) = running.get(name) {
            return Ok(outcome.clone());
        }
        if !self.knows(name) {
            return Err(Refusal::UnknownAdapter { name: name.to_owned() });
        }
        if running.len() >= MOST_WAITING {
            return Err(Refusal::Busy { adapter: None, retry_after: Duration::from_secs(1) });
        }
        let (done, outcome) = watch::channel(None);
        running.insert(name.to_owned(), outcome.clone());
        drop(running);
        let at_once = Arc::clone(&self.loads.at_once);
        let load = Running { store: Arc::clone(self), name: name.to_owned() };
        tokio::spawn(async move {
            let _turn = at_once.acquire_owned().await;
            let work = background::spawn(move || {
                let loaded = load.store.load_known(&load.name);
                drop(load);
                done.send_replace(Some(loaded));
            });
            let _ = work.await;
        });
        Ok(outcome)
    }

    /// Loads an adapter that is known. Files that could not be loaded are not tried again until they change.
    fn load_known(&self, name: &str) -> Result<Arc<Resident>, Refusal> {
        if let Some(found) = self.find(name) {
            return Ok(found);
        }
        let unknown = || Refusal::UnknownAdapter { name: name.to_owned() };
        let dir = self.named(name).ok_or_else(unknown)?.dir;
        let stamp = Stamp::of(&dir);
        let not_loaded = |why: &str| Refusal::NotLoaded { name: name.to_owned(), why: why.to_owned() };
        let refused = self.catalog().entries.get(name).and_then(|e| e.refused.clone());
        if let Some((_, why)) = refused.filter(|(of, _)| *of == stamp) {
            return Err(not_loaded(&why));
        }
        match self.load_on(name, &dir, Terms::Known) {
            Ok(loaded) => Ok(loaded),
            Err(StoreError::Unknown(_)) => Err(unknown()),
            Err(e) => {
                let why = self.root().map_or_else(|| e.to_string(), |root| without(root, &e.to_string()));
                if let Some(entry) = self.change().entries.get_mut(name) {
                    entry.refused = Some((stamp, why.clone()));
                }
                self.metrics.load_failed();
                tracing::warn!("adapter '{name}' can't be loaded: {e}");
                Err(not_loaded(&why))
            }
        }
    }
}
