//! The analysis of axes: which axis of each value is the batch, which are sequences, whether rows are independent and
//! whether padding reaches a value. One table a family of operators, one row an operator.
//!
//! What it claims is proven through the operators; what is not proven is unknown, and the first operator that made it so
//! is told. Names of dimensions are believed at the graph's inputs alone, and there only for axis 0 (the batch) and
//! axis 1 of ids, masks, types and positions (a sequence); shapes behind them are inferred anew. Inputs are fed the same
//! rows in the same order, and those of one side the same tokens. Padding is what a mask
//! has zeros for, at the end of a row; every row has at least one position that is not padded. Weights and activations
//! are taken to be finite.

mod claims;
mod elementwise;
mod gather;
mod inputs;
mod level;
mod linear;
mod movement;
mod recurrent;
mod reduce;
mod regroup;
mod sizes;
mod state;
#[cfg(test)]
mod tests;
mod window;

use std::collections::HashMap;
use std::sync::OnceLock;

pub use self::claims::{Axes, Batch, Reason, Summary};
use self::inputs::{Known, read_inputs};
use self::level::Level;
use self::state::{Affine, Axis, Cause, State, Tag};
use crate::dim::{Dim, Shape};
use crate::fused;
use crate::ir::{Attr, Fact, Graph, Node, ValueId};
use crate::model::{Model, Role};
use crate::sites::module_path;

/// What a rule sees of the node that it follows.
pub(crate) struct Step<'a> {
    pub(crate) graph: &'a Graph,
    pub(crate) node: &'a Node,
    at: usize,
    states: &'a [Option<State>],
    known: &'a Known,
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
            recurrent::RULES,
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
        match self.graph.fact(v).vector() {
            Some(e) => Some(e.to_vec()),
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
    fused::expand_attention(&mut graph);
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
        let rule = table().get(node.full_op().as_str());
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

/// What is proven of the hidden states of a base, or of its first output where it shows none.
pub fn of_model(graph: &Graph, model: &Model) -> Option<Summary> {
    let v = model.hidden.or(graph.outputs.first().copied())?;
    Some(analyse(graph, &model.inputs).summary(v))
}
