//! The analysis of axes: which axis of each value is the batch, which are sequences, whether rows are independent and
//! whether padding reaches a value. One table a family of operators, one row an operator.
//!
//! What it claims is proven through the operators; what is not proven is unknown, and the first operator that made it so
//! is told. Names of dimensions are believed at the graph's inputs alone, and there only for axis 0 (the batch) and
//! axis 1 of ids, masks, types and positions (a sequence); shapes behind them are inferred anew. Padding is what a mask
//! has zeros for, at the end of a row; every row has at least one position that is not padded. Weights and activations
//! are taken to be finite.

mod elementwise;
mod gather;
mod level;
mod linear;
mod movement;
mod reduce;
mod regroup;
mod sizes;
mod state;
#[cfg(test)]
mod tests;
mod window;

use std::collections::HashMap;
use std::sync::OnceLock;

use self::level::Level;
use self::state::{Affine, Axis, Cause, State, Tag};
use crate::dim::{Dim, Shape};
use crate::ir::{Attr, Fact, Graph, Node, ValueId};
use crate::model::Role;
use crate::sites::module_path;

/// Inputs that are 1 for tokens and 0 for padding. Other masks may mark anything.
const PADDING_MASKS: [&str; 6] = [
    "attention_mask",
    "mask",
    "input_mask",
    "padding_mask",
    "encoder_attention_mask",
    "decoder_attention_mask",
];

/// Where the batch is in a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Batch {
    /// Along this axis.
    Axis(usize),
    /// Nowhere: the value does not depend on the batch.
    None,
    /// Folded into an axis with others, `position` of them outside of it.
    Merged {
        /// The axis that it is folded into.
        axis: usize,
        /// How many were folded in before it.
        position: usize,
    },
    /// It is not proven where.
    Unknown,
}

/// Where and why something could not be proven.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reason {
    /// The operator, or nothing for an input of the graph.
    pub op: String,
    /// The node's name.
    pub node: String,
    /// Module path of the node, where it has one.
    pub module: Option<String>,
    /// What it does.
    pub why: &'static str,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let place = self.module.as_deref().unwrap_or(&self.node);
        match self.op.as_str() {
            "" => write!(f, "input '{}': {}", self.node, self.why),
            op => write!(f, "{op} ({place}) {}", self.why),
        }
    }
}

/// What is proven of one value, for a table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Summary {
    /// Where the batch is.
    pub batch: Batch,
    /// Rows are proven to be independent.
    pub rows_independent: bool,
    /// Padding is proven not to reach it.
    pub padding_invisible: bool,
    /// The first operator that mixes rows, as far as can be told.
    pub mixed_by: Option<Reason>,
    /// The first operator that lets padding in, as far as can be told.
    pub padding_by: Option<Reason>,
}

/// A sequence that inputs have.
pub(crate) struct Sequence {
    dim: Dim,
    input: ValueId,
}

/// What is proven of the values of a graph.
pub struct Axes {
    states: Vec<Option<State>>,
    sequences: Vec<Sequence>,
    places: Vec<Reason>,
    inputs: HashMap<ValueId, Reason>,
}

/// What a rule sees of the node that it follows.
pub(crate) struct Step<'a> {
    pub(crate) graph: &'a Graph,
    pub(crate) node: &'a Node,
    at: usize,
    states: &'a [Option<State>],
    known: &'a Known,
}

/// What the inputs told.
struct Known {
    batch: Option<Dim>,
    sequences: Vec<Sequence>,
    /// Symbols of inputs that are neither the batch nor a sequence.
    others: Vec<String>,
}

impl Known {
    fn sequence(&self, dim: &Dim) -> Option<usize> {
        self.sequences.iter().position(|s| s.dim == *dim && dim.known().is_none())
    }

    /// True where `dim` may depend on the number of rows.
    fn counts_rows(&self, dim: &Dim) -> bool {
        let clean = |s: &str| {
            self.others.iter().any(|o| o == s) || self.sequences.iter().any(|q| q.dim == Dim::symbol(s))
        };
        !dim.symbols().all(clean)
    }

