//! The graph that plugins write into, and what they have declared.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU32, Ordering};

use graft_graph::fold::Change;
use graft_graph::model::Model;
use graft_graph::sites::{AttentionSite, ResidualSite, Site, attentions, residuals, sites};
use graft_graph::{Builder, DType, Dim, Graph, ValueId, dim};
use graft_plugin_api::{self as api, Code, Error, Result, Role, wire};
use indexmap::IndexSet;

use super::virtual_tokens::Virtual;
use super::{Adapted, ConvexHead, Matched, Noise, Param, Setting, State};
use crate::handles::BuiltValues;

/// Most parameters, settings, inputs and the like, together.
const MAX_INPUTS: usize = 100_000;

/// Which of the lists of sites a number counts, and the place in it.
#[derive(Clone, Copy)]
pub(super) enum SiteIndex {
    /// A module with weights.
    Module(usize),
    /// The core of an attention.
    Attention(usize),
    /// A residual connection.
    Residual(usize),
}

/// Writes plugins' wishes into a graph.
pub(super) struct Writer {
    pub(super) graph: Graph,
    pub(super) base_nodes: usize,
    pub(super) sites: Vec<Site>,
    /// The attentions, with what meets in them now. Their numbers follow those of `sites`.
    pub(super) attentions: Vec<AttentionSite>,
    /// The residual connections. Their numbers follow those of `attentions`.
    pub(super) residuals: Vec<ResidualSite>,
    /// Replaced value → what stands in its place.
    pub(super) forward: HashMap<ValueId, ValueId>,
    /// Branches of residual connections that were replaced.
    pub(super) replaced_branches: HashSet<ValueId>,
    /// Site → its replaced input.
    pub(super) inputs_now: HashMap<usize, ValueId>,
    pub(super) model: Model,
    pub(super) training: bool,
    /// Whether the base's outputs stay beside the objective's.
    pub(super) beside: bool,
    pub(super) head: bool,
    pub(super) stamp: u64,
    /// Values that were given out; a handle is the place in this list.
    pub(super) handles: RefCell<IndexSet<ValueId>>,
    pub(super) constant_bytes: usize,
    /// Symbols as plugins see them → as the graph has them.
    pub(super) symbols: BTreeMap<String, Dim>,
    pub(super) params: Vec<Param>,
    pub(super) settings: Vec<Setting>,
    pub(super) noises: Vec<Noise>,
    pub(super) states: Vec<State>,
    pub(super) inputs: Vec<(String, ValueId)>,
    pub(super) stopped: Vec<ValueId>,
    pub(super) matched: Vec<Matched>,
    pub(super) loss: Option<ValueId>,
    pub(super) outputs: Vec<(String, ValueId)>,
    /// What the method put in front of every row.
    pub(super) virtual_tokens: Option<Virtual>,
    /// What is stored instead of the parameters that it is made from, by key.
    pub(super) stored: Vec<(String, ValueId)>,
    /// Values from which virtual tokens were taken away.
    pub(super) cut: HashSet<ValueId>,
    /// Hidden states and inputs → the same as an objective sees them, without virtual tokens.
    pub(super) text: HashMap<ValueId, ValueId>,
    /// Whether rows come with their virtual tokens in front.
    pub(super) laid_out: bool,
    /// The lines of plugins' sources that made values.
    pub(super) places: HashMap<ValueId, String>,
    pub(super) solver: Option<api::HeadSolver>,
    pub(super) convex: Option<ConvexHead>,
    /// What vectors without a rate of their own learn with.
    pub(super) vectors: Option<api::LearningRate>,
}

impl Writer {
    pub(super) fn new(graph: Graph, model: Model, training: bool) -> Writer {
        static STAMP: AtomicU32 = AtomicU32::new(1);
        let (sites, attentions) = (sites(&graph), attentions(&graph));
        Writer {
            base_nodes: graph.nodes.len(),
            residuals: residuals(&graph, &sites, &attentions),
            sites,
            attentions,
            graph,
            forward: HashMap::new(),
            replaced_branches: HashSet::new(),
            inputs_now: HashMap::new(),
            model,
            training,
            beside: false,
            head: false,
            stamp: u64::from(STAMP.fetch_add(1, Ordering::Relaxed)) << 32,
            handles: RefCell::default(),
            constant_bytes: 0,
            symbols: BTreeMap::new(),
            params: Vec::new(),
            settings: Vec::new(),
            noises: Vec::new(),
            states: Vec::new(),
            inputs: Vec::new(),
            stopped: Vec::new(),
            matched: Vec::new(),
            loss: None,
            outputs: Vec::new(),
            virtual_tokens: None,
            stored: Vec::new(),
            cut: HashSet::new(),
            text: HashMap::new(),
            laid_out: false,
            places: HashMap::new(),
            solver: None,
            convex: None,
            vectors: None,
        }
    }

