//! One training step and one evaluation as ONNX Runtime sessions.

use std::collections::HashMap;

use graft_graph::cse::join_equal;
use graft_graph::grad::{expose, grad};
use graft_graph::order::soonest_first;
use graft_graph::{Builder, Graph, Tensor, ValueId};
use graft_plugins::adapt::Noise;
use graft_plugins::{Adapted, Objective, api};
use graft_runtime::{SessionOptions, Target, View};
use graft_tasks::{Base, Examples, Feed, Program, TaskError, judge, run_all};

use super::source::TrainBatch;
use super::values::{draw, symbols};
use crate::best::Metrics;
use crate::error::EngineError;
use crate::fit::{At, Engine, StepOutput};
use crate::params::Parameters;

/// What is evaluated after each epoch.
pub struct Evaluation<'a> {
    /// The forward graph's session.
    pub program: Program,
    /// What it reads of each row.
    pub feed: &'a dyn Feed,
    /// The labelled rows.
    pub examples: &'a Examples,
    /// Judges the outputs.
    pub objective: &'a Objective,
    /// Names of the outputs.
    pub outputs: Vec<String>,
}

/// The engine of a run.
pub struct Step<'a> {
    base: &'a Base,
    program: Program,
    settings: HashMap<String, Tensor>,
    noises: Vec<Noise>,
    seed: u64,
    /// The evaluation, if there is data for one.
    pub evaluation: Option<Evaluation<'a>>,
}

/// Appends to a forward graph the gradients of its loss, and leaves loss and gradients (`grad:PARAMETER`) as outputs.
fn with_gradients(
    graph: &Graph,
    loss: ValueId,
    trained: &[(ValueId, String)],
    stopped: &[ValueId],
) -> Result<Graph, TaskError> {
    let mut graph = graph.clone();
    graph.outputs = vec![loss];
    let one = Builder::new(&mut graph, "grad/").scalar(1f32);
    let values: Vec<ValueId> = trained.iter().map(|t| t.0).collect();
    let grads = grad(&mut graph, &[(loss, one)], &values, stopped)?;
    let names: Vec<String> = trained.iter().map(|t| t.1.clone()).collect();
    expose(&mut graph, &grads, &names);
    join_equal(&mut graph);
    soonest_first(&mut graph);
    Ok(graph)
}

