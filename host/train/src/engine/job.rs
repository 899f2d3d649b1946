//! A training run from recipe to adapter directory.

use std::cell::OnceCell;
use std::path::PathBuf;

use graft_adapters::{DataFile, StoredAdapter, Training};
use graft_data::{Order, Stats};
use graft_graph::Tensor;
use graft_graph::hoist::hoist;
use graft_graph::split::Whole;
use graft_graph::trim::trim;
use graft_plugins::adapt::Param;
use graft_plugins::api::{Field, FieldKind, Init, Metric};
use graft_plugins::{Adapted, Method, Objective, adapt};
use graft_runtime::{Runtime, SessionOptions};
use graft_tasks::binding::{Choice, bind, method_of, objective_of};
use graft_tasks::{Base, BaseOptions, Examples, Feed, Intake, Program, TaskError, TextFeed};
use serde_json::Value;

use super::features::{FeatureCache, Frozen, cut};
use super::head::{Resources, solvable};
use super::outcome::{metrics_json, now};
use super::reader::{Reader, batch_inputs, label_numbers, stats};
use super::rows;
use super::save::Saver;
use super::source::{BatchSource, TrainBatch};
use super::step::{Evaluation, Step};
use super::stored::Stored;
use super::{prepared, values};
use crate::best::{Direction, Watch};
use crate::error::TrainError;
use crate::fit::{Engine, fit};
use crate::interrupt::Interrupt;
use crate::observe::Observer;
use crate::params::{Parameter, Parameters};
use crate::recipe::{Part, Recipe};
use crate::report::{Ended, FitReport};
use crate::solve::Optimum;
use crate::source::Prepared;

