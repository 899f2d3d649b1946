//! What an adapter is run as: fragments that share a session with others', or a session of its own.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use graft_graph::batch::{Fragment, Unbatchable};
use graft_plugins::Objective;
use graft_runtime::SessionOptions;
use graft_tasks::{Base, Fitted, Parts, Room, TaskError};

/// How an adapter is run.
pub enum Way {
    /// With others; its objective decodes the outputs.
    Shared(Box<Parts>, Objective),
    /// In a pass of its own, and why.
    Alone(Box<Fitted>, Unbatchable),
}

/// An adapter with an objective, ready to be run.
pub struct Form {
    /// How it is run.
    pub way: Way,
    /// Places that its virtual tokens take from texts.
    pub virtual_tokens: usize,
}

impl Form {
    /// The form of a fitted adapter; `None` where it has no objective.
    pub fn of(base: &Base, rooms: &Rooms, fitted: Fitted) -> Option<Form> {
        let virtual_tokens = fitted.virtual_tokens;
        let checked = |p: Parts| if rooms.knows(&p) { Ok(p) } else { p.check(base).map(|()| p) };
        let covered = |mut p: Parts| match rooms.cover(base, &mut p) {
            Ok(()) => Ok(p),
            Err(e) => Err(Unbatchable { op: "session".into(), place: String::new(), why: e.to_string() }),
        };
        match fitted.parts(base).and_then(checked).and_then(covered) {
            Ok(parts) => {
                let objective = fitted.into_objective()?;
                Some(Form { way: Way::Shared(Box::new(parts), objective), virtual_tokens })
            }
            Err(why) => {
                fitted.objective.as_ref()?;
                Some(Form { way: Way::Alone(Box::new(fitted), why), virtual_tokens })
            }
        }
    }

    /// What decodes its outputs.
    ///
    /// # Errors
    /// Never for a form that [`Form::of`] made.
    pub fn objective(&self) -> Result<&Objective, TaskError> {
        match &self.way {
            Way::Shared(_, objective) => Ok(objective),
            Way::Alone(fitted, _) => fitted.objective(),
        }
    }

    /// Whether its objective is that one.
    pub fn is(&self, objective: &str) -> bool {
        self.objective().is_ok_and(|o| o.id() == objective)
    }
}

#[derive(Default)]
struct Known {
    fragments: HashMap<Arc<str>, Arc<Fragment>>,
    /// What the newest session has.
    covered: HashSet<Arc<str>>,
}

/// The sessions that adapters share: the newest one has every fragment that was ever asked for.
#[derive(Default)]
pub struct Rooms {
    known: Mutex<Known>,
    next: Mutex<Option<Room>>,
    options: OnceLock<SessionOptions>,
}

impl Rooms {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether all fragments of an adapter were asked for before.
    fn knows(&self, parts: &Parts) -> bool {
        let known = self.known();
        parts.signatures().all(|s| known.fragments.contains_key(s))
    }

    /// From now on sessions are made, the first one at once.
    ///
    /// # Errors
    /// What ONNX Runtime says.
    pub fn open(&self, base: &Base, options: SessionOptions) -> Result<(), TaskError> {
        self.options.get_or_init(|| options);
        self.grow(base, &mut self.known())
    }

    /// Sees to it that the newest session has all fragments of an adapter. It is made here, while the one in use goes on.
    ///
    /// # Errors
    /// What ONNX Runtime says.
    pub fn cover(&self, base: &Base, parts: &mut Parts) -> Result<(), TaskError> {
        let mut known = self.known();
        if self.options.get().is_none() || parts.signatures().all(|s| known.covered.contains(s)) {
            parts.share(&mut known.fragments);
            return Ok(());
        }
        // What can't be had together with the others must not stay.
        let mut more = Known { fragments: known.fragments.clone(), covered: HashSet::new() };
        parts.share(&mut more.fragments);
        self.grow(base, &mut more)?;
        *known = more;
        Ok(())
    }

    fn grow(&self, base: &Base, known: &mut Known) -> Result<(), TaskError> {
        let Some(options) = self.options.get() else { return Ok(()) };
        // Without an adapter there is nothing to run, which ONNX Runtime has no session for.
        if known.fragments.is_empty() {
            return Ok(());
        }
        let mut all: Vec<Arc<Fragment>> = known.fragments.values().cloned().collect();
        all.sort_by(|a, b| a.signature.cmp(&b.signature));
        let room = Room::new(base, &all, options)?;
        known.covered = known.fragments.keys().cloned().collect();
        let before = self.next.lock().unwrap_or_else(PoisonError::into_inner).replace(room);
        drop(before);
        Ok(())
    }

    /// The newest session, if it was not taken yet.
    pub fn take(&self) -> Option<Room> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
