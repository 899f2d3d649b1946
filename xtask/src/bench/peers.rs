//! The same tasks with Hugging Face PEFT on PyTorch.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use super::figures::{self, GRAFT, Group, PEFT, Run};
use super::table::{Table, number};
use super::train::{self, Sites};
use super::{Bench, Figures, machine, step, trec};
use crate::error::{Error, Result, io};
use crate::process;
use crate::stamp::write_atomic;

const STEP: (&str, &str) = ("step.py", include_str!("peers/step.py"));
const STARTUP: (&str, &str) = ("startup.py", include_str!("peers/startup.py"));
const DORA: (&str, &str) = ("dora.py", include_str!("peers/dora.py"));
const PROBE: (&str, &str) = ("probe.py", include_str!("peers/probe.py"));

/// Prints the versions that figures depend on, in a line.
const VERSIONS: &str = r#"
import importlib.metadata, platform
names = ["torch", "transformers", "peft", "scikit-learn"]
print(", ".join(["Python " + platform.python_version()] + [n + " " + importlib.metadata.version(n) for n in names]))
"#;

/// What the peer's script prints when its first step is done.
const FIRST_STEP: &str = "FIRST STEP";

/// A part of the comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Train,
    Step,
    Startup,
    Probe,
}

/// What is compared, and with what.
#[derive(clap::Args)]
pub struct Options {
    /// The Python environment that the shared script `peers/setup.sh` makes
    #[arg(long, value_name = "DIR")]
    venv: PathBuf,
    /// Parts of the comparison
    #[arg(long, value_enum, value_delimiter = ',', default_value = "train,step,startup,probe")]
    parts: Vec<Part>,
    /// Run Graft in turn with each run of the other side
    #[arg(long)]
    alternate: bool,
    /// Steps that are timed in the part `step`
    #[arg(long, default_value_t = 20)]
    steps: usize,
    /// Where the steps of both sides run: cpu or cuda
    #[arg(long, default_value = "cpu")]
    pub provider: String,
    #[command(flatten)]
    train: train::Options,
}

/// Measures the parts.
///
/// # Errors
/// [`Error::Shared`] without the peers' scripts; when a run fails.
pub fn run(bench: &Bench<'_>, options: &Options) -> Result<String> {
    let peer = Peer::new(bench, &options.venv, options.alternate)?;
    let mut report = format!("- {}\n", peer.versions());
    for part in &options.parts {
        let text = match part {
            Part::Train => peer.train(&options.train)?,
            Part::Step => peer.step(&options.train.sites, options.steps, &options.provider)?,
            Part::Startup => peer.startup()?,
            Part::Probe => peer.probe()?,
        };
        report.push('\n');
        report.push_str(&text);
    }
    Ok(report)
}

/// The other side.
pub(super) struct Peer<'a> {
    bench: &'a Bench<'a>,
    python: PathBuf,
    script: PathBuf,
    alternate: bool,
}

