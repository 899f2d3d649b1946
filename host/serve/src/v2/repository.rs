//! The model repository: the folder of the adapters.

use std::sync::Arc;

use super::fault::{Fault, Kind};
use super::models;
use crate::engine::Engine;
use crate::store::{Store, StoreError, check_name, folders, holds_adapter};

/// Said to who wants a model loaded with parameters.
pub const NO_PARAMETERS: &str =
    "adapters are loaded as they lie in their folder: 'config' and 'file:…' are not served";

/// A model that is or could be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its version; empty where it is not served.
    pub version: String,
    /// `READY` or `UNAVAILABLE`.
    pub state: &'static str,
    /// Why it is not served; empty where it is.
    pub reason: &'static str,
}

/// The models; without those that only lie in the folder where `ready` says so.
///
/// # Errors
/// When the folder can't be listed.
pub async fn index(engine: &Arc<Engine>, ready: bool) -> Result<Vec<Entry>, Fault> {
    let store = Arc::clone(&engine.store);
    let listed = tokio::task::spawn_blocking(move || index_now(&store, ready)).await;
    listed.map_err(|_| Fault::new(Kind::Internal, "listing the adapters failed"))?
}

fn index_now(store: &Store, ready: bool) -> Result<Vec<Entry>, Fault> {
    let served = models::all(store).into_iter().map(|m| Entry {
        name: models::name(store, &m).to_owned(),
        version: m.by.revision.to_string(),
        state: "READY",
        reason: "",
    });
    let mut entries: Vec<Entry> = served.collect();
    if let Some(root) = store.root()
        && !ready
    {
        for (name, _) in folders(root)? {
            if check_name(&name).is_ok() && store.find(&name).is_none() {
                let version = String::new();
                entries.push(Entry { name, version, state: "UNAVAILABLE", reason: "not loaded" });
            }
        }
    }
    Ok(entries)
}

/// Loads the adapter of a name from the folder, or loads it again. The base is always there.
///
/// # Errors
/// A name that can't be one; no folder of that name; an adapter that does not fit, in which case the former one stays.
pub async fn load(engine: &Arc<Engine>, name: &str) -> Result<(), Fault> {
    let (store, name) = (Arc::clone(&engine.store), name.to_owned());
    let loaded = tokio::task::spawn_blocking(move || load_now(&store, &name)).await;
    loaded.map_err(|_| Fault::new(Kind::Internal, "loading the adapter failed"))?
}

fn load_now(store: &Store, name: &str) -> Result<(), Fault> {
    let former = store.find(name).and_then(|r| Some(r.stored.as_ref()?.dir.clone()));
    if former.is_none() && name == store.base_name {
        return Ok(());
    }
    check_name(name)?;
    let dir = former.or_else(|| Some(store.root()?.join(name)));
    let dir = dir.filter(|d| holds_adapter(d)).ok_or_else(|| StoreError::Unknown(name.to_owned()))?;
    store.load(name, &dir, true)?;
    Ok(())
}

/// Takes an adapter away.
///
/// # Errors
/// A name that no adapter has; the base.
pub fn unload(store: &Store, name: &str) -> Result<(), Fault> {
    if store.find(name).is_none() && name == store.base_name {
        return Err(Fault::invalid("the base can't be unloaded"));
    }
    store.unload(name)?;
    Ok(())
}
