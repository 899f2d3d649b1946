//! A session over the fragments of many adapters.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use graft_graph::batch::{Bank, Fragment, Joined, Placed, Signature, join};
use graft_graph::{Graph, Tensor};
use graft_runtime::{DeviceMemory, Outputs, SessionOptions, View};

use super::Parts;
use super::parts::Rows;
use crate::base::Base;
use crate::error::{Result, TaskError};
use crate::program::Program;

/// Which of its threads a pass has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// All of them.
    All,
    /// Half of them: those of a pass in another room of [`Room::lanes`] may be the others.
    Half,
}

/// The sessions of a room, of one graph.
pub(super) struct Programs {
    /// With all threads; lanes have it in common.
    all: Arc<Mutex<Program>>,
    /// With half of them, for a lane.
    half: Option<Program>,
}

impl Programs {
    fn all(&self) -> MutexGuard<'_, Program> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The inputs of each of them, in order.
    pub(super) fn inputs(&self) -> Vec<String> {
        self.all().inputs().to_vec()
    }

    pub(super) fn run(&mut self, threads: Threads, inputs: &[View<'_>]) -> Result<Outputs> {
        match (threads, &mut self.half) {
            (Threads::Half, Some(half)) => half.run_views(inputs),
            _ => self.all().run_views(inputs),
        }
    }

    /// Ends the profile of the session with all threads, and says where it is.
    ///
    /// # Errors
    /// As [`graft_runtime::Session::finish_profile`].
    pub(super) fn finish_profile(&self) -> Result<PathBuf> {
        Ok(self.all().session().finish_profile()?)
    }
}

/// A session over fragments.
pub struct Room {
    pub(super) fragments: Vec<Arc<Fragment>>,
    pub(super) joined: Joined,
    pub(super) programs: Programs,
    places: HashMap<Signature, usize>,
    /// For each fragment what computes what its banks keep, where that takes more than moving parameters.
    recipes: Vec<Option<Program>>,
    options: SessionOptions,
    /// Where banks are kept as well, if sessions run on a device.
    pub(super) memory: Option<Arc<DeviceMemory>>,
}

impl Room {
    /// A room for these fragments; of equal ones there is one.
    ///
    /// # Errors
    /// What ONNX Runtime says of the graph.
    pub fn new(base: &Base, fragments: &[Arc<Fragment>], options: &SessionOptions) -> Result<Room> {
        let mut places = HashMap::new();
        let mut kept: Vec<Arc<Fragment>> = Vec::new();
        for f in fragments {
            places.entry(f.signature).or_insert_with(|| {
                kept.push(Arc::clone(f));
                kept.len() - 1
            });
        }
        let all: Vec<&Fragment> = kept.iter().map(|f| &**f).collect();
        let joined = join(&base.graph, &all).map_err(|e| TaskError::Input {
            what: "adapters in one session".into(),
            detail: e.to_string(),
        })?;
        let options = SessionOptions { name: "banks".into(), ..options.clone() };
        let all = Arc::new(Mutex::new(Program::new(base, &joined.graph, &options)?));
        let programs = Programs { all, half: None };
        let recipes = kept.iter().map(|_| None).collect();
        let memory = base.device_memory(&options.provider)?;
        Ok(Room { fragments: kept, joined, programs, places, recipes, options, memory })
    }

