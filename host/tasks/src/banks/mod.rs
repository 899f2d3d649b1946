//! Many adapters in one session: each row of a batch has its own.
//!
//! [`Structures`] know adapters of the same configuration; [`Parts`] are the fragments of an adapter with its tensors; a [`Room`] is a session over the fragments of many;
//! [`Banks`] hold the parameters of those that are placed in it. Adapters whose fragments a room has come and go without a
//! new session. For others a larger room is made aside and [`Banks::adopt`]ed.

mod feed;
mod mirror;
mod parts;
mod room;
mod shelf;
mod structure;

use std::collections::HashMap;
use std::sync::Arc;

use graft_graph::Tensor;
use graft_graph::batch::{Fragment, Signature};
use graft_runtime::Outputs;

use feed::{Feed, Said};
pub use parts::Parts;
use parts::{Held, Outline};
pub use room::{Room, Threads};
use shelf::Shelf;
pub use structure::{Known, StructureKey, Structures};

use crate::base::Base;
use crate::error::{Result, TaskError};

/// Tokens for each thread of a processor from which on more rows in one run make each of them slower: what one layer leaves
/// for the next is no longer in the caches then (`docs/benchmarks.md`).
pub const PASS_TOKENS: usize = 1024;

/// Which adapter a row of a batch has.
#[derive(Clone, Copy)]
pub struct Tenant<'a> {
    /// The number that it was placed under.
    pub id: u64,
    /// Its fragments.
    pub parts: &'a Parts,
}

/// A room and the adapters in it.
pub struct Banks {
    room: Room,
    /// For each fragment of the room its banks.
    shelves: Vec<Shelf>,
    /// What is completely here: numbers that adapters were placed under, with the objectives that they have there.
    whole: HashMap<u64, Vec<u64>>,
    feed: Feed,
    said: Said,
}

impl Banks {
    /// An empty room.
    pub fn new(room: Room) -> Banks {
        let placed = &room.joined.fragments;
        let shelves: Vec<Shelf> = placed.iter().map(|p| Shelf::new(p, room.memory.as_ref())).collect();
        let feed = Feed::new(room.programs.inputs(), &shelves, placed);
        Banks { room, shelves, whole: HashMap::new(), feed, said: Said::default() }
    }

    /// Moves into another room; what is in banks that it has too stays where it is.
    pub fn adopt(&mut self, room: Room) {
        let mut old: HashMap<Signature, Shelf> = HashMap::new();
        for (f, shelf) in self.room.fragments.drain(..).zip(self.shelves.drain(..)) {
            old.insert(f.signature, shelf);
        }
        let fragments = room.fragments.iter().zip(&room.joined.fragments);
        let new = |p| Shelf::new(p, room.memory.as_ref());
        self.shelves = fragments
            .map(|(f, p)| old.remove(&f.signature).map_or_else(|| new(p), |s| s.renamed(p)))
            .collect();
        self.feed = Feed::new(room.programs.inputs(), &self.shelves, &room.joined.fragments);
        self.room = room;
        if !old.is_empty() {
            self.whole.clear();
        }
    }

    /// Whether the room has all fragments of an adapter.
    pub fn covers(&self, parts: &Parts) -> bool {
        self.room.covers(parts)
    }

    /// Ends the profile that the options of the room asked for, and says where it is.
    ///
    /// # Errors
    /// As [`graft_runtime::Session::finish_profile`].
    pub fn finish_profile(&self) -> Result<std::path::PathBuf> {
        self.room.programs.finish_profile()
    }

    /// Bytes of the rows that adapters have now.
    pub fn bytes_leased(&self) -> usize {
        self.shelves.iter().map(Shelf::bytes_leased).sum()
    }

    /// Bytes of the banks: at most about twice [`Banks::bytes_leased`].
    pub fn bytes(&self) -> usize {
        self.shelves.iter().map(Shelf::bytes).sum()
    }

    /// Whether all of it is in its banks.
    pub fn holds(&self, tenant: &Tenant<'_>) -> bool {
        if self.whole.get(&tenant.id).is_some_and(|all| all.contains(&tenant.parts.number)) {
            return true;
        }
        let place = |s: &Signature| self.room.place_of(s).is_some_and(|k| self.shelves[k].holds(tenant.id));
        tenant.parts.signatures().all(place)
    }

