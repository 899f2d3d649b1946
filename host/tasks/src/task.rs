//! Adapters fitted to a base, and one with its session.

use std::collections::HashMap;
use std::path::PathBuf;

use graft_adapters::StoredAdapter;
use graft_graph::batch::{Leaf, Neutral};
use graft_graph::hoist::hoist;
use graft_graph::model::Model;
use graft_graph::trim::trim;
use graft_graph::{Graph, Tensor, ValueId};
use graft_plugins::adapt::{Param, Start};
use graft_plugins::api::{self, Init, Metric};
use graft_plugins::{Adapted, Method, Objective, adapt, adapt_beside};
use graft_runtime::{SessionOptions, View};
use indexmap::IndexMap;
use serde_json::Value;

use crate::base::Base;
use crate::binding::{bind, method_of, objective_of};
use crate::error::{Result, TaskError};
use crate::evaluate::judge;
use crate::examples::Examples;
use crate::program::Program;
use crate::projections::fit_projections;

/// An adapter fitted to a base, without a session.
pub struct Fitted {
    /// Name for messages and answers: the adapter's folder.
    pub name: String,
    /// The objective, where the adapter has a head.
    pub objective: Option<Objective>,
    /// Places that the method's virtual tokens take from texts.
    pub virtual_tokens: usize,
    /// The method, where there is one.
    pub(crate) method: Option<Method>,
    /// What method and head declared.
    pub(crate) params: Vec<Param>,
    /// The base with method and head written into it, as they left it.
    pub(crate) graph: Graph,
    /// Parameters and settings by input name.
    pub(crate) values: HashMap<String, Tensor>,
    /// Parameters and settings as inputs of the graph.
    pub(crate) leaves: Vec<Leaf>,
    /// Values of the base → what the method put in their place.
    pub(crate) forward: HashMap<ValueId, ValueId>,
}

impl Fitted {
    /// Loads an adapter's method and objective, and fits its tensors to the base.
    ///
    /// # Errors
    /// Another base, missing plugins, modules or tensors that do not fit.
    pub fn open(base: &Base, adapter: &StoredAdapter, plugin_dirs: &[PathBuf]) -> Result<Fitted> {
        let objective = found_objective(base, adapter, plugin_dirs)?;
        Fitted::build(base, adapter, objective, plugin_dirs)
    }

    fn build(
        base: &Base,
        adapter: &StoredAdapter,
        objective: Option<Objective>,
        plugin_dirs: &[PathBuf],
    ) -> Result<Fitted> {
        let (adapted, tensors, method) = fitted(base, adapter, plugin_dirs, &|model, method| {
            adapt(&base.graph, model, method, objective.as_ref(), false)
        })?;
        Ok(Fitted::of(name_of(adapter), method, objective, adapted, tensors))
    }

    fn of(
        name: String,
        method: Option<Method>,
        objective: Option<Objective>,
        adapted: Adapted,
        tensors: Vec<Tensor>,
    ) -> Fitted {
        let (leaves, values) = (leaves(&adapted), values(&adapted, tensors));
        let Adapted { graph, params, virtual_tokens, forward, .. } = adapted;
        Fitted { name, method, params, objective, virtual_tokens, graph, values, leaves, forward }
    }

    /// As [`Fitted::open`], with an objective of the caller's choice in the place of the adapter's own; without an adapter
    /// the base as it is.
    ///
    /// # Errors
    /// As [`Fitted::open`].
    pub fn with_objective(
        base: &Base,
        adapter: Option<&StoredAdapter>,
        objective: Objective,
        plugin_dirs: &[PathBuf],
    ) -> Result<Fitted> {
        base.require_states()?;
        if let Some(adapter) = adapter {
            return Fitted::build(base, &headless(adapter), Some(objective), plugin_dirs);
        }
        let adapted = adapt(&base.graph, &base.model, None, Some(&objective), false)?;
        Ok(Fitted::of("base".into(), None, Some(objective), adapted, Vec::new()))
    }

