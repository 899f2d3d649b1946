//! The model repository: the folder of the adapters.

use std::sync::Arc;

use super::fault::{Fault, Kind};
use super::models;
use crate::app::Caller;
use crate::background;
use crate::inside::{inside, without};
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

/// The models that the key opens; without those that only lie in the folder where `ready` says so.
///
/// # Errors
/// [`Kind::NoKey`]; when the folder can't be listed.
pub async fn index(caller: &Caller, ready: bool) -> Result<Vec<Entry>, Fault> {
    let store = Arc::clone(&caller.app.engine().store);
    let listed = tokio::task::spawn_blocking(move || index_now(&store, ready)).await;
    // What went wrong names places that are nobody's business.
    let failed = || Fault::new(Kind::Internal, "the folder of the adapters can't be listed");
    let mut entries = listed.map_err(|_| failed())?.map_err(|_| failed())?;
    let access = caller.app.access();
    entries.retain(|e| access.opens(caller.key, &e.name));
    Ok(access.listed(caller.key, entries)?)
}

fn index_now(store: &Store, ready: bool) -> Result<Vec<Entry>, StoreError> {
    let all = std::iter::once(Arc::clone(&store.bare)).chain(store.list());
    let served = all.map(|m| Entry {
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
            let known = store.named(&name);
            if check_name(&name).is_ok() && known.as_ref().is_none_or(|n| n.current.is_none()) {
                let reason = if known.is_some() { "loaded by the first request" } else { "not loaded" };
                entries.push(Entry { name, version: String::new(), state: "UNAVAILABLE", reason });
            }
        }
    }
    Ok(entries)
}

/// Loads the adapter of a name from the folder, or loads it again. The base is always there.
///
/// # Errors
/// A name that can't be one; no folder of that name, or one that leads elsewhere; an adapter that does not fit, in which
/// case the former one stays.
pub async fn load(store: &Arc<Store>, name: &str) -> Result<(), Fault> {
    let (of_task, name) = (Arc::clone(store), name.to_owned());
    let loaded = background::spawn(move || load_now(&of_task, &name)).await;
    let loaded = loaded.map_err(|_| Fault::new(Kind::Internal, "loading the adapter failed"))?;
    loaded.map_err(|e| {
        let fault = Fault::from(e);
        let message = store.root().map(|root| without(root, &fault.message));
        Fault { message: message.unwrap_or_else(|| fault.message.clone()), ..fault }
    })
}

fn load_now(store: &Store, name: &str) -> Result<(), StoreError> {
    let former = store.named(name).map(|n| n.dir);
    if former.is_none() && name == store.base_name {
        return Ok(());
    }
    check_name(name)?;
    let dir = former.or_else(|| inside(store.root()?, name));
    let dir = dir.filter(|d| holds_adapter(d)).ok_or_else(|| StoreError::Unknown(name.to_owned()))?;
    store.load(name, &dir, true)?;
    Ok(())
}

/// Takes an adapter away.
///
/// # Errors
/// A name that no adapter has; the base.
pub fn unload(store: &Store, name: &str) -> Result<(), Fault> {
    if !store.knows(name) && name == store.base_name {
        return Err(Fault::invalid("the base can't be unloaded"));
    }
    store.unload(name)?;
    Ok(())
}
