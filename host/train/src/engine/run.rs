//! The parts of a run: its graphs, what is computed once, how parameters are found, what is saved.

use graft_adapters::Training;
use graft_data::Order;
use graft_graph::hoist::hoist;
use graft_graph::split::{Split, Whole};
use graft_graph::trim::trim;
use graft_graph::{Graph, Tensor};
use graft_plugins::api::Metric;
use graft_plugins::{Adapted, Objective, adapt};
use graft_runtime::SessionOptions;
use graft_tasks::{Examples, Feed, Program, TextFeed};
use serde_json::Value;

use super::features::{Features, Frozen, cut};
use super::head::{Resources, solvable};
use super::job::{Job, JobError};
use super::outcome::{TestReport, now};
use super::save::Saver;
use super::source::BatchSource;
use super::step::{Evaluation, Step};
use super::stored::Stored;
use crate::best::{Direction, Metrics, Watch};
use crate::fit::fit;
use crate::interrupt::Interrupt;
use crate::observe::Observer;
use crate::params::Parameters;
use crate::plan::Plan;
use crate::report::FitReport;
use crate::solve::Optimum;
use crate::source::Prepared;

/// What a run computes.
pub(super) struct Graphs {
    /// With the loss, for training.
    pub(super) adapted: Adapted,
    /// Without, for evaluation.
    pub(super) forward: Adapted,
    /// What is stored instead of parameters that only help training.
    pub(super) stored: Option<Stored>,
}

/// What is computed once per example.
pub(super) struct Once<'a> {
    /// The frozen half, where there is one.
    pub(super) frozen: Option<Frozen<'a>>,
    /// What it gives for the training data.
    pub(super) train: Option<Features>,
    /// Why there is none, where there could be one.
    pub(super) uncached: Option<String>,
}

/// How parameters are found.
pub(super) struct Way<'a> {
    pub(super) adapted: &'a Adapted,
    pub(super) split: Option<&'a Split>,
    pub(super) feed: &'a dyn Feed,
    pub(super) plan: &'a Plan,
    pub(super) interrupt: &'a Interrupt,
}

/// How they were found.
pub(super) struct Fitted {
    pub(super) report: FitReport,
    /// The optimum of a convex head, where that was solved.
    pub(super) solved: Option<Optimum>,
    /// Why it was not, where the method asks for it.
    pub(super) unsolved: Option<String>,
}

/// Leaves out work on tokens that nothing reads; gives how many operators work on one token now, and how many no longer on
/// virtual ones.
pub(super) fn slim(adapted: &mut Adapted) -> (usize, usize) {
    let smaller = hoist(&mut adapted.graph);
    (smaller, if adapted.virtual_tokens > 0 { trim(&mut adapted.graph) } else { 0 })
}

impl Job {
    /// The base with method and objective written into it, without work that nothing needs.
    pub(super) fn graphs(&self) -> Result<Graphs, JobError> {
        let (method, objective) = (Some(&self.method), Some(&self.objective));
        let mut adapted = adapt(&self.base.graph, &self.base.model, method, objective, true)?;
        let mut forward = adapt(&self.base.graph, &self.base.model, method, objective, false)?;
        let stored = Stored::of(&adapted, &self.options);
        let (smaller, trimmed) = slim(&mut adapted);
        slim(&mut forward);
        tracing::info!(
            smaller,
            trimmed,
            "operators work on the token that the head reads, on the text alone"
        );
        if !adapted.params.iter().any(|p| p.trained()) {
            return Err(JobError::Setup(format!(
                "the method '{}' and the objective '{}' with these settings have no parameters, so there is nothing to \
                 train",
                self.method.id(),
                self.objective.id()
            )));
        }
        Ok(Graphs { adapted, forward, stored })
    }

