//! Lets a method and an objective write into a base graph.

mod attention;
mod call;
mod checks;
mod convert;
mod graph_host;
mod rates;
mod replace;
mod sites;
mod solve;
mod starts;
mod virtual_tokens;
mod writer;

use std::collections::HashMap;

use graft_graph::fold::Change;
use graft_graph::model::Model;
use graft_graph::{DType, Dim, Graph, ValueId};
use graft_plugin_api::{Code, Course, Distribution, Error, HeadSolver, Init, LearningRate, Role};

pub(crate) use convert::check_tensor;
pub use convert::to_graph_tensor;
pub use solve::ConvexHead;

use crate::{Method, Objective, PluginError, Result};
use writer::Writer;

/// What a parameter is before anything is trained.
#[derive(Debug, Clone, PartialEq)]
pub enum Start {
    /// As the plugin asked for.
    Asked(Init),
    /// The values of the base's initializer, where they lie.
    Base(graft_graph::Tensor),
}

/// A parameter: an input of the adapted graph.
#[derive(Debug, Clone, PartialEq)]
pub struct Param {
    /// The graph input.
    pub value: ValueId,
    /// Name of the graph input.
    pub name: String,
    /// Key within its site as PEFT has it (`lora_A.weight`); the whole key for a head; the initializer's name for a
    /// parameter of the base.
    pub key: String,
    /// Path of its site.
    pub site: Option<String>,
    /// Dimensions.
    pub shape: Vec<usize>,
    /// Element type.
    pub dtype: DType,
    /// How it starts.
    pub init: Start,
    /// The value that makes the adapter do nothing.
    pub neutral: Start,
    /// Axes that may be padded with zeros.
    pub paddable: Vec<usize>,
    /// The method's or the objective's.
    pub role: Role,
    /// True when weight decay applies: asked for, and neither bias nor norm.
    pub decay: bool,
    /// The learning rate that the method gave it, if it gave one.
    pub rate: Option<LearningRate>,
    /// The initializer of the base that it was, for `train_base`.
    pub base: Option<String>,
    /// Whether it is trained, and whether the adapter holds it.
    pub course: Course,
    /// False when no output of the graph depends on it: its gradient is zero.
    pub used: bool,
}

impl Param {
    /// Whether training changes it.
    pub fn trained(&self) -> bool {
        self.used && self.course == Course::Trained
    }
}

/// A number of the config that enters the maths: a scalar f32 input of the adapted graph.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// The graph input.
    pub value: ValueId,
    /// Name of the graph input.
    pub input: String,
    /// Name that the method gave it.
    pub name: String,
    /// Path of its site, if it has one.
    pub site: Option<String>,
    /// The number.
    pub number: f32,
}

/// An f32 input of the adapted graph that the host fills from seed, step and name.
#[derive(Debug, Clone, PartialEq)]
pub struct Noise {
    /// The graph input.
    pub value: ValueId,
    /// Name of the graph input; also the name of the stream.
    pub name: String,
    /// Dimensions, over the symbols of the base's inputs.
    pub shape: Vec<Dim>,
    /// Distribution.
    pub distribution: Distribution,
}

/// What is carried from step to step: an input of the adapted graph and its next value.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// The graph input.
    pub value: ValueId,
    /// Name that the plugin gave it.
    pub name: String,
    /// Dimensions.
    pub shape: Vec<usize>,
    /// Element type.
    pub dtype: DType,
    /// How it starts.
    pub init: Init,
    /// What it is after the step; unchanged when none was set.
    pub next: Option<ValueId>,
}

/// Which sites a method took.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Matched {
    /// The pattern in words.
    pub pattern: String,
    /// Taken.
    pub matched: Vec<String>,
    /// Of the same kinds, but left.
    pub unmatched: Vec<String>,
}