    /// As [`Fitted::open`], with an objective of the caller's choice over the adapter's own head.
    ///
    /// # Errors
    /// As [`Fitted::open`].
    pub fn with_head(
        base: &Base,
        adapter: &StoredAdapter,
        objective: Objective,
        plugin_dirs: &[PathBuf],
    ) -> Result<Fitted> {
        base.require_states()?;
        Fitted::build(base, adapter, Some(objective), plugin_dirs)
    }

    /// The graph in a session of its own, which shares the base's weights.
    ///
    /// # Errors
    /// What ONNX Runtime says.
    pub fn program(&self, base: &Base, options: &SessionOptions) -> Result<Program> {
        let options = SessionOptions { name: self.name.clone(), ..options.clone() };
        Program::new(base, &self.slim_graph(), &options)
    }

    /// The value of a parameter or setting by the name of its input.
    pub fn value(&self, input: &str) -> Option<&Tensor> {
        self.values.get(input)
    }

    /// Names of the outputs, in order.
    pub fn outputs(&self) -> Vec<String> {
        self.graph.outputs.iter().map(|v| self.graph.name_of(*v).to_string()).collect()
    }

    /// The graph without work that no output needs.
    pub(crate) fn slim_graph(&self) -> Graph {
        let mut graph = self.graph.clone();
        hoist(&mut graph);
        if self.virtual_tokens > 0 {
            trim(&mut graph);
        }
        graph
    }

    /// The objective.
    ///
    /// # Errors
    /// An adapter without a head.
    pub fn objective(&self) -> Result<&Objective> {
        self.objective.as_ref().ok_or_else(|| TaskError::Input {
            what: format!("adapter '{}'", self.name),
            detail: "it has no head, so it gives no answers; `graft run` shows its hidden states".into(),
        })
    }

    /// The metrics over labelled examples, given the outputs for all of them.
    ///
    /// # Errors
    /// An adapter without a head; a label that it does not know.
    pub fn metrics(&self, examples: &Examples, outputs: Vec<api::Tensor>) -> Result<Vec<Metric>> {
        judge(self.objective()?, examples, outputs)
    }

    /// One answer for each example, given the outputs for all of them.
    ///
    /// # Errors
    /// An adapter without a head.
    pub fn answers(&self, examples: &Examples, outputs: Vec<api::Tensor>) -> Result<Vec<Value>> {
        Ok(self.objective()?.decode(&examples.rows, outputs)?)
    }
}

/// An adapter bound to a base: its graph in a session, its parameters beside it.
pub struct Task {
    program: Program,
    values: HashMap<String, Tensor>,
}

impl Task {
    /// As [`Fitted::open`], with a session, which shares the base's weights.
    ///
    /// # Errors
    /// As [`Fitted::open`]; what ONNX Runtime says.
    pub fn open(
        base: &Base,
        adapter: &StoredAdapter,
        plugin_dirs: &[PathBuf],
        options: &SessionOptions,
    ) -> Result<Task> {
        Task::of(base, Fitted::open(base, adapter, plugin_dirs)?, options)
    }

    /// As [`Task::open`], but the outputs are the base's own, as the method leaves them: hidden states.
    ///
    /// # Errors
    /// As [`Task::open`].
    pub fn without_head(
        base: &Base,
        adapter: &StoredAdapter,
        plugin_dirs: &[PathBuf],
        options: &SessionOptions,
    ) -> Result<Task> {
        Task::of(base, Fitted::build(base, &headless(adapter), None, plugin_dirs)?, options)
    }

    fn of(base: &Base, fitted: Fitted, options: &SessionOptions) -> Result<Task> {
        Ok(Task { program: fitted.program(base, options)?, values: fitted.values })
    }

    /// The outputs on the given inputs, by name.
    ///
    /// # Errors
    /// A missing or unfit input.
    pub fn run(&mut self, inputs: &IndexMap<String, Tensor>) -> Result<Vec<(String, Tensor)>> {
        let get = |n: &str| inputs.get(n).or_else(|| self.values.get(n)).map(View::from);
        Ok(self.program.run(&get)?.tensors()?)
    }
}

