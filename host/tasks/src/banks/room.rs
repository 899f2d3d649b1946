//! A session over the fragments of many adapters.

use std::collections::HashMap;
use std::sync::Arc;

use graft_graph::batch::{Bank, Fragment, Joined, Placed, Signature, join};
use graft_graph::{Graph, Tensor};
use graft_runtime::{DeviceMemory, SessionOptions, View};

use super::Parts;
use super::parts::Rows;
use crate::base::Base;
use crate::error::{Result, TaskError};
use crate::program::Program;

/// A session over fragments.
pub struct Room {
    pub(super) fragments: Vec<Arc<Fragment>>,
    pub(super) joined: Joined,
    pub(super) program: Program,
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
        let program = Program::new(base, &joined.graph, &options)?;
        let recipes = kept.iter().map(|_| None).collect();
        let memory = base.device_memory(&options.provider)?;
        Ok(Room { fragments: kept, joined, program, places, recipes, options, memory })
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
