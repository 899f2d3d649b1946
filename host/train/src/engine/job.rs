//! A training run from recipe to adapter directory.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::path::PathBuf;

use graft_adapters::{DataFile, StoredAdapter};
use graft_data::Stats;
use graft_graph::Tensor;
use graft_plugins::adapt::{Param, Start};
use graft_plugins::api::{Field, FieldKind, Init, LearningRate};
use graft_plugins::{Adapted, Method, Objective, adapt};
use graft_runtime::{Runtime, SessionOptions};
use graft_tasks::binding::{Choice, bind, method_of, objective_of};
use graft_tasks::{Base, BaseOptions, Examples, Feed, Intake, TaskError, fit_projections};
use serde_json::Value;

use super::chosen::Chosen;
use super::features::cut;
use super::outcome::{Outcome, metrics_json};
use super::reader::{Reader, batch_inputs, label_numbers, stats};
use super::rows;
use super::run::{Fitted, Graphs, Once, Way, named};
use super::source::TrainBatch;
use super::step::Step;
use super::{prepared, values};
use crate::bulk;
use crate::error::TrainError;
use crate::fit::Engine;
use crate::interrupt::Interrupt;
use crate::observe::Observer;
use crate::params::{Parameter, Parameters};
use crate::recipe::{Part, Recipe};
use crate::report::Ended;

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
    pub(super) pad: i64,
    init: Option<StoredAdapter>,
    pub(super) data: Vec<DataFile>,
    pub(super) options: SessionOptions,
    profile: Option<PathBuf>,
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
        bulk::threads(with.options.threads.unwrap_or(with.runtime.threads()));
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
        let init = init.map(|i| fit_projections(&base, &i).map(Cow::into_owned)).transpose()?;
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
        let Graphs { adapted, forward, stored } = self.graphs()?;
        let first = self.first_values(&adapted)?;
        let mut params = parameters(&adapted, &first, self.recipe.lr)?;
        let calibrated = OnceCell::new();
        let mut saver = self.saver(&adapted, &first, stored);
        let (base, options) = (&self.base, &self.options);
        let Once { mut frozen, train: train_features, uncached } = self.once(&adapted)?;
        let split = frozen.as_ref().map(|f| f.split.clone());
        let graph = split.as_ref().map_or(&adapted.graph, |s| &s.rest);
        let profiled = SessionOptions { profile: self.profile.clone(), ..options.clone() };
        let mut engine = Step::new(base, &adapted, graph, &first, self.recipe.seed, &profiled)?;
        let forward_split = split.as_ref().and_then(|_| cut(base, &forward).ok());
        let forward_graph = forward_split.as_ref().map_or(&forward.graph, |s| &s.rest);
        let mut feed_of = |examples| self.feed(&mut frozen, forward_split.as_ref(), examples);
        let train_feed: Box<dyn Feed + '_> = match train_features {
            Some(features) => Box::new(features),
            None => feed_of(&self.train)?,
        };
        let eval_feed = self.eval.as_ref().map(&mut feed_of).transpose()?;
        let test_feed = self.test.as_ref().map(&mut feed_of).transpose()?;
        let evaluation =
            |examples, feed, objective| self.evaluation(&forward, forward_graph, examples, feed, objective);
        let features = frozen.map(|f| f.report).unwrap_or_default();
        let mut watch = None;
        if let (Some(examples), Some(feed)) = (&self.eval, &eval_feed) {
            engine.evaluation = Some(evaluation(examples, feed.as_ref(), &self.objective)?);
            watch = Some(self.watch(examples, &forward)?);
        }
        self.begin()?;
        let plan = self.recipe.plan(watch.clone());
        let mut all: Vec<&mut dyn Observer> =
            observers.iter_mut().map(|o| &mut **o as &mut dyn Observer).collect();
        all.push(&mut saver);
        let way = Way {
            adapted: &adapted,
            split: split.as_ref(),
            feed: train_feed.as_ref(),
            plan: &plan,
            interrupt,
        };
        let Fitted { mut report, solved, unsolved } =
            match self.fitted(&way, &mut engine, &mut params, &mut all) {
                Ok(fitted) => fitted,
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
                metrics.map(named)
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

    /// What the method and the objective come to on this base.
    ///
    /// # Errors
    /// Whatever the plugins find wrong.
    pub fn chosen(&self) -> Result<Chosen, JobError> {
        let chosen = Chosen::of(&self.base, &self.method, &self.objective)?;
        match self.prepared {
            Some(_) => Ok(Chosen { cut: Err("the batches are prepared".to_owned()), ..chosen }),
            None => Ok(chosen),
        }
    }

    /// The first values of every parameter of the adapted graph, in order: the initial adapter's, else drawn.
    fn first_values(&self, adapted: &Adapted) -> Result<Vec<Tensor>, JobError> {
        if let Some(init) = &self.init {
            return Ok(bind(&self.base, init, &adapted.params)?);
        }
        let mut computed = graft_tasks::starts(&self.base, adapted, &self.options)?.into_iter();
        let mut draw = |p: &Param| -> Result<Tensor, JobError> {
            let init = match &p.init {
                Start::Base(values) => return Ok(values.clone()),
                Start::Asked(init) => init,
            };
            if matches!(init, Init::Computed(_))
                && let Some(start) = computed.next()
            {
                return Ok(start);
            }
            let drawn = match init {
                Init::Rows { table, text } => {
                    rows::first_values(&self.base, p, table, text.as_deref(), self.recipe.seed)?
                }
                _ => values::first_values(p, init, self.recipe.seed)?,
            };
            Ok(Tensor::new(p.shape.clone(), &drawn).map_err(TaskError::from)?)
        };
        adapted.params.iter().map(&mut draw).collect()
    }
}

/// The parameters that are trained, starting from these values, in a run with the learning rate `lr` above 0.
fn parameters(adapted: &Adapted, first: &[Tensor], lr: f64) -> Result<Parameters, JobError> {
    let mut list = Vec::new();
    for (p, t) in adapted.params.iter().zip(first).filter(|(p, _)| p.trained()) {
        let start = t.values::<f32>().map_err(TaskError::from)?.into_owned();
        let mut made = Parameter::new(p.name.clone(), p.shape.clone(), start)?;
        made.decay = p.decay;
        made.lr_scale = match p.rate.unwrap_or_default() {
            LearningRate::Times(factor) => factor,
            LearningRate::Of(rate) => rate / lr,
        };
        list.push(made);
    }
    Ok(Parameters::new(list)?)
}

/// A part's settings over those that an adapter brings, as JSON.
pub(super) fn configuration(from: Option<Choice>, part: &Part) -> Result<Value, JobError> {
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