    /// The frozen half is computed once per example where the cut is proven to have a row for each, and padding is
    /// proven not to reach it; where only the latter is open, it is tried.
    pub(super) fn once(&self, adapted: &Adapted) -> Result<Once<'_>, JobError> {
        let none = |uncached| Once { frozen: None, train: None, uncached };
        if self.prepared.is_some() {
            return Ok(none(None));
        }
        let split = match cut(&self.base, adapted) {
            Ok(split) => split,
            Err(Whole::Unproven(why)) => return Ok(none(Some(why))),
            Err(Whole::NothingFixed(_)) => return Ok(none(None)),
        };
        let kept = (self.recipe.feature_cache, self.recipe.feature_precision);
        let mut frozen = Frozen::new(&self.base, split, &self.options, self.pad, kept);
        Ok(match frozen.training(&self.train)? {
            Ok(features) => Once { frozen: Some(frozen), train: Some(features), uncached: None },
            Err(why) => none(Some(why)),
        })
    }

    /// What examples give: features of the frozen half, where training has them, else the base's own inputs. `split` is
    /// the cut of the graph that reads it.
    pub(super) fn feed<'s>(
        &'s self,
        frozen: &mut Option<Frozen<'_>>,
        split: Option<&Split>,
        examples: &'s Examples,
    ) -> Result<Box<dyn Feed + 's>, JobError> {
        match (frozen, split) {
            (Some(f), Some(s)) if f.fits(s) => Ok(Box::new(f.features(examples)?)),
            (Some(_), _) => Err(JobError::Setup("training and evaluation cut the base differently".into())),
            _ => Ok(Box::new(TextFeed { base: &self.base, examples, pad: self.pad })),
        }
    }

    /// A session of `graph`, which is `forward` or what is behind its cut, for these examples.
    pub(super) fn evaluation<'s>(
        &self,
        forward: &Adapted,
        graph: &Graph,
        examples: &'s Examples,
        feed: &'s dyn Feed,
        objective: &'s Objective,
    ) -> Result<Evaluation<'s>, JobError> {
        let options = SessionOptions { name: "evaluation".into(), ..self.options.clone() };
        let outputs = forward.graph.outputs.iter().map(|v| forward.graph.name_of(*v).to_string()).collect();
        let program = Program::new(&self.base, graph, &options)?;
        Ok(Evaluation { program, feed, examples, objective, outputs })
    }

    /// Makes the adapter's folder. The recipe is written first, so that a run which ends early can be told apart and
    /// repeated.
    pub(super) fn begin(&self) -> Result<(), JobError> {
        let out = &self.recipe.out;
        std::fs::create_dir_all(out).map_err(|e| JobError::Setup(format!("{}: {e}", out.display())))?;
        let recipe = self.recipe.to_toml().map_err(|e| JobError::Setup(e.to_string()))?;
        Ok(graft_adapters::write_file(&out.join("recipe.toml"), |w| w.write_all(recipe.as_bytes()))?)
    }

    /// Trains step by step, or solves a head that can be solved.
    pub(super) fn fitted(
        &self,
        way: &Way<'_>,
        engine: &mut Step<'_>,
        params: &mut Parameters,
        observers: &mut [&mut dyn Observer],
    ) -> Result<Fitted, JobError> {
        let Way { adapted, split, feed, plan, interrupt } = *way;
        if let Some(steps) = &self.prepared {
            let unsolved = adapted.solver.map(|_| "the batches are prepared".to_string());
            let report = fit(engine, &mut Prepared(steps.clone()), params, plan, observers, interrupt)?;
            return Ok(Fitted { report, solved: None, unsolved });
        }
        let mut source = BatchSource {
            feed,
            examples: &self.train,
            objective: &self.objective,
            batch_size: self.recipe.batch_size,
            accumulation: self.recipe.accumulation,
            order: if self.recipe.group_by_length { Order::Grouped } else { Order::Random },
            seed: self.recipe.seed,
        };
        let unsolved = match solvable(adapted, split, self.train.len()) {
            Ok(Some(head)) => {
                let threads = self.options.threads.unwrap_or(self.base.runtime().threads());
                let how = Resources { base: &self.base, threads, options: &self.options, interrupt };
                let (report, optimum) = head.solve(&how, &source, engine, params, observers)?;
                return Ok(Fitted { report, solved: Some(optimum), unsolved: None });
            }
            other => other.err(),
        };
        let report = fit(engine, &mut source, params, plan, observers, interrupt)?;
        Ok(Fitted { report, solved: None, unsolved })
    }

    /// What writes the adapter.
    pub(super) fn saver(&self, adapted: &Adapted, first: &[Tensor], stored: Option<Stored>) -> Saver<'_> {
        let untrained = adapted.params.iter().zip(first).filter(|(p, _)| !p.trained());
        let idle = untrained.map(|(p, t)| (p.name.clone(), t.clone())).collect();
        let runtime = self.base.runtime();
        let recipe = serde_json::to_value(&self.recipe).unwrap_or(Value::Null);
        let training = Training {
            recipe,
            seed: self.recipe.seed,
            threads: self.options.threads.unwrap_or(runtime.threads()),
            onnxruntime: runtime.version().to_string(),
            provider: self.options.provider.to_string(),
            data: self.data.clone(),
            date: now(),
            ..Training::default()
        };
        Saver {
            out: self.recipe.out.clone(),
            base: &self.base,
            method: &self.method,
            objective: &self.objective,
            params: adapted.params.clone(),
            idle,
            matched: Saver::matched(adapted),
            stored,
            training,
            steps: 0,
        }
    }

    /// The metric that selects: the one of the recipe, else the objective's first. Which way is better, the objective
    /// says of outputs that are all zero.
    pub(super) fn watch(&self, examples: &Examples, forward: &Adapted) -> Result<Watch, JobError> {
        let few: Vec<usize> = (0..examples.len().min(2)).collect();
        let few = examples.select(&few);
        // An axis without a known size is that of the tokens.
        let longest = few.lengths().into_iter().max().unwrap_or(1);
        let blank = |(name, v): &(String, graft_graph::ValueId)| {
            let row = forward.graph.shape(*v).into_iter().flatten().skip(1);
            let row: Vec<usize> = row.map(|d| known(d).unwrap_or(longest)).collect();
            let shape: Vec<usize> = std::iter::once(few.len() * few.stack()).chain(row).collect();
            graft_plugins::api::Tensor::f32s(name, &shape, &vec![0.0; shape.iter().product()])
        };
        let metrics = graft_tasks::judge(&self.objective, &few, forward.outputs.iter().map(blank).collect())?;
        let found = match &self.recipe.best_metric {
            Some(name) => metrics.iter().find(|m| m.name == *name),
            None => metrics.first(),
        };
        let m = found.ok_or_else(|| {
            let names: Vec<&str> = metrics.iter().map(|m| m.name.as_str()).collect();
            JobError::Setup(format!(
                "best_metric: the objective '{}' has {}",
                self.objective.id(),
                names.join(", ")
            ))
        })?;
        let direction = if m.higher_is_better { Direction::Higher } else { Direction::Lower };
        Ok(Watch { metric: m.name.clone(), direction, patience: self.recipe.patience })
    }
}

/// Metrics as they are reported.
pub(super) fn named(metrics: Metrics) -> TestReport {
    metrics.into_iter().map(|(name, value)| Metric { name, value, higher_is_better: true }).collect()
}

fn known(d: &graft_graph::Dim) -> Option<usize> {
    usize::try_from(d.known()?).ok()
}