    /// From now on it is the objective that writes.
    pub(super) fn enter_head(&mut self) {
        self.head = true;
    }

    /// Gives the objective's outputs their names and makes them the graph's.
    pub(super) fn take_outputs(&mut self, built: &BuiltValues) -> Result<()> {
        let refuse = |what: String| Err(Error::new(Code::REFUSED, what));
        if self.training && built.loss.is_none() {
            return refuse("the objective built no loss for training".to_owned());
        }
        let hidden_by = |name: &str| built.outputs.iter().any(|(n, _)| n == name);
        let stays = |v: &ValueId| self.beside && !hidden_by(self.graph.name_of(*v));
        let outputs: Vec<ValueId> = self.graph.outputs.iter().copied().filter(stays).collect();
        self.graph.outputs = outputs;
        for (name, value) in &built.outputs {
            let value = self.value(*value)?;
            if self.outputs.iter().any(|(n, _)| n == name) {
                return refuse(format!("the objective has two outputs `{name}`"));
            }
            let value = self.named_output(name, value);
            self.outputs.push((name.clone(), value));
        }
        if let Some(loss) = built.loss {
            let loss = self.value(loss)?;
            let fact = self.graph.fact(loss);
            if fact.dtype != Some(DType::F32) || fact.shape.as_ref().is_none_or(|s| !s.is_empty()) {
                let shape = fact.shape.as_deref().map_or("unknown".to_owned(), dim::show);
                return refuse(format!("the loss must be an f32 scalar, its shape is {shape}"));
            }
            self.loss = Some(self.named_output("loss", loss));
        }
        let next: Vec<ValueId> = self.states.iter().filter_map(|s| s.next).collect();
        self.graph.outputs.extend(next);
        Ok(())
    }

    /// An output of its own: what is an input, a constant or an output already is copied.
    fn named_output(&mut self, name: &str, value: ValueId) -> ValueId {
        let made = self.graph.producers()[value.index()].is_some();
        let taken = !made || self.graph.outputs.contains(&value);
        let value =
            if taken { Builder::new(&mut self.graph, "output.").op("Identity", &[value]) } else { value };
        self.graph.rename(value, name);
        self.graph.outputs.push(value);
        value
    }

    pub(super) fn into_adapted(mut self) -> Adapted {
        self.rate_vectors();
        let now = |v: Option<ValueId>| v.map(|v| self.current(v));
        let changes = self.changes();
        let starts = self.starts();
        let replaced = |a: &&AttentionSite| self.current(a.output) != a.output;
        let attentions = self.attentions.iter().filter(replaced).map(|a| a.path.clone()).collect();
        // A branch is also the output of its last linear layer: one that was changed there is no change of its own.
        let moved = |r: &&ResidualSite| self.replaced_branches.contains(&r.branch);
        let residuals = self.residuals.iter().filter(moved).map(|r| r.path.clone()).collect();
        let (hidden, pooled) = (now(self.model.hidden), now(self.model.pooled));
        Adapted {
            graph: self.graph,
            params: self.params,
            settings: self.settings,
            noises: self.noises,
            states: self.states,
            inputs: self.inputs,
            loss: self.loss,
            outputs: self.outputs,
            starts,
            changes,
            attentions,
            residuals,
            stopped: self.stopped,
            matched: self.matched,
            stored: self.stored,
            virtual_tokens: self.virtual_tokens.as_ref().map_or(0, |v| v.count),
            hidden,
            pooled,
            forward: self.forward,
            places: self.places,
            solver: self.solver,
            convex: self.convex,
        }
    }

    fn changes(&self) -> Vec<Change> {
        let now = |v: ValueId| self.current(v);
        let of = |(i, s): (usize, &Site)| {
            let change = Change { site: s.clone(), input: now(s.input), output: now(s.output) };
            (change.output != s.output || self.inputs_now.contains_key(&i)).then_some(change)
        };
        self.sites.iter().enumerate().filter_map(of).collect()
    }

