//! `cargo xtask bench`: how fast and how good, beside what people would use instead.
//!
//! Every command prints Markdown for `docs/benchmarks.md`, with its own command line and the machine, and appends what
//! it read to a file of JSON lines in the folder `bench` of cargo's outputs. Nothing is asserted here.

mod figures;
mod machine;
mod memory;
mod methods;
mod peers;
mod probe;
mod serve;
mod step;
mod table;
mod tasks;
mod train;
mod trec;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use serde_json::{Map, Value, json};

use self::trec::Trec;
use crate::error::{Error, Result, io};
use crate::fetch::{self, Fetched, ORT_DYLIB_PATH};
use crate::paths::Paths;
use crate::process::{self, cargo};
use crate::stamp::{self, Inputs};

/// Arguments of `bench`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    common: Common,
}

/// What a measured program prints at its end, by name.
type Figures = Map<String, Value>;

/// What every measurement takes.
#[derive(clap::Args)]
struct Common {
    /// Threads, on both sides
    #[arg(long, global = true, default_value_t = 2, value_name = "N")]
    threads: usize,
    /// Use only so many rows of each data file: to try the command, not to measure
    #[arg(long, global = true, value_name = "N")]
    rows: Option<usize>,
}

#[derive(clap::Subcommand)]
enum What {
    /// LoRA on TREC: accuracy, samples per second, peak memory, seconds to the first step
    Train(train::Options),
    /// Every method on TREC: accuracy, speed, memory, trained numbers, size
    Methods(methods::Options),
    /// Tasks of every kind on real data: accuracy, F1, correlation, error; speed and memory
    Tasks(tasks::Options),
    /// A linear probe on TREC: seconds from the command to the saved adapter
    Probe(probe::Options),
    /// One training step at identical padded batches, beside ONNX Runtime's own forward pass
    Step(step::Options),
    /// What a further session over the same base costs, and the peak of a LoRA run
    Memory(memory::Options),
    /// `graft serve`: throughput with many adapters, memory, what HTTP costs, mixed lengths, loading, starting
    Serve(serve::Options),
    /// Seconds from the command to the end of the first training step
    Startup(train::StartupOptions),
    /// The same with Hugging Face PEFT on PyTorch, in turn with Graft if asked for
    Peers(peers::Options),
}

/// Runs the command.
///
/// # Errors
/// As [`fetch::fetch`]; [`Error::Shared`] without the shared data; when the build or a measured program fails.
pub fn run(paths: &Paths, args: &Args) -> Result<ExitCode> {
    let gpu = match &args.what {
        What::Step(options) => options.provider != "cpu",
        What::Peers(options) => options.provider != "cpu",
        _ => false,
    };
    let bench = Bench::new(paths, &args.common, gpu)?;
    let report = match &args.what {
        What::Train(options) => train::run(&bench, options)?,
        What::Methods(options) => methods::run(&bench, options)?,
        What::Tasks(options) => tasks::run(&bench, options)?,
        What::Probe(options) => probe::run(&bench, options)?,
        What::Step(options) => step::run(&bench, options)?,
        What::Memory(options) => memory::run(&bench, options)?,
        What::Serve(options) => serve::run(&bench, options)?,
        What::Startup(options) => train::startup(&bench, options)?,
        What::Peers(options) => peers::run(&bench, options)?,
    };
    let line: Vec<String> = std::env::args().skip(1).collect();
    println!("\n```console\n$ cargo xtask {}\n```\n", line.join(" "));
    println!("{}\n{report}", machine::describe(&bench));
    println!("Raw figures: {}", bench.paths.relative(&bench.folder).join("*.jsonl").display());
    Ok(ExitCode::SUCCESS)
}

/// What the measurements share: a release build, the base, the data, a folder.
struct Bench<'a> {
    paths: &'a Paths,
    fetched: Fetched,
    folder: PathBuf,
    threads: usize,
    rows: Option<usize>,
    trec: Trec,
}

