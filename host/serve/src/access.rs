//! Who may ask for what. Keys come from files or the environment and are kept as digests.
//!
//! Without any key everything is open but what changes the adapters. An adapter with keys of its own answers to them
//! alone; where there is a key for all, every other adapter and the base answer to that. The key of the administrator
//! opens everything.

use std::collections::{HashMap, HashSet};

use axum::http::{HeaderMap, header};
use serde::Deserialize;

use crate::ask::Refusal;

/// Where the administrator's key is looked for.
pub const ADMIN_ENV: &str = "GRAFT_ADMIN_KEY";
/// Where the key that reads the numbers is looked for.
pub const METRICS_ENV: &str = "GRAFT_METRICS_KEY";
/// Where the key that opens every adapter without keys of its own is looked for.
pub const ALL_ENV: &str = "GRAFT_API_KEY";

/// The keys as a file has them (TOML).
#[derive(Default, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeyFile {
    /// The administrator's.
    pub admin: Option<String>,
    /// For `/metrics` alone.
    pub metrics: Option<String>,
    /// For the base and every adapter that has none of its own.
    pub all: Option<String>,
    /// By adapter, or the base's name, the keys that it answers to.
    pub adapters: HashMap<String, Vec<String>>,
}

/// A key that came with a request, as its digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key([u8; 32]);

impl Key {
    /// The digest of a key.
    pub fn new(secret: &str) -> Key {
        Key(*blake3::hash(secret.as_bytes()).as_bytes())
    }

    /// The key in `Authorization: Bearer` or `x-api-key`, which are the same in gRPC's metadata.
    pub fn of(headers: &HeaderMap) -> Option<Key> {
        let bearer = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
        let bearer =
            bearer.and_then(|v| v.split_once(' ')).filter(|(kind, _)| kind.eq_ignore_ascii_case("bearer"));
        let given = bearer.map(|(_, key)| key).or_else(|| headers.get("x-api-key")?.to_str().ok());
        given.map(|key| Key::new(key.trim()))
    }
}

#[derive(Debug, Default, Clone)]
struct Grant {
    admin: bool,
    metrics: bool,
    all: bool,
    adapters: HashSet<String>,
}

/// The keys, and what each opens.
#[derive(Debug, Default, Clone)]
pub struct Access {
    grants: HashMap<[u8; 32], Grant>,
    /// Adapters that have keys of their own.
    closed: HashSet<String>,
    has_admin: bool,
    has_all: bool,
}

impl Access {
    /// The keys of a file.
    pub fn new(file: &KeyFile) -> Access {
        let mut access = Access::default();
        let mut grant = |secret: &str, set: &dyn Fn(&mut Grant)| {
            set(access.grants.entry(Key::new(secret).0).or_default());
        };
        if let Some(k) = &file.admin {
            grant(k, &|g| g.admin = true);
        }
        if let Some(k) = &file.metrics {
            grant(k, &|g| g.metrics = true);
        }
        if let Some(k) = &file.all {
            grant(k, &|g| g.all = true);
        }
        for (name, keys) in &file.adapters {
            keys.iter().for_each(|k| {
                grant(k, &|g| {
                    g.adapters.insert(name.clone());
                });
            });
        }
        access.closed = file.adapters.keys().cloned().collect();
        access.has_admin = file.admin.is_some();
        access.has_all = file.all.is_some();
        access
    }

    fn grant(&self, key: Option<Key>) -> Option<&Grant> {
        self.grants.get(&key?.0)
    }

    /// Whether a key, or none, opens an adapter; the base by its name.
    pub fn opens(&self, key: Option<Key>, adapter: &str) -> bool {
        let closed = self.closed.contains(adapter);
        let open = !closed && !self.has_all;
        open || self.grant(key).is_some_and(|g| g.admin || g.adapters.contains(adapter) || (g.all && !closed))
    }

    /// Whether a key, or none, may ask an adapter, the base by its name.
    ///
    /// # Errors
    /// [`Refusal::NoKey`] without a key that is known; [`Refusal::UnknownAdapter`] for a key that is for other adapters:
    /// its owner is not told which else there are.
    pub fn ask(&self, key: Option<Key>, adapter: &str) -> Result<(), Refusal> {
        match self.opens(key, adapter) {
            true => Ok(()),
            false if self.grant(key).is_some() => Err(Refusal::UnknownAdapter { name: adapter.to_owned() }),
            false => Err(Refusal::NoKey),
        }
    }