/// An adapter fitted to a base, without a session: its graph, whose outputs are the base's and the head's.
pub(crate) struct Bound {
    /// The graph and what was declared in it.
    pub adapted: Adapted,
    /// A tensor for each parameter.
    pub tensors: Vec<Tensor>,
}

impl Bound {
    /// As [`Task::open`] up to the session, with the base's outputs beside the head's.
    pub(crate) fn beside(
        base: &Base,
        adapter: &StoredAdapter,
        plugin_dirs: &[PathBuf],
        no_head: bool,
    ) -> Result<Bound> {
        let bare = no_head.then(|| headless(adapter));
        let objective = if no_head { None } else { found_objective(base, adapter, plugin_dirs)? };
        let (adapted, tensors, _) =
            fitted(base, bare.as_ref().unwrap_or(adapter), plugin_dirs, &|model, method| {
                adapt_beside(&base.graph, model, method, objective.as_ref())
            })?;
        Ok(Bound { adapted, tensors })
    }
}

/// The name of an adapter in messages: its folder's.
pub(crate) fn name_of(adapter: &StoredAdapter) -> String {
    adapter.dir.file_name().map_or_else(|| "adapter".into(), |n| n.to_string_lossy().into_owned())
}

/// The adapter without its head.
pub fn headless(adapter: &StoredAdapter) -> StoredAdapter {
    StoredAdapter { head: None, ..adapter.clone() }
}

fn found_objective(base: &Base, adapter: &StoredAdapter, dirs: &[PathBuf]) -> Result<Option<Objective>> {
    let Some(choice) = objective_of(base, adapter) else { return Ok(None) };
    base.require_states()?;
    Ok(Some(Objective::find(dirs, &choice.id, &choice.config)?))
}

type Adapt<'a> = &'a dyn Fn(&Model, Option<&Method>) -> graft_plugins::Result<Adapted>;

/// The adapter's method written into the base by `adapt`, its tensors, and the method itself.
fn fitted(
    base: &Base,
    adapter: &StoredAdapter,
    plugin_dirs: &[PathBuf],
    adapt: Adapt<'_>,
) -> Result<(Adapted, Vec<Tensor>, Option<Method>)> {
    if adapter.graft.is_some() {
        adapter.check_base(base.digest()?)?;
    }
    let adapter = &*fit_projections(base, adapter)?;
    let method = method_of(base, adapter)?;
    let method = method.map(|c| Method::find(plugin_dirs, &c.id, &c.config)).transpose()?;
    let adapted = adapt(&base.model, method.as_ref())?;
    let tensors = bind(base, adapter, &adapted.params)?;
    Ok((adapted, tensors, method))
}

/// Parameters and settings that something depends on, as inputs of the graph.
pub(crate) fn leaves(adapted: &Adapted) -> Vec<Leaf> {
    let neutral = |start: &Start| match start {
        Start::Asked(Init::Zeros) => Neutral::Zeros,
        Start::Asked(Init::Ones) => Neutral::Ones,
        _ => Neutral::Other,
    };
    let params = adapted.params.iter().filter(|p| p.used).map(|p| Leaf {
        value: p.value,
        paddable: p.paddable.clone(),
        is_param: true,
        neutral: neutral(&p.neutral),
    });
    let settings = adapted.settings.iter().map(|s| Leaf {
        value: s.value,
        paddable: Vec::new(),
        is_param: false,
        neutral: Neutral::Zeros,
    });
    params.chain(settings).collect()
}

/// Parameters and settings by input name.
pub(crate) fn values(adapted: &Adapted, tensors: Vec<Tensor>) -> HashMap<String, Tensor> {
    let params = adapted.params.iter().map(|p| p.name.clone()).zip(tensors);
    let settings = adapted.settings.iter().map(|s| (s.input.clone(), Tensor::scalar(s.number)));
    params.chain(settings).collect()
}
