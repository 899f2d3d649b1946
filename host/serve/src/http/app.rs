//! What every handler has at hand.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::FromRef;

use crate::access::{Access, Key};
use crate::ask::{Answered, Ask, Refusal};
use crate::engine::Engine;
use crate::store::Resident;

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
        }
    }
}

/// The state of the router. A clone is the same.
#[derive(Clone)]
pub struct App(Arc<Inner>);

struct Inner {
    engine: Arc<Engine>,
    settings: Settings,
    started: u64,
}

impl From<Arc<Engine>> for App {
    fn from(engine: Arc<Engine>) -> App {
        App::new(engine, Settings::default())
    }
}

impl FromRef<App> for Arc<Engine> {
    fn from_ref(app: &App) -> Arc<Engine> {
        Arc::clone(&app.0.engine)
    }
}

impl App {
    /// An engine with the settings of its server.
    pub fn new(engine: Arc<Engine>, settings: Settings) -> App {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        App(Arc::new(Inner { engine, settings, started: now.as_secs() }))
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
    pub(super) fn started(&self) -> u64 {
        self.0.started
    }

    /// The adapter of that name, the base for none and for each of its names; if the key opens it.
    ///
    /// # Errors
    /// [`Refusal::UnknownAdapter`], [`Refusal::NoKey`].
    pub fn resident(&self, key: Option<Key>, name: Option<&str>) -> Result<Arc<Resident>, Refusal> {
        let engine = self.engine();
        let alias =
            |n: &&str| engine.store.find(n).is_none() && self.0.settings.aliases.iter().any(|a| a == n);
        let name = name.filter(|n| !alias(n));
        let found = engine.resident(name).and_then(|found| {
            let known = found.by.adapter.as_deref().unwrap_or(&engine.store.base_name);
            self.access().ask(key, known).map(|()| found)
        });
        let found = found.map_err(|why| match why {
            // A name that nobody has must not look different from one that is closed.
            Refusal::UnknownAdapter { .. } if self.access().hides(key) => Refusal::NoKey,
            why => why,
        });
        found.inspect_err(|why| engine.store.metrics.refused(why))
    }

    /// The name by which a resident is asked for.
    pub fn name_of<'a>(&'a self, resident: &'a Resident) -> &'a str {
        resident.by.adapter.as_deref().unwrap_or(&self.engine().store.base_name)
    }

    /// Answers a request of which the adapter was found.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn ask(&self, resident: &Arc<Resident>, ask: Ask) -> Result<Answered, Refusal> {
        self.engine().ask_of(resident, ask).await
    }
}
