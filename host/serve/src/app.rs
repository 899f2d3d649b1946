//! A server: its engine, keys and limits, whether it takes requests; who asks it. What all dialects have at hand.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::http::{Extensions, HeaderMap};

use crate::access::{Access, Key};
use crate::ask::{Answered, Ask, Refusal};
use crate::engine::Engine;
use crate::patience::{Clock, Patience};
use crate::store::{Named, Resident, Store};
use crate::trail::Trail;

/// How requests are taken.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The keys.
    pub access: Access,
    /// The folder of the adapters: what is loaded or uploaded over HTTP lies below it. Without one nothing can be.
    pub adapters: Option<PathBuf>,
    /// Further names of the base.
    pub aliases: Vec<String>,
    /// Largest body of a request, in bytes.
    pub body_bytes: usize,
    /// Largest adapter that is uploaded, in bytes, packed or not.
    pub upload_bytes: usize,
    /// Whether texts that are too long are cut where a request of Text Embeddings Inference does not say.
    pub truncate: bool,
    /// How long requests may take.
    pub patience: Patience,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            access: Access::default(),
            adapters: None,
            aliases: Vec::new(),
            body_bytes: 8 << 20,
            upload_bytes: 1 << 30,
            truncate: true,
            patience: Patience::default(),
        }
    }
}

/// A server. A clone is the same.
#[derive(Clone)]
pub struct App(Arc<Inner>);

struct Inner {
    engine: Arc<Engine>,
    settings: Settings,
    started: u64,
    draining: AtomicBool,
}

impl From<Arc<Engine>> for App {
    fn from(engine: Arc<Engine>) -> App {
        App::new(engine, Settings::default())
    }
}

impl App {
    /// An engine with the settings of its server.
    pub fn new(engine: Arc<Engine>, settings: Settings) -> App {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (started, draining) = (now.as_secs(), AtomicBool::new(false));
        App(Arc::new(Inner { engine, settings, started, draining }))
    }

    /// The engine.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.0.engine
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// The keys.
    pub fn access(&self) -> &Access {
        &self.0.settings.access
    }

    /// When it was made, in seconds since 1970.
    pub(crate) fn started(&self) -> u64 {
        self.0.started
    }

    /// Says from now on that it is not ready, so that whoever sends requests here sends them elsewhere; those that still
    /// come are answered. Done after `grace`.
    pub async fn drain(&self, grace: Duration) {
        self.0.draining.store(true, Ordering::Release);
        tokio::time::sleep(grace).await;
    }

    /// Whether requests should be sent here.
    ///
    /// # Errors
    /// [`Refusal::Stopping`] since [`App::drain`].
    pub fn ready(&self) -> Result<(), Refusal> {
        if self.0.draining.load(Ordering::Acquire) { Err(Refusal::Stopping) } else { Ok(()) }
    }

    /// The adapter of that name, the base for none and for each of its names; if the key opens it. It is loaded where it is
    /// not in memory.
    ///
    /// # Errors
    /// [`Refusal::UnknownAdapter`], [`Refusal::NoKey`]; see [`Store::get`].
    pub async fn resident(&self, key: Option<Key>, name: Option<&str>) -> Result<Arc<Resident>, Refusal> {
        let engine = self.engine();
        let found = match self.known(key, name) {
            Ok(named) => engine.resident(named.as_ref().map(|n| n.name.as_str())).await,
            Err(why) => Err(why),
        };
        found.map_err(|why| self.hidden(key, why)).inspect_err(|why| engine.store.metrics.refused(why))
    }

    /// What is known of the adapter of that name, in memory or not; `None` for the base; if the key opens it.
    ///
    /// # Errors
    /// [`Refusal::UnknownAdapter`], [`Refusal::NoKey`].
    pub fn known(&self, key: Option<Key>, name: Option<&str>) -> Result<Option<Named>, Refusal> {
        let store = &self.engine().store;
        let named = name.and_then(|n| store.named(n));
        let of_base = |n: &str| n == store.base_name || self.0.settings.aliases.iter().any(|a| a == n);
        let known = match name {
            Some(n) if named.is_some() || !of_base(n) => n,
            _ => &store.base_name,
        };
        let found = match name {
            Some(n) if named.is_none() && !of_base(n) => Err(Refusal::UnknownAdapter { name: n.to_owned() }),
            _ => self.access().ask(key, known).map(|()| named),
        };
        found.map_err(|why| self.hidden(key, why))
    }

