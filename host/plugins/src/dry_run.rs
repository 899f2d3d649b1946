//! Writes a method or an objective into a tiny base and derives its gradients, without running anything.

use graft_graph::grad::{GradError, grad};
use graft_graph::{Attr, Builder, Graph, Tensor, ValueId};
use graft_plugin_api::{Code, Error, Field};

use crate::adapt::Param;
use crate::made_up::{self, EXAMPLES};
use crate::{Adapted, Method, Objective, PluginError, Result, adapt, tiny};

/// A method or an objective in a tiny base, ready to be run. Every input of the base has the axes `batch` and `sequence`.
#[derive(Debug)]
pub struct Trial {
    /// The adapted graph. Where an objective has no parameters of its own, a norm of the base is trained.
    pub adapted: Adapted,
    /// A scalar whose gradients are taken: the loss, or for a method a weighted sum of the hidden states.
    pub from: ValueId,
    /// What the base and the objective read, by the names of inputs.
    pub inputs: Vec<(String, Tensor)>,
    /// Size of the axis `batch`.
    pub rows: usize,
    /// Size of the axis `sequence`.
    pub length: usize,
    /// Nodes of the graph with its gradients.
    pub nodes: usize,
    /// Id of the plugin.
    pub plugin: String,
    /// Id of the method or objective.
    pub entry: String,
}

impl Trial {
    fn new(
        adapted: Adapted,
        from: ValueId,
        rows: usize,
        whose: (&crate::Plugin, &str),
        collated: Vec<(String, Tensor)>,
    ) -> std::result::Result<Trial, Error> {
        let mut inputs = tiny::inputs(rows, made_up::TOKENS)?;
        inputs.extend(collated);
        let mut trial = Trial {
            adapted,
            from,
            inputs,
            rows,
            length: made_up::TOKENS,
            nodes: 0,
            plugin: whose.0.manifest().id.clone(),
            entry: whose.1.to_owned(),
        };
        trial.nodes = trial.with_gradients(from, &trial.trained())?.0.nodes.len();
        Ok(trial)
    }

    /// The parameters that are trained and that something depends on.
    pub fn trained(&self) -> Vec<&Param> {
        self.adapted.params.iter().filter(|p| p.trained()).collect()
    }

    /// The graph with the gradients of the scalar `from` appended, one for each of `wrt`.
    ///
    /// # Errors
    /// An operator without a rule, a parameter without influence; with the author's line, where it is known.
    pub fn with_gradients(
        &self,
        from: ValueId,
        wrt: &[&Param],
    ) -> std::result::Result<(Graph, Vec<ValueId>), Error> {
        self.gradients_in(self.adapted.graph.clone(), from, wrt)
    }

    /// As [`Trial::with_gradients`], of a graph that grew out of that of the trial.
    ///
    /// # Errors
    /// As [`Trial::with_gradients`].
    pub fn gradients_in(
        &self,
        mut graph: Graph,
        from: ValueId,
        wrt: &[&Param],
    ) -> std::result::Result<(Graph, Vec<ValueId>), Error> {
        let one = Builder::new(&mut graph, "check/").scalar(1f32);
        let values: Vec<ValueId> = wrt.iter().map(|p| p.value).collect();
        match grad(&mut graph, &[(from, one)], &values, &self.adapted.stopped) {
            Ok(grads) => Ok((graph, grads)),
            Err(e) => {
                let what = format!("no gradients can be derived: {e}");
                Err(Error { place: self.place_of(&e), ..Error::new(Code::UNSUPPORTED, what) })
            }
        }
    }

    /// The author's line that wrote what a gradient fails at.
    fn place_of(&self, e: &GradError) -> String {
        let graph = &self.adapted.graph;
        let at =
            |v: Option<ValueId>| v.and_then(|v| self.adapted.places.get(&v)).cloned().unwrap_or_default();
        match e {
            GradError::NoRule { node, .. } | GradError::Unsupported { node, .. } => {
                let found = graph.nodes.iter().find(|n| n.name == *node);
                at(found.and_then(|n| n.outputs.iter().flatten().next().copied()))
            }
            GradError::NoPath { value, .. } => at(graph.find(value)),
            _ => String::new(),
        }
    }