impl<'a> Peer<'a> {
    /// The environment in the folder `venv`.
    ///
    /// # Errors
    /// [`Error::Shared`] without the peers' scripts.
    pub(super) fn new(bench: &'a Bench<'a>, venv: &Path, alternate: bool) -> Result<Peer<'a>> {
        // A Python environment is found by its place, so the path must not be resolved through links.
        let python = std::path::absolute(venv.join("bin/python")).map_err(io("cannot find", venv))?;
        let script = trec::shared(bench.paths).join("peers/peft_train.py");
        if !script.is_file() {
            return Err(Error::Shared { path: script });
        }
        Ok(Peer { bench, python, script, alternate })
    }

    /// The shared script, which trains with `method` as it calls it; `dora` stands for DoRA on all linear sites.
    ///
    /// # Errors
    /// When the run fails or prints no figures.
    pub(super) fn trained(&self, method: &str, seed: u64, grouped: bool, epochs: usize) -> Result<Figures> {
        self.trained_on((&self.bench.trec.train, &self.bench.trec.test), method, seed, grouped, epochs)
    }

    /// The same on other data: files to train and to test on.
    ///
    /// # Errors
    /// When the run fails or prints no figures.
    pub(super) fn trained_on(
        &self,
        data: (&Path, &Path),
        method: &str,
        seed: u64,
        grouped: bool,
        epochs: usize,
    ) -> Result<Figures> {
        let (mut command, method) = match method {
            "dora" => {
                let mut command = self.ours(DORA)?;
                command.arg(&self.script);
                (command, "lora_all")
            }
            other => (self.python(&self.script), other),
        };
        self.recipe(&mut command, data, method, epochs);
        command.args(grouped.then_some("--group")).args(["--seed", &seed.to_string()]);
        self.bench.measured("peers", &mut command, figures::result_line)
    }

    /// The environment's Python with `script`, without the network.
    fn python(&self, script: &Path) -> Command {
        let mut command = Command::new(&self.python);
        command.current_dir(&self.bench.paths.root).arg(script);
        command.env("HF_HUB_OFFLINE", "1").env("TOKENIZERS_PARALLELISM", "false");
        command
    }

    /// A script of ours, written to the folder of measurements.
    pub(super) fn ours(&self, (name, text): (&str, &str)) -> Result<Command> {
        let file = self.bench.folder.join(name);
        write_atomic(&file, text.as_bytes()).map_err(io("cannot write", &file))?;
        Ok(self.python(&file))
    }

    /// The shared script that answers rows with an adapter each.
    pub(super) fn serving(&self, adapters: usize, rows: usize, tokens: usize) -> Command {
        let mut command = self.python(&self.script.with_file_name("peft_serve.py"));
        command.arg(&self.bench.fetched.minilm).args([adapters, rows, tokens].map(|n| n.to_string()));
        command
    }

    pub(super) fn versions(&self) -> String {
        let mut command = Command::new(&self.python);
        machine::said(command.args(["-c", VERSIONS])).trim().to_owned()
    }

    /// The arguments of the shared script, which takes two threads whatever it is asked for.
    fn recipe(&self, command: &mut Command, (train, test): (&Path, &Path), method: &str, epochs: usize) {
        command.arg(&self.bench.fetched.minilm).args([train, test]).args([method, &epochs.to_string()]);
    }

    fn train(&self, options: &train::Options) -> Result<String> {
        let mut runs = Vec::new();
        for seed in &options.seeds {
            for sites in &options.sites {
                for grouped in [false, true] {
                    if self.alternate {
                        runs.push(train::one(self.bench, *sites, *seed, options)?);
                    }
                    runs.push(self.train_once(*sites, *seed, grouped, options.epochs)?);
                }
            }
        }
        let comparison = figures::comparison(&runs, "sites");
        let table = figures::by_group(&runs);
        Ok(if comparison.is_empty() { table.to_string() } else { format!("{table}\n{comparison}") })
    }

    fn train_once(&self, sites: Sites, seed: u64, grouped: bool, epochs: usize) -> Result<Run> {
        let found = self.trained(sites.peer(), seed, grouped, epochs)?;
        self.run_of(&found, sites.name(), seed, grouped)
    }

    /// The run that these figures tell of.
    pub(super) fn run_of(
        &self,
        found: &Figures,
        sites: &'static str,
        seed: u64,
        grouped: bool,
    ) -> Result<Run> {
        let batches = if grouped { "of similar length" } else { "random" };
        Run::of_peer(Group { side: PEFT, sites, batches }, seed, found).ok_or_else(|| Error::Figures {
            command: self.script.display().to_string(),
            printed: format!("{found:?}"),
        })
    }

    fn step(&self, all: &[Sites], steps: usize, provider: &str) -> Result<String> {
        let provider = provider.to_owned();
        let options = step::Options { batch: 32, length: 64, steps, provider, sites: all.to_vec() };
        let mut rows = Vec::new();
        for sites in all {
            if self.alternate {
                rows.push((GRAFT, *sites, step::one(self.bench, *sites, &options)?));
            }
            let mut command = self.ours(STEP)?;
            command.arg(&self.bench.fetched.minilm).arg(sites.peer());
            command.args(
                [options.batch, options.length, options.steps, self.bench.threads].map(|n| n.to_string()),
            );
            command.arg(&options.provider);
            let found = self.bench.measured("step", &mut command, figures::result_line)?;
            rows.push((PEFT, *sites, step::Times::of_peer(&found)));
        }
        Ok(step::table(&rows).to_string())
    }

    fn startup(&self) -> Result<String> {
        let mut seconds = Vec::new();
        for _ in 0..3 {
            let mut command = self.ours(STARTUP)?;
            command.arg(&self.script);
            let data = (&*self.bench.trec.train, &*self.bench.trec.test);
            self.recipe(&mut command, data, Sites::Qv.peer(), 1);
            let line = process::shown(&command);
            eprintln!("\n$ {line}");
            let start = Instant::now();
            let mut first = None;
            let good = process::run_watched(&mut command, |printed| {
                if printed.trim() == FIRST_STEP {
                    first = Some(start.elapsed().as_secs_f64());
                }
            })?;
            let taken = first.filter(|_| good).ok_or_else(|| Error::Figures {
                command: line.clone(),
                printed: "what stands above".into(),
            })?;
            let figures = serde_json::Map::from_iter([("seconds_to_first_step".to_owned(), taken.into())]);
            self.bench.note("startup", &line, &figures)?;
            seconds.push(taken);
        }
        Ok(train::startup_table(&[(PEFT, seconds)]).to_string())
    }

    fn probe(&self) -> Result<String> {
        let mut command = self.ours(PROBE)?;
        command.arg(&self.bench.fetched.minilm).args([&self.bench.trec.train, &self.bench.trec.test]);
        command.arg(self.bench.threads.to_string());
        let start = Instant::now();
        let found = self.bench.measured("probe", &mut command, figures::result_line)?;
        let seconds = start.elapsed().as_secs_f64();
        let mut table = Table::new(["side", "command to fitted probe, s", "accuracy, %"]);
        let accuracy = found.get("acc").and_then(serde_json::Value::as_f64);
        table.row([
            "PyTorch and scikit-learn".into(),
            number(Some(seconds), 1),
            number(accuracy.map(|a| 100.0 * a), 1),
        ]);
        Ok(table.to_string())
    }
}