    /// True where `dim` may depend on the length of a sequence.
    fn counts_positions(&self, dim: &Dim) -> bool {
        let clean = |s: &str| {
            self.others.iter().any(|o| o == s) || self.batch.as_ref().is_some_and(|b| *b == Dim::symbol(s))
        };
        !dim.symbols().all(clean)
    }
}

/// From a node to what is known of its outputs; `None` where nothing is.
pub(crate) type Rule = fn(&Step<'_>) -> Option<Vec<State>>;

fn table() -> &'static HashMap<&'static str, Rule> {
    static TABLE: OnceLock<HashMap<&'static str, Rule>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let families = [
            elementwise::RULES,
            gather::RULES,
            linear::RULES,
            movement::RULES,
            reduce::RULES,
            sizes::RULES,
            window::RULES,
        ];
        families.into_iter().flatten().copied().collect()
    })
}

/// Operators that the analysis goes through.
pub fn supported() -> impl Iterator<Item = &'static str> {
    table().keys().copied()
}

impl<'a> Step<'a> {
    pub(crate) fn cause(&self, why: &'static str) -> Cause {
        Cause { node: Some(self.at), why }
    }

    pub(crate) fn has(&self, i: usize) -> bool {
        self.node.input(i).is_some()
    }

    pub(crate) fn state(&self, i: usize) -> Option<&'a State> {
        self.states[self.node.input(i)?.index()].as_ref()
    }

    pub(crate) fn axes(&self, i: usize) -> Option<&'a [Axis]> {
        self.state(i)?.axes.as_deref()
    }

    pub(crate) fn out_shape(&self, k: usize) -> Option<&'a Shape> {
        self.graph.shape(self.node.output(k)?)
    }

    pub(crate) fn elements(&self, i: usize) -> Option<Vec<Dim>> {
        let v = self.node.input(i)?;
        match &self.graph.fact(v).elements {
            Some(e) => Some(e.clone()),
            None => Some(self.graph.constant(v)?.to_i64s()?.into_iter().map(Dim::from).collect()),
        }
    }

    pub(crate) fn numbers(&self, i: usize) -> Option<Vec<i64>> {
        self.elements(i)?.iter().map(Dim::known).collect()
    }

    /// `axis` counted from the front, if it lies in `0..rank`.
    pub(crate) fn axis(&self, axis: i64, rank: usize) -> Option<usize> {
        let rank_i = i64::try_from(rank).ok()?;
        usize::try_from(if axis < 0 { axis.checked_add(rank_i)? } else { axis }).ok().filter(|a| *a < rank)
    }

    pub(crate) fn sequence(&self, dim: &Dim) -> Option<usize> {
        self.known.sequence(dim)
    }

    /// A state that depends on what the given inputs depend on, without axes.
    pub(crate) fn join(&self, inputs: &[usize]) -> Option<State> {
        let mut out = State::free(None);
        for i in inputs.iter().filter(|i| self.has(**i)) {
            let s = self.state(*i)?;
            out.rows |= s.rows;
            out.batch_size |= s.batch_size;
            out.length |= s.length;
            out.mixed = out.mixed.or(s.mixed);
            out.visible = out.visible.or(s.visible);
        }
        Some(out)
    }

    /// The inputs that say a shape must be numbers or sizes that are known; else what they depend on comes in.
    pub(crate) fn shaped_by(&self, out: &mut State, inputs: &[usize]) -> Option<()> {
        for i in inputs.iter().filter(|i| self.has(**i)) {
            if self.elements(*i).is_none() && !self.state(*i)?.is_free() {
                out.mix(self.cause("takes a shape that depends on what is in the batch"));
                out.show(self.cause("takes a shape that depends on what is in the sequence"));
            }
        }
        Some(())
    }

    /// Everything along `axis` goes into every element of `out`.
    pub(crate) fn consume(&self, out: &mut State, axis: &Axis) {
        if axis.has_batch() {
            out.mix(self.cause("works across the rows of the batch"));
        }
        if axis.has_seq() {
            out.show(self.cause("works across the positions of a sequence, padded ones too"));
        }
        if !axis.has_batch() {
            out.batch_size |= self.known.counts_rows(&axis.dim);
        }
        if !axis.has_seq() {
            out.length |= self.known.counts_positions(&axis.dim);
        }
    }

    /// The place along `axis` decides what comes out, not by row and position: the axis is one of its own from here on.
    pub(crate) fn lose(&self, out: &mut State, axis: &Axis) -> Tag {
        if axis.has_batch() {
            out.mix(self.cause("treats rows of the batch differently"));
        }
        if axis.has_seq() {
            out.show(self.cause("moves positions of a sequence"));
        }
        Tag::Own
    }
}