/// A base with a method and an objective written into it. Its outputs are those of the objective, the loss and the next
/// states; without an objective those of the base.
#[derive(Debug)]
pub struct Adapted {
    /// The graph. Parameters, settings, noise, states and the objective's tensors are inputs of it.
    pub graph: Graph,
    /// Parameters, in the order of declaration.
    pub params: Vec<Param>,
    /// Settings.
    pub settings: Vec<Setting>,
    /// Noise; none outside training.
    pub noises: Vec<Noise>,
    /// States.
    pub states: Vec<State>,
    /// Inputs that `collate` fills, by the names of its tensors.
    pub inputs: Vec<(String, ValueId)>,
    /// The loss, a scalar; none outside training.
    pub loss: Option<ValueId>,
    /// The objective's outputs, such as `logits`.
    pub outputs: Vec<(String, ValueId)>,
    /// Values through which no gradient flows: the outputs of `Identity` nodes.
    pub stopped: Vec<ValueId>,
    /// Which sites the method took, one entry for each selection.
    pub matched: Vec<Matched>,
    /// What parameters begin as that are [`Init::Computed`]: a graph without inputs over the base's constants, with an
    /// output for each, in their order.
    pub starts: Graph,
    /// The modules whose input or output was replaced.
    pub changes: Vec<Change>,
    /// Paths of the attentions whose output was replaced.
    pub attentions: Vec<String>,
    /// What is stored instead of the parameters that it is made from: key and value.
    pub stored: Vec<(String, ValueId)>,
    /// Virtual tokens in front of every row, which take places that texts cannot have.
    pub virtual_tokens: usize,
    /// Paths of the residual connections whose branch was replaced.
    pub residuals: Vec<String>,
    /// The base's hidden states, as the method leaves them.
    pub hidden: Option<ValueId>,
    /// The base's pooled output, as the method leaves it.
    pub pooled: Option<ValueId>,
    /// Values of the base → what the method put in their place, wherever they are read.
    pub forward: HashMap<ValueId, ValueId>,
    /// `file:line` in the plugins' sources of the values and parameters that they made, where a plugin says it.
    pub places: HashMap<ValueId, String>,
    /// How the method asks for the head to be solved, if it does.
    pub solver: Option<HeadSolver>,
    /// The head that the objective declared convex; none outside training.
    pub convex: Option<ConvexHead>,
}

/// Writes `method` and then `objective` into a copy of `base`. In training, the objective builds its loss and noise is
/// drawn; otherwise neither. Nodes that no output needs are gone; inputs stay.
///
/// # Errors
/// Whatever the plugins or the host find wrong, with plugin and site.
pub fn adapt(
    base: &Graph,
    model: &Model,
    method: Option<&Method>,
    objective: Option<&Objective>,
    training: bool,
) -> Result<Adapted> {
    write(Writer::new(base.clone(), model.clone(), training), method, objective)
}

/// As [`adapt`] outside training, but the base's outputs, as the method leaves them, stay beside the objective's. Where
/// both have one of the same name, it is the objective's.
///
/// # Errors
/// As [`adapt`].
pub fn adapt_beside(
    base: &Graph,
    model: &Model,
    method: Option<&Method>,
    objective: Option<&Objective>,
) -> Result<Adapted> {
    let mut writer = Writer::new(base.clone(), model.clone(), false);
    writer.beside = true;
    write(writer, method, objective)
}

/// As [`adapt`] outside training, for rows that come with their virtual tokens in front, each with its own adapter's number
/// of them: as many times the row's first token, which counts in the mask. A setting says how many there are. What
/// is done with them is left to operators of [`graft_graph::batch::virtual_tokens`].
///
/// # Errors
/// As [`adapt`]; a base with an encoder and a decoder, of which virtual tokens lengthen one.
pub fn adapt_laid_out(
    base: &Graph,
    model: &Model,
    method: Option<&Method>,
    objective: Option<&Objective>,
) -> Result<Adapted> {
    let mut writer = Writer::new(base.clone(), model.clone(), false);
    writer.laid_out = true;
    write(writer, method, objective)
}

fn write(mut writer: Writer, method: Option<&Method>, objective: Option<&Objective>) -> Result<Adapted> {
    if let Some(m) = method {
        m.apply(&mut writer)?;
        writer.drop_virtual();
    }
    let Some(o) = objective else {
        return finish(writer, "the method").map_err(|e| about(e, method.map(|m| (m.plugin(), m.id()))));
    };
    writer.enter_head();
    let built = o.build(&mut writer)?;
    let fail = |e: Error| about(e, Some((o.plugin(), o.id())));
    writer.take_outputs(&built).map_err(fail)?;
    finish(writer, "the objective").map_err(fail)
}

fn about(e: Error, whose: Option<(&crate::Plugin, &str)>) -> Box<PluginError> {
    let (plugin, entry) = whose.map_or(("", ""), |(p, entry)| (p.manifest().id.as_str(), entry));
    let error = PluginError::from_error(e, plugin, entry, "");
    Box::new(PluginError { mistake: error.code == Code::REFUSED, ..*error })
}

fn finish(writer: Writer, whose: &str) -> std::result::Result<Adapted, Error> {
    let mut adapted = writer.into_adapted();
    adapted.graph.sort().map_err(|value| {
        Error::new(Code::REFUSED, format!("{whose} made a graph in which `{value}` depends on itself"))
    })?;
    adapted.graph.remove_dead();
    let consumers = adapted.graph.consumers();
    for p in &mut adapted.params {
        p.used = !consumers[p.value.index()].is_empty() || adapted.graph.outputs.contains(&p.value);
    }
    Ok(adapted)
}