    /// A name that nobody has must not look different from one that is closed.
    fn hidden(&self, key: Option<Key>, why: Refusal) -> Refusal {
        match why {
            Refusal::UnknownAdapter { .. } if self.access().hides(key) => Refusal::NoKey,
            why => why,
        }
    }

    /// All that the key opens: the base, which is `None`, and adapters, in memory or not.
    ///
    /// # Errors
    /// [`Refusal::NoKey`] where that is nothing, without a key that is known.
    pub fn models(&self, key: Option<Key>) -> Result<Vec<Option<Named>>, Refusal> {
        let store = &self.engine().store;
        let all = std::iter::once(None).chain(store.all().into_iter().map(Some));
        let name = |one: &Option<Named>| one.as_ref().map_or(store.base_name.clone(), |n| n.name.clone());
        self.access().listed(key, all.filter(|one| self.access().opens(key, &name(one))).collect())
    }

    /// The base and the adapters in memory that the key opens.
    ///
    /// # Errors
    /// [`Refusal::NoKey`] where that is nothing, without a key that is known.
    pub fn residents(&self, key: Option<Key>) -> Result<Vec<Arc<Resident>>, Refusal> {
        let store = &self.engine().store;
        let all = std::iter::once(Arc::clone(&store.bare)).chain(store.list());
        let open = all.filter(|one| self.access().opens(key, self.name_of(one)));
        self.access().listed(key, open.collect())
    }

    /// The name by which a resident is asked for.
    pub fn name_of<'a>(&'a self, resident: &'a Resident) -> &'a str {
        resident.by.adapter.as_deref().unwrap_or(&self.engine().store.base_name)
    }
}

/// Who asks: which server, with which key. What it is not to see is not to be had from here.
#[derive(Clone)]
pub struct Caller {
    /// The server.
    pub app: App,
    /// The key that came along.
    pub key: Option<Key>,
    clock: Clock,
    trail: Arc<Trail>,
}

impl Caller {
    /// Who sent these headers, with what was noted of the request when it came.
    pub fn of(app: &App, headers: &HeaderMap, noted: &Extensions) -> Caller {
        let clock = noted.get().copied().unwrap_or_else(|| Clock::start(headers));
        let trail = noted.get().cloned().unwrap_or_else(|| Trail::of(headers));
        Caller { app: app.clone(), key: Key::of(headers), clock, trail }
    }

    /// When an answer is of no use any more; `more` is what a parameter of the request says.
    pub fn deadline(&self, more: Option<Duration>) -> Option<Instant> {
        self.clock.deadline(more, &self.app.settings().patience)
    }

    /// Answers a request of which the adapter was found, in the time that it has.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn ask(&self, resident: &Arc<Resident>, ask: Ask) -> Result<Answered, Refusal> {
        let ask = Ask { deadline: ask.deadline.or_else(|| self.deadline(None)), ..ask };
        self.trail.asks(&resident.by, &self.app.engine().store.base_name);
        let result = self.app.engine().ask_of(resident, ask).await;
        self.trail.ends(&result);
        result
    }

    /// See [`App::resident`].
    ///
    /// # Errors
    /// As there.
    pub async fn resident(&self, name: &str) -> Result<Arc<Resident>, Refusal> {
        self.app.resident(self.key, Some(name)).await
    }

    /// The base and the adapters that the key opens.
    ///
    /// # Errors
    /// See [`App::residents`].
    pub fn residents(&self) -> Result<Vec<Arc<Resident>>, Refusal> {
        self.app.residents(self.key)
    }

    /// The adapters, to change them.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`], [`Refusal::NoKey`].
    pub fn administer(&self) -> Result<&Arc<Store>, Refusal> {
        self.app.access().administer(self.key)?;
        Ok(&self.app.engine().store)
    }
}
