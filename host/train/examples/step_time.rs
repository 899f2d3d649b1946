//! Times one LoRA training step at batches of a constant shape, beside ONNX Runtime's own forward pass over the base's
//! model file, both with all optimisations: `step_time BASE [--batch 32] [--length 64] [--steps 20] [--threads 2]
//! [--plugins DIR] [--pooling pooled] [--targets '["query", "value"]'] [--provider cpu] [--profile FILE]`. Prints one JSON
//! object; times in milliseconds.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

use graft_graph::Tensor;
use graft_runtime::{Runtime, RuntimeOptions, Session, SessionOptions, SessionSource};
use graft_tasks::Base;
use graft_train::engine::{Job, Prepare};
use graft_train::{Event, Interrupt, Layer, Observer, Recipe, TrainError};
use serde_json::{Value, json};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const LABELS: i64 = 6;
/// Steps and passes alternate in blocks of so many: the threads of the two sessions spin for a moment after a run, and
/// disturb only the first of a block.
const BLOCK: usize = 5;

struct Arguments(Vec<String>);

impl Arguments {
    fn base(&self) -> Result<PathBuf> {
        let usage = "usage: step_time BASE [--batch N] [--length N] [--steps N] [--threads N] [--plugins DIR] \
                     [--pooling NAME] [--targets TOML] [--provider NAME] [--profile FILE]";
        Ok(self.0.first().filter(|a| !a.starts_with("--")).ok_or(usage)?.into())
    }

    fn option<'a>(&'a self, name: &str, default: &'a str) -> Result<&'a str> {
        match self.0.iter().position(|a| a == name) {
            Some(at) => Ok(self.0.get(at + 1).ok_or_else(|| format!("{name} needs a value"))?),
            None => Ok(default),
        }
    }

    fn number(&self, name: &str, default: &str) -> Result<usize> {
        let text = self.option(name, default)?;
        text.parse()
            .ok()
            .filter(|n| *n > 0)
            .ok_or_else(|| format!("{name} {text}: not a number above 0").into())
    }
}