    /// An error about this plugin that a gradient showed.
    pub fn fail(&self, e: Error) -> Box<PluginError> {
        PluginError::from_error(e, &self.plugin, &self.entry, "gradients")
    }
}

/// Writes `method` into the tiny base and derives the gradient of every parameter with respect to the hidden states.
///
/// # Errors
/// Whatever the method or the host finds wrong; an operator without a gradient rule.
pub(crate) fn method(method: &Method) -> Result<Trial> {
    let fail = |e: Error| PluginError::from_error(e, &method.plugin().manifest().id, method.id(), "dry run");
    let (base, model) = tiny::base().map_err(fail)?;
    let mut adapted = adapt(&base, &model, Some(method), None, true)?;
    let Some(hidden) = adapted.hidden.or(model.hidden) else {
        return Err(fail(Error::new(Code::REFUSED, "the tiny base lost its hidden states")));
    };
    let weights = tiny::weights("check").map_err(fail)?;
    let mut b = Builder::new(&mut adapted.graph, "check/");
    let weights = b.constant(weights);
    let weighted = b.op("Mul", &[hidden, weights]);
    let sum = b.op_with("ReduceSum", &[weighted], &[("keepdims", Attr::Int(0))]);
    Trial::new(adapted, sum, EXAMPLES, (method.plugin(), method.id()), Vec::new()).map_err(fail)
}

/// Prepares `objective` on made-up data, writes it onto the tiny base and derives the gradients of its loss; `None` for
/// one that reads fields of a kind for which no data can be made up.
///
/// # Errors
/// As [`method`].
pub(crate) fn objective(objective: &Objective) -> Result<Option<Trial>> {
    let fields = objective.fields()?;
    if fields.iter().any(|f| f.required && !made_up::known(f.kind)) {
        return Ok(None);
    }
    let mut first = None;
    for choice in made_up::choices(&fields) {
        match on_fields(objective, &choice) {
            Ok(trial) => return Ok(Some(trial)),
            Err(e) if [Code::DATA, Code::CONFIG].contains(&e.code) => {
                first.get_or_insert(e);
            }
            Err(e) => return Err(e),
        }
    }
    first.map_or(Ok(None), Err)
}

fn on_fields(objective: &Objective, fields: &[&Field]) -> Result<Trial> {
    let whose = (objective.plugin(), objective.id());
    let fail = |e: Error| PluginError::from_error(e, &whose.0.manifest().id, whose.1, "dry run");
    let apart = fields.iter().filter(|f| f.kind == graft_plugin_api::FieldKind::TEXT_APART).count();
    let prepared = objective.prepare(&made_up::summary(fields))?;
    let collated = prepared.collate(&made_up::rows(fields), 0)?;
    let (base, model) = tiny::base().map_err(fail)?;
    let mut adapted = adapt(&base, &model, None, Some(&prepared), true)?;
    let Some(loss) = adapted.loss else {
        return Err(fail(Error::new(Code::REFUSED, "it builds no loss in a training graph")));
    };
    if adapted.params.is_empty() {
        adapted.params.extend(tiny::train_last_norm(&mut adapted.graph));
    }
    let read = |t: graft_plugin_api::Tensor| {
        let name = adapted.inputs.iter().find(|(n, _)| *n == t.name).map(|(_, v)| *v)?;
        let name = adapted.graph.name_of(name).to_owned();
        Some(adapt::to_graph_tensor(t).map(|t| (name, t)))
    };
    let collated = collated.into_iter().filter_map(read).collect::<std::result::Result<_, _>>();
    let collated = collated.map_err(fail)?;
    Trial::new(adapted, loss, EXAMPLES * (1 + apart), whose, collated).map_err(fail)
}

/// `objective` as if it had seen data, for what its graph is to be known of before there are any.
///
/// # Errors
/// Whatever the objective finds wrong with made-up data.
pub fn without_data(objective: &Objective) -> Result<Objective> {
    let fields = objective.fields()?;
    let mut tried = made_up::choices(&fields).into_iter().map(|c| objective.prepare(&made_up::summary(&c)));
    let first = tried.next().unwrap_or_else(|| objective.prepare(&made_up::summary(&[])));
    match first {
        Ok(prepared) => Ok(prepared),
        Err(e) => tried.find_map(Result::ok).ok_or(e),
    }
}
