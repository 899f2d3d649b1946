//! What an adapter is run as: fragments that share a session with others', or a session of its own.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use graft_adapters::StoredAdapter;
use graft_graph::batch::{Bank, Fragment, Signature, Unbatchable};
use graft_plugins::Objective;
use graft_runtime::SessionOptions;
use graft_tasks::binding::{Choice, objective_of};
use graft_tasks::{Base, Fitted, Known, Parts, Program, Room, StructureKey, Structures, TaskError, headless};

use crate::background::Makers;

/// How an adapter is run.
pub enum Way {
    /// With others; its objective decodes the outputs.
    Shared(Box<Parts>, Arc<Objective>),
    /// In a pass of its own.
    Alone(Box<Alone>),
}

/// An adapter that can't share a batch.
pub struct Alone {
    /// The adapter.
    pub fitted: Fitted,
    /// Why it can't.
    pub why: Unbatchable,
    session: Mutex<Option<Program>>,
}

impl Alone {
    /// The session, which is made where there is none.
    ///
    /// # Errors
    /// What ONNX Runtime says.
    pub fn session(&self, base: &Base, rooms: &Rooms) -> Result<MutexGuard<'_, Option<Program>>, TaskError> {
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        if session.is_none() {
            let options = rooms.options.get().cloned().unwrap_or_default();
            *session = Some(rooms.makers.make(|| self.fitted.program(base, &options))?);
        }
        Ok(session)
    }

    /// Lets the session go; the next one that wants it makes another.
    pub fn end_session(&self) {
        *self.session.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// An adapter with an objective, ready to be run.
pub struct Form {
    /// How it is run.
    pub way: Way,
    /// Places that its virtual tokens take from texts.
    pub virtual_tokens: usize,
    /// What others of its structure are known by.
    structure: Option<StructureKey>,
}

impl Form {
    /// An adapter with its own objective, or with one in its head's place; the base as it is for none. `None` where there is
    /// no objective. Work that depends on no tensor is done once for all adapters of a configuration.
    ///
    /// # Errors
    /// Another base, missing plugins, modules or tensors that do not fit.
    pub fn open(
        base: &Base,
        rooms: &Rooms,
        adapter: Option<&StoredAdapter>,
        instead: Option<&Choice>,
        plugin_dirs: &[PathBuf],
    ) -> Result<Option<Form>, TaskError> {
        let own = || adapter.and_then(|a| objective_of(base, a));
        let Some(choice) = instead.cloned().or_else(own) else {
            // Whether it fits is asked all the same.
            adapter.map(|a| Fitted::open(base, a, plugin_dirs)).transpose()?;
            return Ok(None);
        };
        let adapter =
            adapter.map(|a| if instead.is_some() { Cow::Owned(headless(a)) } else { Cow::Borrowed(a) });
        let key = match rooms.structures.find(base, adapter.as_deref(), &choice)? {
            Ok(known) => {
                if let Some(form) = Form::known(base, rooms, known) {
                    return Ok(Some(form));
                }
                None
            }
            Err(key) => Some(key),
        };
        let fitted = match adapter.as_deref() {
            Some(adapter) if instead.is_none() => Fitted::open(base, adapter, plugin_dirs)?,
            adapter => {
                let objective = Objective::find(plugin_dirs, &choice.id, &choice.config)?;
                Fitted::with_objective(base, adapter, objective, plugin_dirs)?
            }
        };
        Ok(Form::of(base, rooms, fitted, key))
    }

    /// The same adapter with an objective in the place of its own, where that takes nothing that is not in memory.
    pub fn with(&self, base: &Base, rooms: &Rooms, objective: &Choice) -> Option<Form> {
        let (Way::Shared(parts, _), Some(key)) = (&self.way, &self.structure) else { return None };
        Form::known(base, rooms, rooms.structures.with(key, parts, objective)?)
    }

    fn known(base: &Base, rooms: &Rooms, mut known: Known) -> Option<Form> {
        rooms.cover(base, &mut known.parts).ok()?;
        rooms.lay_out(&known.parts);
        let (virtual_tokens, structure) = (known.virtual_tokens, Some(known.key));
        let way = Way::Shared(Box::new(known.parts), known.objective);
        Some(Form { way, virtual_tokens, structure })
    }

    fn of(base: &Base, rooms: &Rooms, mut fitted: Fitted, key: Option<StructureKey>) -> Option<Form> {
        let virtual_tokens = fitted.virtual_tokens;
        let checked = |p: Parts| if rooms.knows(&p) { Ok(p) } else { p.check(base).map(|()| p) };
        let covered = |mut p: Parts| match rooms.cover(base, &mut p) {
            Ok(()) => Ok(p),
            Err(e) => Err(Unbatchable { op: "session".into(), place: String::new(), why: e.to_string() }),
        };
        match fitted.parts(base).and_then(checked).and_then(covered) {
            Ok(parts) => {
                let objective = Arc::new(fitted.objective.take()?);
                if let Some(key) = &key {
                    rooms.structures.keep(key.clone(), &fitted, &parts, &objective);
                }
                rooms.lay_out(&parts);
                let way = Way::Shared(Box::new(parts), objective);
                Some(Form { way, virtual_tokens, structure: key })
            }
            Err(why) => {
                fitted.objective.as_ref()?;
                let alone = Alone { fitted, why, session: Mutex::default() };
                Some(Form { way: Way::Alone(Box::new(alone)), virtual_tokens, structure: None })
            }
        }
    }

    /// Virtual tokens that a row comes with; those of a pass of its own are put in front there.
    pub fn laid_out(&self) -> usize {
        match self.way {
            Way::Shared(..) => self.virtual_tokens,
            Way::Alone(..) => 0,
        }
    }

    /// Makes what running it takes, on the caller's thread, so that the one that runs batches finds it there.
    ///
    /// # Errors
    /// What ONNX Runtime says.
    pub fn get_ready(&self, base: &Base, rooms: &Rooms) -> Result<(), TaskError> {
        match &self.way {
            Way::Shared(..) => Ok(()),
            Way::Alone(alone) => alone.session(base, rooms).map(drop),
        }
    }

    /// What decodes its outputs.
    ///
    /// # Errors
    /// Never for a form that [`Form::open`] made.
    pub fn objective(&self) -> Result<&Objective, TaskError> {
        match &self.way {
            Way::Shared(_, objective) => Ok(objective),
            Way::Alone(alone) => alone.fitted.objective(),
        }
    }

    /// Whether its objective is that one.
    pub fn is(&self, objective: &str) -> bool {
        self.objective().is_ok_and(|o| o.id() == objective)
    }
}

/// The fragments that there are.
#[derive(Default)]
struct Seen {
    fragments: HashMap<Signature, Arc<Fragment>>,
    /// What the newest session has, and in which banks.
    covered: Arc<HashMap<Signature, Arc<[Bank]>>>,
}

/// The sessions that adapters share: the newest one has every fragment that was ever asked for.
#[derive(Default)]
pub struct Rooms {
    structures: Structures,
    seen: Mutex<Seen>,
    /// For each lane the newest one, until it is taken.
    next: Mutex<Vec<Option<Room>>>,
    options: OnceLock<SessionOptions>,
    makers: Makers,
}

impl Rooms {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether all fragments of an adapter were asked for before.
    fn knows(&self, parts: &Parts) -> bool {
        let seen = self.seen();
        parts.signatures().all(|s| seen.fragments.contains_key(s))
    }

    /// From now on sessions are made, the first one at once.
    ///
    /// # Errors
    /// What ONNX Runtime says.
    pub fn open(&self, base: &Base, options: SessionOptions) -> Result<(), TaskError> {
        self.makers.start();
        self.options.get_or_init(|| options);
        self.grow(base, &mut self.seen())
    }

    /// Sees to it that the newest session has all fragments of an adapter. It is made here, while the one in use goes on.
    ///
    /// # Errors
    /// What ONNX Runtime says.
    pub fn cover(&self, base: &Base, parts: &mut Parts) -> Result<(), TaskError> {
        let mut seen = self.seen();
        if self.options.get().is_none() || parts.signatures().all(|s| seen.covered.contains_key(s)) {
            parts.share(&mut seen.fragments);
            return Ok(());
        }
        // What can't be had together with the others must not stay.
        let mut more = Seen { fragments: seen.fragments.clone(), covered: Arc::default() };
        parts.share(&mut more.fragments);
        self.grow(base, &mut more)?;
        *seen = more;
        Ok(())
    }

    /// Brings an adapter's numbers into the order of its banks, where there is a session already.
    fn lay_out(&self, parts: &Parts) {
        let layouts = Arc::clone(&self.seen().covered);
        parts.lay_out(&layouts);
    }

    fn grow(&self, base: &Base, seen: &mut Seen) -> Result<(), TaskError> {
        let Some(options) = self.options.get().filter(|_| !seen.fragments.is_empty()) else { return Ok(()) };
        let mut all: Vec<Arc<Fragment>> = seen.fragments.values().cloned().collect();
        all.sort_by_key(|f| f.signature);
        let rooms = self.makers.make(|| Room::lanes(base, &all, options))?;
        seen.covered = rooms.first().map(|room| Arc::new(room.layouts())).unwrap_or_default();
        let next = rooms.into_iter().map(Some).collect();
        let before = std::mem::replace(&mut *self.next.lock().unwrap_or_else(PoisonError::into_inner), next);
        drop(before);
        Ok(())
    }

    /// The newest session of a lane, if it was not taken yet.
    pub fn take(&self, lane: usize) -> Option<Room> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner).get_mut(lane)?.take()
    }
}