    /// As many rooms of the same fragments as may run passes at once, each with banks of its own: two, with half of the
    /// threads each, or one. Weights are there once for all.
    ///
    /// # Errors
    /// What ONNX Runtime says of the graph.
    pub fn lanes(base: &Base, fragments: &[Arc<Fragment>], options: &SessionOptions) -> Result<Vec<Room>> {
        let first = Room::new(base, fragments, options)?;
        let threads = first.options.threads.unwrap_or_else(|| base.runtime().threads());
        if Room::count(options, threads) == 1 {
            return Ok(vec![first]);
        }
        let options = SessionOptions { threads: Some(threads / 2), ..first.options.clone() };
        let programs = || -> Result<Programs> {
            let half = Some(Program::new(base, &first.joined.graph, &options)?);
            Ok(Programs { all: Arc::clone(&first.programs.all), half })
        };
        let second = Room {
            fragments: first.fragments.clone(),
            joined: first.joined.clone(),
            programs: programs()?,
            places: first.places.clone(),
            recipes: first.recipes.iter().map(|_| None).collect(),
            options: first.options.clone(),
            memory: first.memory.clone(),
        };
        let programs = programs()?;
        Ok(vec![Room { programs, ..first }, second])
    }

    /// How many rooms [`Room::lanes`] makes with these options, of so many threads. A device runs one pass after the other.
    pub fn count(options: &SessionOptions, threads: usize) -> usize {
        if threads >= 2 && !options.provider.is_device() { 2 } else { 1 }
    }

    /// The same room, whose banks are kept in this memory as well.
    pub fn with_memory(self, memory: Arc<DeviceMemory>) -> Room {
        Room { memory: Some(memory), ..self }
    }

    /// The graph of the session.
    pub fn graph(&self) -> &Graph {
        &self.joined.graph
    }

    /// Whether it has all fragments of an adapter.
    pub fn covers(&self, parts: &Parts) -> bool {
        parts.signatures().all(|s| self.places.contains_key(s))
    }

    /// The banks of each fragment.
    pub fn layouts(&self) -> HashMap<Signature, Arc<[Bank]>> {
        let of = |(f, placed): (&Arc<Fragment>, &Placed)| (f.signature, Arc::from(&placed.banks[..]));
        self.fragments.iter().zip(&self.joined.fragments).map(of).collect()
    }

    pub(super) fn place_of(&self, signature: &Signature) -> Option<usize> {
        self.places.get(signature).copied()
    }

    /// What each bank of fragment `at` keeps of an adapter with these leaves.
    pub(super) fn rows(&mut self, base: &Base, at: usize, leaves: &[&Tensor]) -> Result<Rows> {
        let (fragment, banks) = (&self.fragments[at], &self.joined.fragments[at].banks);
        let moved = |b: &Bank| {
            let mut rows = Vec::new();
            fragment.rows_of(b, leaves, &mut rows).map(|()| rows)
        };
        let moved: Vec<Option<Vec<f32>>> = banks.iter().map(moved).collect();
        let rest: Vec<&Bank> =
            banks.iter().zip(&moved).filter(|(_, m)| m.is_none()).map(|(b, _)| b).collect();
        let mut rows = Rows::default();
        if rest.is_empty() {
            moved.iter().flatten().for_each(|own| rows.push(own));
            return Ok(rows);
        }
        let lost = || TaskError::Input {
            what: "parameters".into(),
            detail: "what a bank keeps of them can't be computed".into(),
        };
        let program = match &mut self.recipes[at] {
            Some(program) => program,
            none => {
                let graph = fragment.recipe(&base.graph, &rest).ok_or_else(lost)?;
                let options = SessionOptions { name: "slots".into(), ..self.options.clone() };
                none.insert(Program::new(base, &graph, &options)?)
            }
        };
        let feed = |name: &str| {
            let own = |i: usize| fragment.recipe_names(i, &banks[0]).0 == Some(name);
            (0..leaves.len()).find(|i| own(*i)).map(|i| View::from(leaves[i]))
        };
        let outputs = program.run(&feed)?;
        for (bank, moved) in banks.iter().zip(moved) {
            if let Some(own) = moved {
                rows.push(&own);
                continue;
            }
            let name = fragment.recipe_names(0, bank).1;
            let (shape, values) = (outputs.shape(name)?, outputs.f32s(name)?);
            rows.fill(|into| bank.rows_of(shape, values, into)).ok_or_else(lost)?;
        }
        Ok(rows)
    }
}