/// What is known of outputs of a node that no rule is there for.
fn unknown(step: &Step<'_>) -> Vec<State> {
    let inputs: Vec<usize> = (0..step.node.inputs.len()).collect();
    let nested = step.node.attrs.values().any(|a| matches!(a, Attr::Graph(_)));
    let random = ["RandomNormal", "RandomUniform", "Multinomial", "Bernoulli", "Dropout"];
    let random = random.iter().any(|r| step.node.op.starts_with(r));
    let joined = step.join(&inputs).filter(|s| s.is_free() && !nested && !random);
    let state = joined.unwrap_or_else(|| {
        let mut s = step.join(&inputs).unwrap_or_else(|| State::free(None));
        s.mix(step.cause("has no rule, or a form that is not followed"));
        s.show(step.cause("has no rule, or a form that is not followed"));
        s
    });
    let outputs = 0..step.node.outputs.len();
    outputs
        .map(|k| State {
            axes: step.out_shape(k).map(|s| s.iter().map(Axis::own).collect()),
            ..state.clone()
        })
        .collect()
}

/// Sets right what a rule need not know: sizes, elements that are known, and that rows have one axis.
fn finish(step: &Step<'_>, k: usize, mut s: State) -> State {
    let Some(v) = step.node.output(k) else { return s };
    let fact = step.graph.fact(v);
    match (&fact.shape, &mut s.axes) {
        (Some(shape), Some(axes)) if shape.len() == axes.len() => {
            for (a, d) in axes.iter_mut().zip(shape) {
                a.dim = d.clone();
            }
        }
        (Some(shape), axes) if !s.rows => *axes = Some(shape.iter().map(Axis::own).collect()),
        _ => s.axes = None,
    }
    if let Some(elements) = &fact.elements {
        let axes = s.axes.take();
        s = State { affine: s.affine.take(), ..State::free(axes).level(s.all) };
        if let Some(axes) = &mut s.axes {
            axes.iter_mut().for_each(|a| *a = Axis::own(&a.dim));
        }
        s.batch_size = elements.iter().any(|e| step.known.counts_rows(e));
        s.length = elements.iter().any(|e| step.known.counts_positions(e));
        if let ([e], Some(axes)) = (elements.as_slice(), &s.axes) {
            s.affine = Some(Affine { of: vec![Dim::from(0); axes.len()], plus: e.clone() });
            if let Some(n) = e.known() {
                s = s.level(Level::Number(n as f64));
            }
        }
        return s;
    }
    let axes = s.axes.as_deref().unwrap_or(&[]);
    let tagged = axes.iter().flat_map(Axis::parts).filter(|p| matches!(p.tag, Tag::Batch)).count();
    let positions = axes.iter().any(Axis::has_seq);
    if s.rows && tagged != 1 {
        s.mix(step.cause("leaves no single axis for the rows of the batch"));
    }
    if s.rows && s.batch_size {
        s.mix(step.cause("works with the number of rows"));
    }
    if s.length && (s.rows || positions) {
        s.show(step.cause("works with the padded length of a sequence"));
    }
    s
}