    /// Keeps which line of the plugin's sources made the value.
    pub(super) fn remember(&mut self, v: ValueId, place: &str) {
        if !place.is_empty() {
            self.places.insert(v, place.to_owned());
        }
    }

    pub(super) fn handle(&self, v: ValueId) -> u64 {
        let mut handles = self.handles.borrow_mut();
        let index = handles.insert_full(v).0;
        self.stamp | (index as u64 + 1)
    }

    pub(super) fn value(&self, handle: u64) -> Result<ValueId> {
        let index = (handle & 0xffff_ffff).checked_sub(1).filter(|_| handle & !0xffff_ffff == self.stamp);
        let known = index.and_then(|i| self.handles.borrow().get_index(i as usize).copied());
        let refuse = || Error::new(Code::REFUSED, "a value that is not of this call was used".to_owned());
        known.map(|v| self.current(v)).ok_or_else(refuse)
    }

    pub(super) fn site(&self, number: u32) -> Result<SiteIndex> {
        let lists = [self.sites.len(), self.attentions.len(), self.residuals.len()];
        let kinds = [SiteIndex::Module as fn(usize) -> SiteIndex, SiteIndex::Attention, SiteIndex::Residual];
        let mut index = (number as usize).checked_sub(1);
        for (count, kind) in lists.into_iter().zip(kinds) {
            match index {
                Some(i) if i < count => return Ok(kind(i)),
                Some(i) => index = Some(i - count),
                None => break,
            }
        }
        Err(Error::new(Code::REFUSED, format!("there is no site number {number}")))
    }

    pub(super) fn scope(&self, site: &str) -> String {
        match (site.is_empty(), self.head) {
            (true, true) => "head.".to_owned(),
            (true, false) => "adapter.".to_owned(),
            (false, _) => format!("{site}."),
        }
    }

    pub(super) fn room_for_input(&self) -> Result<()> {
        let added = self.params.len() + self.settings.len() + self.noises.len() + self.states.len();
        if added + self.inputs.len() + self.matched.len() < MAX_INPUTS {
            return Ok(());
        }
        Err(Error::new(Code::LIMIT, format!("more than {MAX_INPUTS} parameters and inputs")))
    }

    /// The dimensions of a new input, in the graph's own symbols.
    pub(super) fn dims(&self, shape: Vec<wire::Dim>) -> Result<Vec<Dim>> {
        let one = |d: wire::Dim| match api::Dim::from(d) {
            api::Dim::Known(n) => i64::try_from(n).map(Dim::from).ok(),
            api::Dim::Symbol(s) => Some(self.symbols.get(&s).cloned().unwrap_or_else(|| Dim::symbol(s))),
            api::Dim::Unknown => None,
        };
        let dims: Option<Vec<Dim>> = shape.into_iter().map(one).collect();
        dims.ok_or_else(|| Error::new(Code::REFUSED, "a dimension of the new input is unknown".to_owned()))
    }

    pub(super) fn initializer_named(&self, name: &str) -> Result<ValueId> {
        // A weight that is kept quantised is read as what it is dequantised to.
        let real = |v: ValueId| {
            let made = self.graph.nodes.iter().find(|n| n.outputs.contains(&Some(v)));
            made.filter(|n| n.is("DequantizeLinear"))
                .and_then(|n| n.input(0))
                .is_some_and(|q| self.graph.constant(q).is_some())
        };
        let found = self.graph.find(name).filter(|v| self.graph.constant(*v).is_some() || real(*v));
        found.ok_or_else(|| Error::new(Code::REFUSED, format!("the base has no initializer `{name}`")))
    }

    /// An input of the graph that `value` is, or is made from, and for which `known` does not hold.
    pub(super) fn foreign_input(&self, value: ValueId, known: impl Fn(ValueId) -> bool) -> Option<ValueId> {
        let made = self.ancestors(value);
        let nodes = self.graph.nodes.iter().zip(made).filter(|(_, made)| *made);
        let read = nodes.flat_map(|(n, _)| n.inputs.iter().flatten());
        read.chain([&value]).copied().find(|v| self.graph.inputs.contains(v) && !known(*v))
    }

    pub(super) fn role(&self) -> Role {
        if self.head { Role::Head } else { Role::Adapter }
    }
}