    /// A list of what a key, or none, opens.
    ///
    /// # Errors
    /// [`Refusal::NoKey`] where there is nothing in it, without a key that is known.
    pub fn listed<T>(&self, key: Option<Key>, open: Vec<T>) -> Result<Vec<T>, Refusal> {
        if open.is_empty() && self.grant(key).is_none() { Err(Refusal::NoKey) } else { Ok(open) }
    }

    /// Whether names of adapters are nobody's business without a key: some have keys, and this one, or none, opens nothing.
    pub fn hides(&self, key: Option<Key>) -> bool {
        (self.has_all || !self.closed.is_empty()) && self.grant(key).is_none()
    }

    /// Whether a key may change the adapters.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`] where there is no administrator's key, or another was given; [`Refusal::NoKey`].
    pub fn administer(&self, key: Option<Key>) -> Result<(), Refusal> {
        if !self.has_admin {
            let how = format!("adapters can't be changed here: the server has no key for it ({ADMIN_ENV})");
            return Err(Refusal::Forbidden(how));
        }
        match self.grant(key) {
            Some(g) if g.admin => Ok(()),
            Some(_) => Err(Refusal::Forbidden("that takes the administrator's key".into())),
            None => Err(Refusal::NoKey),
        }
    }

    /// Whether a key may read the numbers: where there are keys at all, the one for it or the administrator's.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`], [`Refusal::NoKey`].
    pub fn watch(&self, key: Option<Key>) -> Result<(), Refusal> {
        match self.grant(key) {
            _ if self.grants.is_empty() => Ok(()),
            Some(g) if g.metrics || g.admin => Ok(()),
            Some(_) => Err(Refusal::Forbidden("that takes the key for the numbers".into())),
            None => Err(Refusal::NoKey),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(secret: &str) -> Option<Key> {
        Some(Key::new(secret))
    }

    fn access() -> Access {
        let own = HashMap::from([("acme".to_owned(), vec!["a1".to_owned(), "a2".to_owned()])]);
        let some = |s: &str| Some(s.to_owned());
        Access::new(&KeyFile { admin: some("root"), metrics: some("m"), all: some("all"), adapters: own })
    }

    #[test]
    fn without_keys_everything_is_open_but_changes() {
        let open = Access::default();
        assert!(open.ask(None, "x").is_ok() && open.watch(None).is_ok());
        assert!(matches!(open.administer(key("any")), Err(Refusal::Forbidden(_))));
    }

    #[test]
    fn an_adapter_answers_to_its_own_keys_and_the_administrators() {
        let access = access();
        for k in ["a1", "a2", "root"] {
            assert!(access.ask(key(k), "acme").is_ok(), "{k}");
        }
        assert!(matches!(access.ask(None, "acme"), Err(Refusal::NoKey)));
        assert!(matches!(access.ask(key("wrong"), "acme"), Err(Refusal::NoKey)));
        assert!(matches!(access.ask(key("all"), "acme"), Err(Refusal::UnknownAdapter { .. })));
        assert!(access.hides(None) && access.hides(key("wrong")) && !access.hides(key("all")));
        assert!(!Access::default().hides(None));
    }

    #[test]
    fn the_key_for_all_opens_what_has_no_keys() {
        let access = access();
        assert!(access.ask(key("all"), "other").is_ok());
        assert!(matches!(access.ask(key("a1"), "other"), Err(Refusal::UnknownAdapter { .. })));
        assert!(matches!(access.ask(None, "other"), Err(Refusal::NoKey)));
    }

    #[test]
    fn numbers_and_changes_have_keys_of_their_own() {
        let access = access();
        assert!(access.watch(key("m")).is_ok() && access.watch(key("root")).is_ok());
        assert!(matches!(access.watch(key("a1")), Err(Refusal::Forbidden(_))));
        assert!(matches!(access.administer(key("m")), Err(Refusal::Forbidden(_))));
        assert!(matches!(access.administer(None), Err(Refusal::NoKey)));
        assert!(access.administer(key("root")).is_ok());
    }
}
