//! `graft train`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches};
use graft_runtime::{SessionOptions, peak_rss_mb};
use graft_train::engine::{FeatureCache, Job, Outcome, Prepare};
use graft_train::recipe::{FIELDS, Kind, Layer};
use graft_train::{Ended, Event, EventFile, Interrupt, MetricsFile, Observer, Progress, Recipe, TrainError};
use serde_json::json;

use crate::common::{RuntimeArgs, started};

/// Train an adapter on a base
///
/// Everything can stand in a recipe file (TOML, the keys are the flags with underscores); flags win over it. The
/// recipe that was used is written into the adapter's directory. Evaluation data selects the best epoch and stops
/// early; test data is only reported on.
///
/// Example: graft train --base minilm --objective classification --method lora --data train.csv --text text
/// --label intent --eval-split 0.1 --set method.r=8 --out adapters/intent
#[derive(clap::Args)]
pub struct Args {
    /// A recipe; flags win over it
    recipe: Option<PathBuf>,
    #[command(flatten)]
    flags: RecipeFlags,
    /// A setting of the method or the objective, e.g. method.r=8 or objective.pooling=mean (repeatable)
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// A folder of plugins, searched first (repeatable)
    #[arg(long, value_name = "DIR")]
    plugin_dir: Vec<PathBuf>,
    /// A setting of the provider, e.g. memory-limit=4GiB (repeatable)
    #[arg(long, value_name = "KEY=VALUE")]
    provider_option: Vec<String>,
    /// The ONNX Runtime library, or the folder it lies in
    #[arg(long, value_name = "PATH")]
    library: Option<PathBuf>,
    /// Write ONNX Runtime's profile of the training session, and print where the time goes
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,
    /// One JSON object last on stdout, everything else on stderr
    #[arg(long)]
    json: bool,
}