fn main() -> Result<()> {
    let arguments = Arguments(std::env::args().skip(1).collect());
    let base = arguments.base()?;
    let (batch, length) = (arguments.number("--batch", "32")?, arguments.number("--length", "64")?);
    let steps = arguments.number("--steps", "20")?.next_multiple_of(BLOCK);
    let threads = arguments.number("--threads", "2")?;
    let plugins: Vec<PathBuf> = match arguments.option("--plugins", "")? {
        "" => Vec::new(),
        folder => vec![folder.into()],
    };
    let runtime = Runtime::start(&RuntimeOptions { threads: Some(threads), ..RuntimeOptions::default() })?;
    let scratch = tempfile::tempdir()?;
    let batches = scratch.path().join("batches.safetensors");
    // One block more in front: it warms up.
    write_batches(&batches, steps + BLOCK, batch, length)?;

    let mut flags = Layer::command_line();
    let out = scratch.path().join("adapter");
    for (name, path) in [("base", &base), ("batches", &batches), ("out", &out)] {
        flags.flag(name, &path.display().to_string())?;
    }
    for (name, value) in [("objective", "classification"), ("method", "lora"), ("epochs", "1")] {
        flags.flag(name, value)?;
    }
    flags.set(&format!("objective.pooling={}", arguments.option("--pooling", "pooled")?))?;
    flags
        .set(&format!("method.target_modules={}", arguments.option("--targets", r#"["query", "value"]"#)?))?;
    let provider = arguments.option("--provider", "cpu")?.parse()?;
    let options =
        SessionOptions { name: "step".into(), threads: Some(threads), provider, ..SessionOptions::default() };
    let profile = Some(arguments.option("--profile", "")?).filter(|p| !p.is_empty()).map(PathBuf::from);
    let with = Prepare {
        runtime,
        plugin_dirs: &plugins,
        options: SessionOptions { profile: profile.clone(), ..options.clone() },
    };
    let job = Job::prepare(Recipe::resolve(&[flags])?, &with)?;

    let forward = Forward::new(&job.base, &options, batch, length)?;
    let mut clock =
        Clock { forward, last: Instant::now(), warm: false, steps: Vec::new(), passes: Vec::new() };
    let outcome = job.run(&mut [&mut clock], &Interrupt::new())?;
    let (step, pass) = (times(&mut clock.steps), times(&mut clock.passes));
    if let Some(profile) = profile {
        eprintln!("{}", graft_runtime::profile::summary(&profile)?);
    }
    let ratio = number(&step, "median") / number(&pass, "median");
    println!(
        "{}",
        json!({
            "provider": options.provider.to_string(), "batch": batch, "length": length, "threads": threads,
            "steps": steps, "step_ms": step, "forward_ms": pass,
            "ratio": ratio, "trainable_parameters": outcome.trainable, "onnxruntime": runtime.version(),
        })
    );
    Ok(())
}

/// Writes `count` batches of token ids, masks without gaps and labels.
fn write_batches(path: &Path, count: usize, batch: usize, length: usize) -> Result<()> {
    let labels: Vec<i64> = (0..LABELS).cycle().take(batch).collect();
    let mut tensors = Vec::new();
    for step in 0..count {
        let ids = Tensor::new([batch, length], &ids(step, batch * length))?;
        tensors.push((format!("input_ids:{step}"), ids));
        tensors.push((
            format!("attention_mask:{step}"),
            Tensor::new([batch, length], &vec![1i64; batch * length])?,
        ));
        tensors.push((format!("labels:{step}"), Tensor::new([batch], &labels)?));
    }
    graft_adapters::write_tensors(path, tensors.iter().map(|(name, t)| (name.as_str(), t)))?;
    Ok(())
}

/// Token ids between 1000 and 21000, which every vocabulary of BERT's has, other ones in each step.
fn ids(step: usize, count: usize) -> Vec<i64> {
    (0..count).map(|i| 1000 + ((i + step * 7919) * 48_271 % 20_000) as i64).collect()
}

/// The base's own model file in a session of its own.
struct Forward {
    session: Session,
    inputs: Vec<(String, Tensor)>,
    outputs: Vec<String>,
}

impl Forward {
    fn new(base: &Base, options: &SessionOptions, batch: usize, length: usize) -> Result<Forward> {
        let source = SessionSource {
            proto: std::fs::read(&base.path)?,
            weights: None,
            external_dir: Some(base.dir.canonicalize()?),
        };
        let session = Session::new(
            base.runtime(),
            &source,
            &SessionOptions { name: "forward".into(), ..options.clone() },
        )?;
        let ids = Tensor::new([batch, length], &ids(0, batch * length))?;
        let given = |name: &str| (name == "input_ids").then(|| ids.clone());
        let mut inputs = base.imply_inputs(&given)?;
        inputs.push(("input_ids".into(), ids.clone()));
        let outputs = session.outputs().iter().map(|o| o.name.clone()).collect();
        Ok(Forward { session, inputs, outputs })
    }

    fn run(&mut self) -> Result<()> {
        let inputs: Vec<(&str, &Tensor)> = self.inputs.iter().map(|(n, t)| (n.as_str(), t)).collect();
        let outputs: Vec<&str> = self.outputs.iter().map(String::as_str).collect();
        self.session.run(&inputs, &outputs)?;
        Ok(())
    }
}

/// Takes the time between the loop's steps, and runs a block of forward passes after each block of steps.
struct Clock {
    forward: Forward,
    last: Instant,
    warm: bool,
    steps: Vec<f64>,
    passes: Vec<f64>,
}

impl Observer for Clock {
    fn observe(&mut self, event: &Event<'_>) -> std::result::Result<(), TrainError> {
        let Event::Step(record) = event else { return Ok(()) };
        self.steps.push(milliseconds(self.last));
        if (record.step as usize).is_multiple_of(BLOCK) {
            for _ in 0..BLOCK {
                let start = Instant::now();
                self.forward.run().map_err(|e| TrainError::Plan(e.to_string()))?;
                self.passes.push(milliseconds(start));
            }
            if !std::mem::replace(&mut self.warm, true) {
                self.steps.clear();
                self.passes.clear();
            }
        }
        self.last = Instant::now();
        Ok(())
    }
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// Median and minimum.
fn times(all: &mut [f64]) -> Value {
    all.sort_by(f64::total_cmp);
    json!({ "median": all.get(all.len() / 2), "min": all.first() })
}

fn number(of: &Value, key: &str) -> f64 {
    of[key].as_f64().unwrap_or(f64::NAN)
}