/// Reads the axes of every value of `graph`. `roles` says what inputs are for; those that it leaves out are batched where
/// their first dimension has the batch's symbol.
pub fn analyse(graph: &Graph, roles: &[(ValueId, Role)]) -> Axes {
    let mut graph = graph.clone();
    let made: Vec<ValueId> = graph.nodes.iter().flat_map(|n| n.outputs.iter().flatten().copied()).collect();
    made.into_iter().for_each(|v| {
        let dtype = graph.dtype(v);
        *graph.fact_mut(v) = Fact { dtype, ..Fact::default() };
    });
    let mut states: Vec<Option<State>> = vec![None; graph.value_count()];
    let known = read_inputs(&mut graph, roles, &mut states);
    let constants: Vec<(ValueId, State)> = graph.constants().map(|(v, t)| (v, sizes::constant(t))).collect();
    constants.into_iter().for_each(|(v, s)| states[v.index()] = Some(s));
    for at in 0..graph.nodes.len() {
        crate::shape::infer_at(&mut graph, at);
        let node = &graph.nodes[at];
        let step = Step { graph: &graph, node, at, states: &states, known: &known };
        let rule = table().get(node.op.as_str()).filter(|_| node.domain.is_empty());
        let found = rule.and_then(|r| r(&step)).unwrap_or_else(|| unknown(&step));
        let mut found: Vec<State> = found.into_iter().enumerate().map(|(k, s)| finish(&step, k, s)).collect();
        if found.len() < node.outputs.len() {
            let rest = unknown(&step).into_iter().skip(found.len());
            found.extend(rest.collect::<Vec<_>>());
        }
        for (o, s) in node.outputs.clone().into_iter().zip(found) {
            if let Some(o) = o {
                states[o.index()] = Some(s);
            }
        }
    }
    let reason = |op: &str, node: &str, module| Reason { op: op.into(), node: node.into(), module, why: "" };
    let places = graph.nodes.iter().map(|n| reason(&n.full_op(), &n.name, module_path(n))).collect();
    let inputs = graph.inputs.iter().map(|v| (*v, reason("", graph.name_of(*v), None))).collect();
    Axes { states, sequences: known.sequences, places, inputs }
}

/// Gives each input its axes, and each axis that is neither the batch nor a known sequence a symbol of its own.
fn read_inputs(graph: &mut Graph, roles: &[(ValueId, Role)], states: &mut [Option<State>]) -> Known {
    let role_of = |v: ValueId| roles.iter().find(|(r, _)| *r == v).map_or(Role::Other, |(_, r)| *r);
    let of_role = |r: Role| graph.inputs.iter().copied().filter(move |v| role_of(*v) == r);
    let order = [Role::Ids, Role::Pixels, Role::Mask, Role::Types, Role::Positions];
    let first = order.into_iter().flat_map(of_role).next();
    let batch = first.and_then(|v| graph.shape(v)?.first().cloned()).filter(|d| !d.is(1));
    let mut known = Known { batch, sequences: Vec::new(), others: Vec::new() };
    let mut keys: Vec<(Dim, bool)> = Vec::new();
    for v in graph.inputs.clone() {
        let Some(mut shape) = graph.shape(v).cloned() else { continue };
        let role = role_of(v);
        let name = graph.name_of(v).to_string();
        let rank = shape.len();
        let masks = role == Role::Mask && PADDING_MASKS.contains(&name.as_str());
        let mut s = State::free(None).level(Level::Tame);
        let mut axes = Vec::new();
        for (k, d) in shape.iter_mut().enumerate() {
            let batched = known.batch.as_ref() == Some(&*d) && (role != Role::Other || d.known().is_none());
            let token = rank == 2 && matches!(role, Role::Ids | Role::Mask | Role::Types | Role::Positions);
            let tag = if k == 0 && batched {
                s.rows = true;
                Tag::Batch
            } else if k == 1 && token && !d.is(1) {
                let key = (d.clone(), name.contains("decoder"));
                let pad = if masks { Level::Number(0.0) } else { Level::Tame };
                let number = keys.iter().position(|q| *q == key).unwrap_or_else(|| {
                    let taken = known.batch.as_ref() == Some(&key.0) || keys.iter().any(|q| q.0 == key.0);
                    let dim = if taken && d.known().is_none() {
                        Dim::symbol(format!("{d}'{name}"))
                    } else {
                        d.clone()
                    };
                    keys.push(key);
                    known.sequences.push(Sequence { dim, input: v });
                    keys.len() - 1
                });
                *d = known.sequences[number].dim.clone();
                Tag::Seq(number, pad)
            } else {
                if d.known().is_none() {
                    let own = format!("{d}'{name}:{k}");
                    known.others.push(own.clone());
                    *d = Dim::symbol(own);
                    if k == 0 {
                        let why = "its first dimension is not the batch";
                        s.mix(Cause { node: None, why });
                        s.show(Cause { node: None, why });
                    }
                }
                if d.is(1) { Tag::Same } else { Tag::Own }
            };
            axes.push(Axis::new(tag, d.clone()));
        }
        // A mask is 1 wherever it is not 0.
        if masks && axes.iter().any(Axis::has_seq) {
            (s.kept, s.diagonal) = (Level::Number(1.0), Level::Number(1.0));
        }
        if role != Role::Other && !s.rows {
            let fixed = known.batch.is_none() || shape.first().is_some_and(|d| !d.is(1));
            if fixed {
                s.mix(Cause { node: None, why: "no dimension of it is a batch" });
            }
        }
        s.axes = Some(axes);
        states[v.index()] = Some(s);
        graph.fact_mut(v).shape = Some(shape);
    }
    known
}