/// The flags that are keys of a recipe, generated from the recipe's own table.
pub(super) struct RecipeFlags(Vec<(&'static str, String)>);

impl clap::Args for RecipeFlags {
    fn augment_args(mut command: Command) -> Command {
        for f in FIELDS.iter().filter(|f| f.kind != Kind::Columns) {
            let flag: String = f.name.replace('_', "-");
            let help = match f.default {
                Some(d) => format!("{} [default: {}]", capital(f.help), d.trim_matches('"')),
                None => capital(f.help),
            };
            let value = match f.kind {
                Kind::Path => "PATH",
                Kind::Integer(..) => "N",
                Kind::Number(..) => "X",
                Kind::Column => "COLUMN",
                Kind::Bool => "BOOL",
                _ => "NAME",
            };
            let arg = Arg::new(f.name).long(flag).value_name(value).help(help).action(ArgAction::Set);
            command = command.arg(arg.allow_hyphen_values(matches!(f.kind, Kind::Number(..))));
        }
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for RecipeFlags {
    fn from_arg_matches(m: &ArgMatches) -> std::result::Result<Self, clap::Error> {
        let given = |name: &'static str| Some((name, m.get_one::<String>(name)?.clone()));
        Ok(RecipeFlags(
            FIELDS.iter().filter(|f| f.kind != Kind::Columns).filter_map(|f| given(f.name)).collect(),
        ))
    }

    fn update_from_arg_matches(&mut self, m: &ArgMatches) -> std::result::Result<(), clap::Error> {
        *self = Self::from_arg_matches(m)?;
        Ok(())
    }
}

fn capital(s: &str) -> String {
    let mut c = s.chars();
    c.next().map_or_else(String::new, |f| f.to_uppercase().chain(c).collect())
}

/// The layers of a recipe: a file, and over it the command line.
pub(super) fn layers(recipe: Option<&Path>, given: &RecipeFlags, set: &[String]) -> Result<Vec<Layer>> {
    let mut layers = Vec::new();
    if let Some(file) = recipe {
        layers.push(Layer::from_file(file)?);
    }
    let mut flags = Layer::command_line();
    for (name, value) in &given.0 {
        flags.flag(name, value)?;
    }
    for s in set {
        flags.set(s)?;
    }
    layers.push(flags);
    Ok(layers)
}

/// Runs the command.
pub fn run(args: Args) -> Result<()> {
    let recipe = Recipe::resolve(&layers(args.recipe.as_deref(), &args.flags, &args.set)?)?;
    let runtime = RuntimeArgs::of_recipe(&recipe, &args.provider_option, args.library.as_deref());
    let with = Prepare {
        runtime: runtime.start()?,
        plugin_dirs: &args.plugin_dir,
        options: SessionOptions { profile: args.profile.clone(), ..runtime.session("training")? },
    };
    let job = Job::prepare(recipe, &with)?;
    introduce(&job)?;
    let interrupt = Interrupt::install()?;
    let mut progress = Progress::stderr();
    let mut files = Files::new(&job.recipe.out);
    let mut first = FirstStep::default();
    let outcome = job.run(&mut [&mut progress, &mut files, &mut first], &interrupt)?;
    if let Some(profile) = &args.profile {
        eprintln!("\n{}", graft_runtime::profile::summary(profile)?);
    }
    conclude(&job, &outcome, first.seconds, args.json);
    Ok(())
}

/// What is about to happen, before it takes time.
fn introduce(job: &Job) -> Result<()> {
    let base = job.base.model_type.as_deref().unwrap_or("unknown architecture");
    eprintln!("base       {} ({base})", job.base.path.display());
    let adapted = job.adapted()?;
    let trained: usize =
        adapted.params.iter().filter(|p| p.trained()).map(|p| p.shape.iter().product::<usize>()).sum();
    for m in &adapted.matched {
        eprintln!("method     {}: {} sites match {}", job.method.id(), m.matched.len(), m.pattern);
    }
    if adapted.matched.is_empty() {
        eprintln!("method     {}: the base stays as it is", job.method.id());
    }
    eprintln!("objective  {}, {trained} parameters are trained", job.objective.id());
    if let Some(stats) = &job.stats {
        eprintln!("\n{stats}");
    }
    Ok(())
}

/// Where the frozen features came from.
fn features_line(f: &FeatureCache) -> String {
    let from = match (f.read, f.written) {
        (0, _) => "the base ran once per example; training read its features".to_string(),
        (_, 0) => "the base did not run: its features were kept from an earlier run".to_string(),
        (n, m) => format!("{n} of {} sets of features were kept from an earlier run", n + m),
    };
    match &f.note {
        Some(why) => format!("{from}, which are not kept: {why}"),
        None => from,
    }
}

fn conclude(job: &Job, outcome: &Outcome, first_step: f64, as_json: bool) {
    let r = &outcome.report;
    let shown = match &outcome.test {
        Some(t) => t.iter().map(|m| (m.name.clone(), m.value)).collect(),
        None => r.evaluation.clone().unwrap_or_default().into_iter().collect::<Vec<_>>(),
    };
    if outcome.cached {
        eprintln!("{}", features_line(&outcome.features));
    }
    if let Some(why) = &outcome.uncached {
        eprintln!("the base ran in every epoch, its features are not kept: {why}");
    }
    if let Some(why) = &outcome.unsolved {
        eprintln!("the head was trained step by step, not solved: {why}");
    }
    if r.ended == Ended::Early {
        eprintln!("stopped early: the evaluation no longer improved");
    }
    if let Some(epoch) = r.kept_epoch() {
        eprintln!("kept epoch {epoch}, the best by evaluation");
    }
    let what = if outcome.test.is_some() { "test" } else { "evaluation" };
    for (name, value) in &shown {
        eprintln!("{what} {name}: {value:.4}");
    }
    eprintln!("saved {}", job.recipe.out.display());
    if as_json {
        let mut object = json!({
            "adapter": job.recipe.out, "train_seconds": r.train_seconds, "evaluation_seconds": r.evaluation_seconds,
            "samples_per_second": r.samples_per_second, "steps": r.steps, "epochs": r.epochs,
            "trainable_parameters": outcome.trainable, "peak_rss_mb": peak_rss_mb(), "cached_features": outcome.cached,
            "feature_cache": { "read": outcome.features.read, "written": outcome.features.written },
            "seconds_to_first_step": first_step, "kept_epoch": r.kept_epoch(), "ended": format!("{:?}", r.ended).to_lowercase(),
        });
        for (name, value) in shown {
            object[name] = json!(value);
        }
        if let Some(o) = &outcome.solved {
            object["solver"] = json!({
                "l2": o.l2, "folds": o.folds, "iterations": o.iterations, "gradient": o.gradient,
                "converged": o.converged, "loss": o.loss,
                "grid": o.grid.iter().map(|p| json!({
                    "l2": p.l2, "held_out_loss": p.loss, "held_out_accuracy": p.accuracy, "iterations": p.iterations,
                })).collect::<Vec<_>>(),
            });
        }
        if let Some(e) = &r.evaluation {
            object["evaluation"] = json!(e);
        }
        println!("{object}");
    }
}

/// Metrics go to files in the adapter's directory, which exists from the start of training.
pub(super) struct Files {
    out: PathBuf,
    open: Option<(MetricsFile, EventFile)>,
}

impl Files {
    /// Files in an adapter's directory.
    pub(super) fn new(out: &Path) -> Files {
        Files { out: out.to_path_buf(), open: None }
    }
}

impl Observer for Files {
    fn observe(&mut self, event: &Event<'_>) -> std::result::Result<(), TrainError> {
        if self.open.is_none() {
            let (metrics, events) = (self.out.join("metrics.jsonl"), &self.out);
            self.open = Some((MetricsFile::open(&metrics)?, EventFile::create(events)?));
        }
        if let Some((metrics, events)) = &mut self.open {
            metrics.observe(event)?;
            events.observe(event)?;
        }
        Ok(())
    }
}

/// Seconds from the start of the process to the end of the first step.
#[derive(Default)]
struct FirstStep {
    seconds: f64,
}

impl Observer for FirstStep {
    fn observe(&mut self, event: &Event<'_>) -> std::result::Result<(), TrainError> {
        if let (Event::Step(s), true) = (event, self.seconds == 0.0)
            && s.step == 1
        {
            self.seconds = Instant::now().duration_since(started()).as_secs_f64();
        }
        Ok(())
    }
}