impl Bench<'_> {
    fn new<'a>(paths: &'a Paths, common: &Common, gpu: bool) -> Result<Bench<'a>> {
        let folder = paths.outputs("bench");
        fs::create_dir_all(&folder).map_err(io("cannot make the folder", &folder))?;
        let trec = trec::prepare(paths, &folder, common.rows)?;
        let (fetched, _) = fetch::fetch(paths, gpu)?;
        let bench = Bench { paths, fetched, folder, threads: common.threads, rows: common.rows, trec };
        bench.build()?;
        bench.import()?;
        Ok(bench)
    }

    fn build(&self) -> Result<()> {
        let mut command = cargo();
        command.current_dir(&self.paths.root).args(["build", "--release", "-p", "graft"]);
        for package in self.paths.plugin_packages() {
            command.args(["-p", &package]);
        }
        process::run(&mut command)
    }

    /// Makes the base from the checkpoint, unless it is there.
    fn import(&self) -> Result<()> {
        let checkpoint = self.fetched.minilm.join("model.safetensors");
        let made_of = Inputs::new().file(&self.paths.outputs("release").join("graft"))?.file(&checkpoint)?;
        let stamp = made_of.stamp(&self.base());
        if stamp.holds() {
            return Ok(());
        }
        stamp.clear()?;
        let mut command = self.graft("model");
        process::run(command.arg("import").arg(&self.fetched.minilm).arg(self.base()))?;
        stamp.set()
    }

    fn base(&self) -> PathBuf {
        self.folder.join("minilm")
    }

    /// `graft NAME`, of the release build.
    fn graft(&self, name: &str) -> Command {
        let mut command = Command::new(self.paths.outputs("release").join("graft"));
        command.current_dir(&self.paths.root).env(ORT_DYLIB_PATH, &self.fetched.library).arg(name);
        command
    }

    /// `graft train` on TREC with this method; the rest of the recipe is up to the caller.
    fn graft_train(&self, method: &str, adapter: &str) -> Result<Command> {
        let out = self.folder.join("adapters").join(adapter);
        stamp::remove(&out).map_err(io("cannot remove", &out))?;
        let mut command = self.graft("train");
        let path = |p: &Path| self.paths.relative(p);
        command.arg("--base").arg(path(&self.base())).args([
            "--objective",
            "classification",
            "--method",
            method,
        ]);
        command.arg("--data").arg(path(&self.trec.train)).arg("--test-data").arg(path(&self.trec.test));
        command.args(["--text", "text", "--label", "label", "--threads", &self.threads.to_string()]);
        command.arg("--out").arg(path(&out)).arg("--json");
        Ok(command)
    }

    /// An example of the package `graft-train`, in release mode, with the arguments still to be added.
    fn example(&self, name: &str) -> Command {
        let mut command = cargo();
        command.current_dir(&self.paths.root).env(ORT_DYLIB_PATH, &self.fetched.library);
        command.args(["run", "--release", "--quiet", "-p", "graft-train", "--example", name, "--"]);
        command.arg(self.paths.relative(&self.base()));
        command
    }

    /// Runs a measured program and reads the JSON object that it prints last.
    fn measure(&self, what: &str, command: &mut Command) -> Result<Figures> {
        self.measured(what, command, figures::json_object)
    }

    /// Runs a measured program, reads its figures and notes them in the file of `what`.
    fn measured(
        &self,
        what: &str,
        command: &mut Command,
        read: fn(&str) -> Option<Figures>,
    ) -> Result<Figures> {
        let line = process::shown(command);
        let printed = output(command)?;
        let found = read(&printed).ok_or_else(|| Error::Figures { command: line.clone(), printed })?;
        self.note(what, &line, &found)?;
        Ok(found)
    }

    /// Appends figures to the file of `what`.
    fn note(&self, what: &str, command: &str, figures: &Figures) -> Result<()> {
        let file = self.folder.join(format!("{what}.jsonl"));
        let now =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let record =
            json!({ "unix_time": now, "threads": self.threads, "command": command, "figures": figures });
        let open = OpenOptions::new().create(true).append(true).open(&file);
        open.and_then(|mut f| writeln!(f, "{record}")).map_err(io("cannot write", &file))
    }
}

/// Runs a program with its messages shown, and returns what it prints on standard output.
fn output(command: &mut Command) -> Result<String> {
    eprintln!("\n$ {}", process::shown(command));
    let program = command.get_program().to_string_lossy().into_owned();
    let out = command.stderr(Stdio::inherit()).output().map_err(|source| Error::Start { program, source })?;
    if !out.status.success() {
        return Err(Error::Failed { command: process::shown(command), status: out.status.to_string() });
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// The median of these figures.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        n if n % 2 == 0 => Some((values[middle - 1] + values[middle]) / 2.0),
        _ => Some(values[middle]),
    }
}

/// How far the mean of these figures is from what it would be of endless ones: their standard deviation over the root of
/// their number. `None` for fewer than two.
fn standard_error(values: &[f64]) -> Option<f64> {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    (values.len() > 1).then(|| (squares / (n - 1.0) / n).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_of_a_mean_shrinks_with_the_root_of_the_number() {
        // Standard deviations of 1 and 1.155, over the roots of 3 and 4.
        assert!((standard_error(&[1.0, 2.0, 3.0]).unwrap() - 0.57735).abs() < 1e-5);
        assert!((standard_error(&[1.0, 3.0, 1.0, 3.0]).unwrap() - 0.57735).abs() < 1e-5);
        assert_eq!((standard_error(&[]), standard_error(&[1.0])), (None, None));
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!(median(vec![9.0, 1.0, 2.0, 4.0]), Some(3.0));
        assert_eq!(median(vec![9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(Vec::new()), None);
    }

    #[test]
    fn the_commands_have_no_contradicting_arguments() {
        <Args as clap::Args>::augment_args(clap::Command::new("bench")).debug_assert();
    }

    #[test]
    fn a_program_that_fails_is_an_error_and_its_output_is_returned_otherwise() {
        assert_eq!(output(Command::new("echo").arg("{}")).unwrap(), "{}\n");
        assert!(matches!(output(&mut Command::new("false")), Err(Error::Failed { .. })));
    }
}