    /// Writes an adapter into the banks; what is there already stays.
    ///
    /// # Errors
    /// A fragment that the room lacks; what ONNX Runtime says of what is computed from parameters. The banks are as
    /// before then.
    pub fn place(&mut self, base: &Base, tenant: &Tenant<'_>) -> Result<()> {
        for own in &tenant.parts.own {
            let at = self.room.place_of(&own.fragment.signature).ok_or_else(|| TaskError::Input {
                what: tenant.parts.name.clone(),
                detail: "the session has no place for it".into(),
            })?;
            if self.shelves[at].holds(tenant.id) {
                continue;
            }
            let put = match &*own.held() {
                Held::Leaves(leaves) => {
                    let rows = self.room.rows(base, at, &leaves.iter().collect::<Vec<_>>());
                    rows.and_then(|r| self.shelves[at].put(tenant.id, &r))
                }
                Held::Rows(rows) => self.shelves[at].put(tenant.id, rows),
                Held::Away => Err(TaskError::Input {
                    what: tenant.parts.name.clone(),
                    detail: "its numbers are in other banks".into(),
                }),
            };
            if let Err(e) = put {
                self.remove(tenant.id);
                return Err(e);
            }
        }
        let whole = self.whole.entry(tenant.id).or_default();
        if !whole.contains(&tenant.parts.number) {
            whole.push(tenant.parts.number);
        }
        Ok(())
    }

    /// Lets go of the numbers of an adapter that is in the banks, so that they are there alone. From then on it goes by
    /// [`Banks::take_out`].
    pub fn keep_alone(&self, tenant: &Tenant<'_>) {
        if self.holds(tenant) {
            tenant.parts.own.iter().for_each(|own| *own.held() = Held::Away);
        }
    }

    /// Takes what was placed under a number out of the banks, and gives the numbers back to its adapter, under every
    /// objective that it was placed with, where they were nowhere else.
    pub fn take_out<'p>(&mut self, id: u64, placed: impl Iterator<Item = &'p Parts>) {
        for own in placed.flat_map(|parts| &parts.own) {
            let shelf = self.room.place_of(&own.fragment.signature).map(|at| &self.shelves[at]);
            let mut held = own.held();
            if let (Held::Away, Some(rows)) = (&*held, shelf.and_then(|s| s.rows_of(id))) {
                *held = Held::Rows(rows);
            }
        }
        self.remove(id);
    }

    /// Takes what was placed under a number out of the banks.
    pub fn remove(&mut self, id: u64) {
        self.whole.remove(&id);
        self.shelves.iter_mut().for_each(|s| s.remove(id));
    }

    /// Runs a batch: `inputs` are the base's, `rows` say for each row which adapter is its own.
    ///
    /// # Errors
    /// An adapter that is not in its banks; what ONNX Runtime says.
    pub fn run(&mut self, inputs: &HashMap<String, Tensor>, rows: &[Tenant<'_>]) -> Result<Outputs> {
        self.run_on(Threads::All, inputs, rows)
    }

    /// As [`Banks::run`], with some of the threads.
    ///
    /// # Errors
    /// As [`Banks::run`].
    pub fn run_on(
        &mut self,
        threads: Threads,
        inputs: &HashMap<String, Tensor>,
        rows: &[Tenant<'_>],
    ) -> Result<Outputs> {
        self.shelves.iter_mut().try_for_each(Shelf::bring)?;
        let has = self.which_have_what(rows);
        self.said.clear();
        for ((shelf, placed), has) in self.shelves.iter().zip(&self.room.joined.fragments).zip(&has) {
            shelf.say(rows, has, &mut self.said)?;
            if placed.active.is_some() {
                self.said.flags(has);
            }
        }
        let views = self.feed.views(inputs, &self.said, &self.shelves)?;
        self.room.programs.run(threads, &views)
    }

    /// For each fragment of the room, which rows have it. Adapters of one structure have the same ones, which are looked up
    /// once: what a batch looks up is in no cache any more since the last one.
    fn which_have_what(&self, rows: &[Tenant<'_>]) -> Vec<Vec<bool>> {
        let mut outlines: Vec<&Arc<Outline>> = Vec::new();
        let mut of_rows = Vec::with_capacity(rows.len());
        for outline in rows.iter().map(|t| &t.parts.outline) {
            let known = outlines.iter().position(|o| Arc::ptr_eq(o, outline));
            of_rows.push(known.unwrap_or(outlines.len()));
            if known.is_none() {
                outlines.push(outline);
            }
        }
        let which = |f: &Arc<Fragment>| {
            let has: Vec<bool> = outlines.iter().map(|o| o.has(&f.signature)).collect();
            of_rows.iter().map(|k| has[*k]).collect()
        };
        self.room.fragments.iter().map(which).collect()
    }

    /// The outputs of the head of `parts`: its own name, the name in what [`Banks::run`] gives, and its sizes behind the
    /// batch where they are fixed.
    pub fn outputs<'a>(
        &'a self,
        parts: &'a Parts,
    ) -> impl Iterator<Item = (&'a str, &'a str, Vec<Option<usize>>)> {
        let heads = parts.own.iter().filter(|own| !own.fragment.outputs.is_empty());
        let placed = heads.filter_map(|own| Some((own, self.room.place_of(&own.fragment.signature)?)));
        placed.flat_map(|(own, at)| {
            let names = own.fragment.outputs.iter().zip(&self.room.joined.fragments[at].outputs);
            names.map(|(o, name)| (o.name.as_str(), name.as_str(), parts.sizes(&o.name)))
        })
    }
}