impl<'a> Step<'a> {
    /// Derives the gradients of the adapted graph's loss and loads the training graph. `graph` is the adapted graph or
    /// the half of it behind the frozen features; `first` has the first values of each parameter.
    ///
    /// # Errors
    /// An operator without a gradient rule between parameters and loss; what ONNX Runtime says.
    pub fn new(
        base: &'a Base,
        adapted: &Adapted,
        graph: &Graph,
        first: &[Tensor],
        seed: u64,
        options: &SessionOptions,
    ) -> Result<Step<'a>, TaskError> {
        let loss = adapted.loss.ok_or_else(|| TaskError::Input {
            what: "the objective".into(),
            detail: "it built no loss, so there is nothing to train".into(),
        })?;
        let trained: Vec<(ValueId, String)> =
            adapted.params.iter().filter(|p| p.trained()).map(|p| (p.value, p.name.clone())).collect();
        let full = with_gradients(graph, loss, &trained, &adapted.stopped)?;
        tracing::info!(forward = graph.nodes.len(), with_gradients = full.nodes.len(), "training graph");
        let program =
            Program::new(base, &full, &SessionOptions { name: "training".into(), ..options.clone() })?;
        let settings = adapted.settings.iter().map(|s| (s.input.clone(), Tensor::scalar(s.number)));
        let fixed = adapted.params.iter().zip(first).filter(|(p, _)| p.used && !p.trained());
        let fixed = fixed.map(|(p, t)| (p.name.clone(), t.clone()));
        Ok(Step {
            base,
            program,
            settings: settings.chain(fixed).collect(),
            noises: adapted.noises.clone(),
            seed,
            evaluation: None,
        })
    }

    /// Ends profiling, where the options asked for it; gives the file.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn finish_profile(&mut self) -> Result<std::path::PathBuf, TaskError> {
        Ok(self.program.session().finish_profile()?)
    }

    /// The objective with what the outputs on the evaluation data decide, and its metrics on them; `None` where it has
    /// nothing to decide or there are no such data.
    ///
    /// # Errors
    /// Whatever the plugin or ONNX Runtime says.
    pub fn calibrate(&mut self, params: &Parameters) -> Result<Option<(Objective, Metrics)>, TaskError> {
        let Some(objective) = self.evaluation.as_ref().map(|e| e.objective) else { return Ok(None) };
        if !objective.calibrates()? {
            return Ok(None);
        }
        let Some((e, outputs)) = self.outputs(params)? else { return Ok(None) };
        let mut tensors = outputs.clone();
        tensors.extend(e.objective.collate(&e.examples.rows, 0)?);
        let decided = e.objective.calibrate(tensors)?;
        let metrics = judge(&decided, e.examples, outputs)?;
        Ok(Some((decided, metrics.into_iter().map(|m| (m.name, m.value)).collect())))
    }

    /// The evaluation and its outputs, where there are data for one.
    fn outputs(
        &mut self,
        params: &Parameters,
    ) -> Result<Option<(&Evaluation<'a>, Vec<api::Tensor>)>, TaskError> {
        let Some(e) = &mut self.evaluation else { return Ok(None) };
        let settings = &self.settings;
        let fixed = |n: &str| settings.get(n).map(View::from).or_else(|| view(params, n));
        let outputs = run_all(&mut e.program, e.feed, &fixed, &e.outputs)?;
        Ok(Some((e, outputs)))
    }

    fn noise(&self, batch: &TrainBatch, at: At) -> Result<HashMap<String, Tensor>, EngineError> {
        let graph = &self.base.graph;
        let declared = graph
            .inputs
            .iter()
            .filter_map(|v| Some((graph.shape(*v)?.as_slice(), batch.tensors.get(graph.name_of(*v))?)));
        let mut sizes = if self.noises.is_empty() { HashMap::new() } else { symbols(declared) };
        // A batch of features holds no input of the base; what is left of their axes is the batch.
        for first in graph.inputs.iter().filter_map(|v| graph.shape(*v)?.first()?.as_symbol()) {
            sizes.entry(first.to_string()).or_insert(batch.rows as i64);
        }
        let one = |n: &Noise| Ok((n.name.clone(), draw(n, &sizes, self.seed, at.step, at.micro)?));
        self.noises.iter().map(one).collect()
    }
}

fn view<'v>(params: &'v Parameters, name: &str) -> Option<View<'v>> {
    let p = params.get(name)?;
    View::new(&p.shape, &p.values).ok()
}

impl Engine for Step<'_> {
    type Batch = TrainBatch;

    fn gradients(
        &mut self,
        batch: &TrainBatch,
        at: At,
        params: &Parameters,
        grads: &mut [Vec<f32>],
    ) -> Result<StepOutput, EngineError> {
        let noise = self.noise(batch, at)?;
        let tensor = |n: &str| batch.tensors.get(n).or_else(|| self.settings.get(n)).or_else(|| noise.get(n));
        // Written where they are wanted: gradients of the size of the base would otherwise lie in memory twice, and
        // tear ONNX Runtime's own to pieces that no longer fit the next step.
        let mut loss = [0f32];
        let mut targets = vec![Target { shape: &[], data: &mut loss }];
        targets.extend(params.iter().zip(grads).map(|(p, g)| Target { shape: &p.shape, data: g }));
        self.program.run_into(&|n| tensor(n).map(View::from).or_else(|| view(params, n)), &mut targets)?;
        Ok(StepOutput { loss: f64::from(loss[0]), samples: batch.rows })
    }

    fn evaluate(&mut self, params: &Parameters) -> Result<Option<Metrics>, EngineError> {
        let Some((e, outputs)) = self.outputs(params)? else { return Ok(None) };
        let metrics = judge(e.objective, e.examples, outputs)?;
        Ok(Some(metrics.into_iter().map(|m| (m.name, m.value)).collect()))
    }
}