impl Axes {
    fn state(&self, v: ValueId) -> Option<&State> {
        self.states.get(v.index())?.as_ref()
    }

    /// Where the batch is in `v`.
    pub fn batch(&self, v: ValueId) -> Batch {
        let Some(s) = self.state(v).filter(|s| s.mixed.is_none() && !s.batch_size) else {
            return Batch::Unknown;
        };
        if !s.rows {
            return Batch::None;
        }
        for (axis, a) in s.axes.iter().flatten().enumerate() {
            let place = a.parts().iter().position(|p| matches!(p.tag, Tag::Batch));
            match (&a.tag, place) {
                (Tag::Batch, _) => return Batch::Axis(axis),
                (_, Some(position)) => return Batch::Merged { axis, position },
                _ => {}
            }
        }
        Batch::Unknown
    }

    /// The axes of `v` that are a sequence each, with the first input that has this sequence.
    pub fn sequences(&self, v: ValueId) -> Vec<(usize, ValueId)> {
        let axes = self.state(v).and_then(|s| s.axes.as_deref()).unwrap_or(&[]);
        let of = |(k, a): (usize, &Axis)| match a.tag {
            Tag::Seq(n, _) => self.sequences.get(n).map(|s| (k, s.input)),
            _ => None,
        };
        axes.iter().enumerate().filter_map(of).collect()
    }

    /// True where row `i` of `v` is proven to depend on row `i` of each batched input alone, wherever in the batch it is
    /// and however many rows there are.
    pub fn rows_independent(&self, v: ValueId) -> bool {
        self.batch(v) != Batch::Unknown
    }

    /// True where `v`, at positions that are not padded, is proven to depend neither on what inputs hold at padded ones
    /// nor on how many there are.
    pub fn padding_invisible(&self, v: ValueId) -> bool {
        self.state(v).is_some_and(|s| s.mixed.is_none() && s.visible.is_none() && !s.length && !s.batch_size)
    }

    /// All that is proven of `v`.
    pub fn summary(&self, v: ValueId) -> Summary {
        let reason = |c: Option<Cause>| match c {
            Some(Cause { node: Some(n), why }) => self.places.get(n).map(|r| Reason { why, ..r.clone() }),
            Some(Cause { node: None, why }) => {
                let fits = |i: &&ValueId| {
                    self.state(**i).is_some_and(|s| s.mixed.or(s.visible).is_some_and(|c| c.why == why))
                };
                let input = self.inputs.keys().filter(fits).min()?;
                Some(Reason { why, ..self.inputs[input].clone() })
            }
            None => None,
        };
        let s = self.state(v);
        Summary {
            batch: self.batch(v),
            rows_independent: self.rows_independent(v),
            padding_invisible: self.padding_invisible(v),
            mixed_by: reason(s.and_then(|s| s.mixed)),
            padding_by: reason(s.and_then(|s| s.visible.or(s.mixed))),
        }
    }
}