/// Why a run did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The recipe and what it names do not go together.
    #[error("{0}")]
    Setup(String),
    /// The output directory is taken.
    #[error("{path} exists already. Choose another --out, or move it away first: nothing is overwritten", path = .0.display())]
    Exists(PathBuf),
    /// Base, adapter, sessions.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// Plugins.
    #[error(transparent)]
    Plugin(#[from] Box<graft_plugins::PluginError>),
    /// Data.
    #[error(transparent)]
    Data(#[from] graft_data::DataError),
    /// Adapter directories.
    #[error(transparent)]
    Adapter(#[from] graft_adapters::Error),
    /// The loop.
    #[error(transparent)]
    Train(#[from] TrainError),
}

/// What a run starts with besides its recipe.
pub struct Prepare<'a> {
    /// ONNX Runtime.
    pub runtime: &'static Runtime,
    /// Folders of plugins that are looked at first.
    pub plugin_dirs: &'a [PathBuf],
    /// Provider and threads; a profile is taken of the training session alone.
    pub options: SessionOptions,
}

/// A run that is ready to start: everything is read and checked.
pub struct Job {
    /// The recipe.
    pub recipe: Recipe,
    /// The base.
    pub base: Base,
    /// The method.
    pub method: Method,
    /// The objective, as the training data resolved it.
    pub objective: Objective,
    /// What training works on.
    pub train: Examples,
    /// What selects the best epoch.
    pub eval: Option<Examples>,
    /// What is only reported.
    pub test: Option<Examples>,
    /// Class balance and lengths of the training data; none for prepared batches.
    pub stats: Option<Stats>,
    /// Batches that were given instead of data.
    pub prepared: Option<Vec<Vec<TrainBatch>>>,
    pad: i64,
    init: Option<StoredAdapter>,
    data: Vec<DataFile>,
    options: SessionOptions,
    profile: Option<PathBuf>,
}

/// Metrics on the test data.
pub type TestReport = Vec<Metric>;

/// What a run came to.
pub struct Outcome {
    /// The loop's report.
    pub report: FitReport,
    /// Metrics on the test data, where it was given.
    pub test: Option<TestReport>,
    /// Elements that were trained.
    pub trainable: usize,
    /// Whether the frozen part was computed once per example.
    pub cached: bool,
    /// Why it was not, where the base has frozen features of a fixed size.
    pub uncached: Option<String>,
    /// The metric that selects, where anything was evaluated.
    pub watch: Option<Watch>,
    /// Where the features came from.
    pub features: FeatureCache,
    /// The optimum of a convex head, where that was solved.
    pub solved: Option<Optimum>,
    /// Why it was not, where the method asks for it.
    pub unsolved: Option<String>,
}

impl Job {
    /// Reads base, data, plugins and initial adapter, and lets the objective see the data.
    ///
    /// # Errors
    /// Whatever is wrong with them, before anything is trained or written.
    pub fn prepare(recipe: Recipe, with: &Prepare<'_>) -> Result<Job, JobError> {
        if recipe.out.exists() {
            return Err(JobError::Exists(recipe.out));
        }
        let options = BaseOptions {
            hidden: recipe.hidden.clone(),
            tokenizer: recipe.tokenizer.clone(),
            preprocessor: recipe.preprocessor.clone(),
            ..BaseOptions::default()
        };
        let base = Base::open(with.runtime, &recipe.base, &options)?;
        base.require_states()?;
        let init = recipe.init_adapter.as_deref().map(graft_adapters::load).transpose()?;
        if let Some(i) = init.as_ref().filter(|i| i.graft.is_some()) {
            i.check_base(base.digest()?)?;
        }
        let start = |c: Option<Choice>, part: &Part| configuration(c, part);
        let method =
            start(init.as_ref().map(|i| method_of(&base, i)).transpose()?.flatten(), &recipe.method)?;
        let method = Method::find(with.plugin_dirs, &recipe.method.name, &method)?;
        let goal = start(init.as_ref().and_then(|i| objective_of(&base, i)), &recipe.objective)?;
        let goal = Objective::find(with.plugin_dirs, &recipe.objective.name, &goal)?;
        let fields = goal.fields()?;
        let virtual_tokens = adapt(&base.graph, &base.model, Some(&method), None, false)?.virtual_tokens;
        let (intake, data) = (None, Vec::new());
        let mut reader =
            Reader { recipe: &recipe, base: &base, fields: &fields, intake, data, virtual_tokens };
        let (mut train, mut eval) = (Examples::default(), None);
        let mut batches = None;
        if let Some(path) = &recipe.batches {
            batches = Some(prepared::read(path, &base, &batch_inputs(&base))?);
        } else if let Some(path) = &recipe.data {
            train = reader.read(path, "train")?;
        }
        if let Some(path) = &recipe.eval_data {
            eval = Some(reader.read(path, "eval")?);
        } else if let Some(fraction) = recipe.eval_split {
            // Rows with several labels have no class of their own to be drawn from.
            let one = |f: &&Field| f.kind == FieldKind::LABEL && f.separator.is_empty();
            let labels = fields.iter().find(one).and_then(|f| train.field(&f.name));
            let labels: Option<Vec<&str>> = labels.as_ref().map(|l| l.iter().map(String::as_str).collect());
            let parts = graft_data::split(train.len(), labels.as_deref(), fraction, recipe.seed)?;
            (train, eval) = (train.select(&parts.train), Some(train.select(&parts.held_out)));
        }
        let test = recipe.test_data.as_ref().map(|p| reader.read(p, "test")).transpose()?;
        let summary = match &batches {
            Some(b) => label_numbers(b),
            None => train.summary(&fields),
        };
        let objective = goal.prepare(&summary)?;
        for part in [&eval, &test].into_iter().flatten() {
            objective.collate(&part.rows, 0).map_err(|e| about(&e, &part.origin))?;
        }
        let stats = batches.is_none().then(|| stats(&train, &fields, &summary));
        let (pad, data) = (reader.intake.as_ref().map_or(0, Intake::pad_id), reader.data);
        let mut options = with.options.clone();
        let profile = options.profile.take();
        Ok(Job {
            recipe,
            base,
            method,
            objective,
            train,
            eval,
            test,
            stats,
            prepared: batches,
            pad,
            init,
            data,
            options,
            profile,
        })
    }

    /// Trains and saves. `observers` are told of every step and epoch.
    ///
    /// # Errors
    /// An operator without a gradient rule, a loss that is not finite (the last good parameters are saved first), a
    /// disk that is full.
    pub fn run(
        &self,
        observers: &mut [&mut dyn Observer],
        interrupt: &Interrupt,
    ) -> Result<Outcome, JobError> {
        let (method, objective) = (Some(&self.method), Some(&self.objective));
        let mut adapted = adapt(&self.base.graph, &self.base.model, method, objective, true)?;
        let mut forward = adapt(&self.base.graph, &self.base.model, method, objective, false)?;
        let stored = Stored::of(&adapted, &self.options);
        let smaller = hoist(&mut adapted.graph);
        hoist(&mut forward.graph);
        if adapted.virtual_tokens > 0 {
            let trimmed = trim(&mut adapted.graph);
            trim(&mut forward.graph);
            tracing::info!(trimmed, "operators work on the text alone, not on the virtual tokens before it");
        }
        tracing::info!(smaller, "operators work on the one token that the head reads");
        if adapted.params.is_empty() {
            return Err(JobError::Setup(format!(
                "the method '{}' and the objective '{}' with these settings have no parameters, so there is nothing to \
                 train",
                self.method.id(),
                self.objective.id()
            )));
        }
        let first = self.first_values(&adapted)?;
        let mut params = parameters(&adapted, &first)?;
        let calibrated = OnceCell::new();
        let mut saver = self.saver(&adapted, &first, stored);
        let (base, options) = (&self.base, &self.options);
        // The frozen half is computed once per example where the cut is proven to have a row for each, and padding is
        // proven not to reach it; where only the latter is open, it is tried.
        let (mut frozen, mut train_features, mut uncached) = (None, None, None);
        let made = if self.prepared.is_none() { cut(base, &adapted) } else { Err(Whole::NothingFixed) };
        match made {
            Ok(s) => {
                let kept = (self.recipe.feature_cache, self.recipe.feature_precision);
                let mut f = Frozen::new(base, s, options, self.pad, kept);
                match f.training(&self.train)? {
                    Ok(features) => (frozen, train_features) = (Some(f), Some(features)),
                    Err(why) => uncached = Some(why),
                }
            }
            Err(Whole::Unproven(why)) => uncached = Some(why),
            Err(Whole::NothingFixed) => {}
        }
        let split = frozen.as_ref().map(|f| f.split.clone());
        let graph = split.as_ref().map_or(&adapted.graph, |s| &s.rest);
        let profiled = SessionOptions { profile: self.profile.clone(), ..options.clone() };
        let mut engine = Step::new(base, &adapted, graph, &first, self.recipe.seed, &profiled)?;
        let forward_split = split.as_ref().and_then(|_| cut(base, &forward).ok());
        let forward_graph = forward_split.as_ref().map_or(&forward.graph, |s| &s.rest);
        let mut feed_of = |examples| -> Result<Box<dyn Feed + '_>, JobError> {
            match (&mut frozen, &forward_split) {
                (Some(f), Some(s)) if f.fits(s) => Ok(Box::new(f.features(examples)?)),
                (Some(_), _) => {
                    Err(JobError::Setup("training and evaluation cut the base differently".into()))
                }
                _ => Ok(Box::new(TextFeed { base, examples, pad: self.pad })),
            }
        };
        let train_feed: Box<dyn Feed + '_> = match train_features {
            Some(features) => Box::new(features),
            None => feed_of(&self.train)?,
        };
        let eval_feed = self.eval.as_ref().map(&mut feed_of).transpose()?;
        let test_feed = self.test.as_ref().map(&mut feed_of).transpose()?;
        let evaluation = |examples, feed, objective| -> Result<Evaluation<'_>, JobError> {
            let options = SessionOptions { name: "evaluation".into(), ..options.clone() };
            let name = |v: &graft_graph::ValueId| forward.graph.name_of(*v).to_string();
            let outputs = forward.graph.outputs.iter().map(name).collect();
            let program = Program::new(base, forward_graph, &options)?;
            Ok(Evaluation { program, feed, examples, objective, outputs })
        };
        let features = frozen.map(|f| f.report).unwrap_or_default();
        let mut watch = None;
        if let (Some(examples), Some(feed)) = (&self.eval, &eval_feed) {
            engine.evaluation = Some(evaluation(examples, feed.as_ref(), &self.objective)?);
            watch = Some(self.watch(examples, &forward)?);
        }
        std::fs::create_dir_all(&self.recipe.out)
            .map_err(|e| JobError::Setup(format!("{}: {e}", self.recipe.out.display())))?;
        // Written first, so that a run which ends early can be told apart and repeated.
        let recipe = self.recipe.to_toml().map_err(|e| JobError::Setup(e.to_string()))?;
        graft_adapters::write_file(&self.recipe.out.join("recipe.toml"), |w| w.write_all(recipe.as_bytes()))?;
        let plan = self.recipe.plan(watch.clone());
        let mut all: Vec<&mut dyn Observer> =
            observers.iter_mut().map(|o| &mut **o as &mut dyn Observer).collect();
        all.push(&mut saver);
        let (mut solved, mut unsolved) = (None, None);
        let fitted = match &self.prepared {
            Some(steps) => {
                unsolved = adapted.solver.map(|_| "the batches are prepared".to_string());
                fit(&mut engine, &mut Prepared(steps.clone()), &mut params, &plan, &mut all, interrupt)
                    .map_err(JobError::from)
            }
            None => {
                let mut source = BatchSource {
                    feed: train_feed.as_ref(),
                    examples: &self.train,
                    objective: &self.objective,
                    batch_size: self.recipe.batch_size,
                    accumulation: self.recipe.accumulation,
                    order: if self.recipe.group_by_length { Order::Grouped } else { Order::Random },
                    seed: self.recipe.seed,
                };
                let head = solvable(&adapted, split.as_ref(), self.train.len());
                match head {
                    Ok(Some(head)) => {
                        let threads = options.threads.unwrap_or(base.runtime().threads());
                        let how = Resources { base, threads, options, interrupt };
                        head.solve(&how, &source, &mut engine, &mut params, &mut all).map(
                            |(report, optimum)| {
                                solved = Some(optimum);
                                report
                            },
                        )
                    }
                    other => {
                        unsolved = other.err();
                        let made = fit(&mut engine, &mut source, &mut params, &plan, &mut all, interrupt);
                        made.map_err(JobError::from)
                    }
                }
            }
        };
        let mut report = match fitted {
            Ok(r) => r,
            Err(e) => {
                // The last good state is worth keeping, whatever stopped the run; one without a step is not.
                if saver.steps > 0 {
                    saver.training.steps = saver.steps;
                    saver.save(&params)?;
                } else {
                    std::fs::remove_dir_all(&self.recipe.out).ok();
                }
                return Err(e);
            }
        };
        if self.profile.is_some() {
            engine.finish_profile()?;
        }
        if report.ended != Ended::Interrupted
            && let Some((decided, metrics)) = engine.calibrate(&params)?
        {
            saver.objective = calibrated.get_or_init(|| decided);
            report.evaluation = Some(metrics);
        }
        let objective = saver.objective;
        let test = match (&self.test, &test_feed) {
            (Some(examples), Some(feed)) => {
                let mut e = evaluation(examples, feed.as_ref(), objective)?;
                if let Some(old) = engine.evaluation.take() {
                    e.program = old.program;
                }
                engine.evaluation = Some(e);
                let metrics =
                    engine.evaluate(&params).map_err(|source| TrainError::Evaluation { epoch: 0, source })?;
                metrics.map(|m| self.named(m))
            }
            _ => None,
        };
        saver.training.metrics = metrics_json(&report, test.as_deref());
        if let Some(optimum) = &solved {
            saver.training.metrics.insert("l2".into(), Value::from(optimum.l2));
        }
        saver.training.steps = report.steps;
        saver.save(&params)?;
        Ok(Outcome {
            trainable: params.elements(),
            cached: split.is_some(),
            uncached,
            watch,
            features,
            solved,
            unsolved,
            report,
            test,
        })
    }

    /// What the method and the objective would train on this base, and where.
    ///
    /// # Errors
    /// Whatever the plugins find wrong.
    pub fn adapted(&self) -> Result<Adapted, JobError> {
        Ok(adapt(&self.base.graph, &self.base.model, Some(&self.method), Some(&self.objective), true)?)
    }

    fn named(&self, metrics: crate::best::Metrics) -> TestReport {
        metrics.into_iter().map(|(name, value)| Metric { name, value, higher_is_better: true }).collect()
    }

    /// The first values of every parameter of the adapted graph, in order: the initial adapter's, else drawn.
    fn first_values(&self, adapted: &Adapted) -> Result<Vec<Tensor>, JobError> {
        if let Some(init) = &self.init {
            return Ok(bind(&self.base, init, adapted)?);
        }
        let mut computed = graft_tasks::starts(&self.base, adapted, &self.options)?.into_iter();
        let mut draw = |p: &Param| -> Result<Tensor, JobError> {
            if matches!(p.init, Init::Computed(_))
                && let Some(start) = computed.next()
            {
                return Ok(start);
            }
            let drawn = match &p.init {
                Init::Rows { table, text } => {
                    rows::first_values(&self.base, p, table, text.as_deref(), self.recipe.seed)?
                }
                _ => values::first_values(p, self.recipe.seed)?,
            };
            Ok(Tensor::new(p.shape.clone(), &drawn).map_err(TaskError::from)?)
        };
        adapted.params.iter().map(&mut draw).collect()
    }

    fn saver(&self, adapted: &Adapted, first: &[Tensor], stored: Option<Stored>) -> Saver<'_> {
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
    fn watch(&self, examples: &Examples, forward: &Adapted) -> Result<Watch, JobError> {
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

/// The parameters that are trained, starting from these values.
fn parameters(adapted: &Adapted, first: &[Tensor]) -> Result<Parameters, JobError> {
    let mut list = Vec::new();
    for (p, t) in adapted.params.iter().zip(first).filter(|(p, _)| p.trained()) {
        let start = t.values::<f32>().map_err(TaskError::from)?.into_owned();
        let mut made = Parameter::new(p.name.clone(), p.shape.clone(), start)?;
        made.decay = p.decay;
        list.push(made);
    }
    Ok(Parameters::new(list)?)
}

fn known(d: &graft_graph::Dim) -> Option<usize> {
    usize::try_from(d.known()?).ok()
}

/// A part's settings over those that an adapter brings, as JSON.
fn configuration(from: Option<Choice>, part: &Part) -> Result<Value, JobError> {
    let mut config = match from.filter(|c| c.id == part.name) {
        Some(Choice { config: Value::Object(map), .. }) => map,
        _ => serde_json::Map::new(),
    };
    for (k, v) in &part.settings {
        let v = serde_json::to_value(v).map_err(|e| JobError::Setup(format!("setting '{k}': {e}")))?;
        config.insert(k.clone(), v);
    }
    Ok(Value::Object(config))
}

fn about(e: &dyn std::fmt::Display, file: &str) -> JobError {
    JobError::Setup(format!("{file}: {e}"))
}
