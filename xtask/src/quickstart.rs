//! `cargo xtask quickstart`: from a clean clone to two trained adapters on one base that answer messages.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::SystemTime;

use crate::error::{Result, io};
use crate::fetch::{self, Fetched, ORT_DYLIB_PATH};
use crate::paths::Paths;
use crate::process::{self, cargo};
use crate::stamp::{Inputs, Stamp};
use crate::steps::{Outcome, Steps};

const BUILD: &str = "build graft and its plugins";

const MESSAGES: [&str; 3] = [
    "I was charged twice this month and nobody answers my mails. I want my money back!",
    "How do I export my tickets to a spreadsheet? No rush.",
    "The new search is wonderful, please thank the whole team!",
];

/// One adapter of the tour: a column of the data set and how it is trained.
struct Task {
    label: &'static str,
    method: &'static str,
    /// Options of `graft train`, separated by blanks.
    options: &'static str,
}

/// Two tasks on one base, by two methods.
const TASKS: [Task; 2] = [
    Task {
        label: "intent",
        method: "lora",
        options: "--epochs 12 --batch-size 16 --lr 2e-3 --set method.target_modules=all-linear",
    },
    Task { label: "sentiment", method: "linear-probe", options: "" },
];

/// Arguments of `quickstart`.
#[derive(clap::Args)]
pub struct Args {}

/// Runs the command.
///
/// # Errors
/// As [`fetch::fetch`]; when the build or a `graft` command fails.
pub fn run(paths: &Paths, _args: &Args) -> Result<ExitCode> {
    let mut steps = Steps::default();
    let fetched =
        steps.step("fetch the ONNX Runtime library and a checkpoint", || fetch::fetch(paths, false))?;
    steps.step(BUILD, || build(paths))?;

    let tour = Tour::new(paths, fetched)?;
    steps.step("import the checkpoint as an ONNX base", || tour.import())?;
    for task in &TASKS {
        let name = format!("train an adapter for {} ({})", task.label, task.method);
        steps.step(&name, || tour.train(task))?;
    }
    steps.step("evaluate both on messages not seen before", || {
        TASKS.iter().try_for_each(|task| tour.evaluate(task)).map(|()| ((), Outcome::Done))
    })?;
    steps.step("answer three messages with both", || tour.answer().map(|()| ((), Outcome::Done)))?;

    println!("\nWhat each step took:\n{steps}");
    println!("  after the build: {:.1} s\n", steps.after(BUILD).as_secs_f64());
    tour.print_next();
    Ok(ExitCode::SUCCESS)
}

/// Builds the binary and the plugins beside it. Tells that all was there when no output is newer than before.
fn build(paths: &Paths) -> Result<((), Outcome)> {
    let mut command = cargo();
    command.current_dir(&paths.root).args(["build", "--release", "-p", "graft"]);
    for package in paths.plugin_packages() {
        command.args(["-p", &package]);
    }
    let before = made_at(paths);
    process::run(&mut command)?;
    let fresh = before.is_empty() || made_at(paths) != before;
    Ok(((), if fresh { Outcome::Done } else { Outcome::Skipped }))
}

fn made_at(paths: &Paths) -> Vec<SystemTime> {
    binaries(paths).iter().filter_map(|f| fs::metadata(f).and_then(|m| m.modified()).ok()).collect()
}

/// The `graft` binary and the plugin libraries.
fn binaries(paths: &Paths) -> Vec<PathBuf> {
    let folder = paths.outputs("release");
    let library = |name: String| folder.join(format!("lib{}.so", name.replace('-', "_")));
    std::iter::once(folder.join("graft")).chain(paths.plugin_packages().into_iter().map(library)).collect()
}

/// The commands of the tour and the folder with what they make.
struct Tour<'a> {
    paths: &'a Paths,
    fetched: Fetched,
    graft: PathBuf,
    folder: PathBuf,
    data: PathBuf,
}

impl Tour<'_> {
    fn new(paths: &Paths, fetched: Fetched) -> Result<Tour<'_>> {
        let folder = paths.cache.join("quickstart");
        fs::create_dir_all(&folder).map_err(io("cannot make the folder", &folder))?;
        let graft = paths.outputs("release").join("graft");
        Ok(Tour { paths, fetched, graft, folder, data: paths.root.join("examples/helpdesk") })
    }

    /// Where the base lies. Like all paths here it is relative to the workspace, if it is in it, so that the commands
    /// shown can be typed as they stand.
    fn base(&self) -> PathBuf {
        self.paths.relative(&self.folder.join("base"))
    }

    fn adapter(&self, task: &Task) -> PathBuf {
        self.paths.relative(&self.folder.join(task.label))
    }

    fn data(&self, file: &str) -> PathBuf {
        self.paths.relative(&self.data.join(file))
    }

    fn import(&self) -> Result<((), Outcome)> {
        let stamp = self.inputs()?.text("import").stamp(&self.folder.join("base"));
        let mut command = self.graft("model");
        command.arg("import").arg(self.paths.relative(&self.fetched.minilm)).arg(self.base());
        make(&stamp, &mut command)
    }

    fn train(&self, task: &Task) -> Result<((), Outcome)> {
        let mut command = self.graft("train");
        command.arg("--base").arg(self.base());
        command.args(["--objective", "classification", "--method", task.method]);
        command.arg("--data").arg(self.data("train.csv"));
        command.args(["--text", "text", "--label", task.label, "--eval-split", "0.1"]);
        command.args(task.options.split_whitespace()).arg("--out").arg(self.adapter(task));
        let inputs = self.inputs()?.text(&process::shown(&command)).file(&self.data.join("train.csv"))?;
        make(&inputs.stamp(&self.folder.join(task.label)), &mut command)
    }

    fn evaluate(&self, task: &Task) -> Result<()> {
        let mut command = self.graft("eval");
        command.arg("--base").arg(self.base()).arg("--adapter").arg(self.adapter(task));
        command.arg("--data").arg(self.data("test.csv")).args(["--text", "text", "--label", task.label]);
        show_and_run(&mut command)
    }

    fn answer(&self) -> Result<()> {
        let mut command = self.graft("predict");
        command.arg("--base").arg(self.base());
        for task in &TASKS {
            command.arg("--adapter").arg(self.adapter(task));
        }
        show_and_run(command.args(MESSAGES))
    }

    /// What every output depends on: the program, its plugins and the checkpoint.
    fn inputs(&self) -> Result<Inputs> {
        let checkpoint = self.fetched.minilm.join("model.safetensors");
        binaries(self.paths)
            .iter()
            .chain([&checkpoint])
            .try_fold(Inputs::new(), |inputs, file| inputs.file(file))
    }

    fn graft(&self, name: &str) -> Command {
        let mut command = Command::new(&self.graft);
        command.current_dir(&self.paths.root).env(ORT_DYLIB_PATH, &self.fetched.library).arg(name);
        command
    }

    fn print_next(&self) {
        let graft = self.paths.relative(&self.graft);
        let [first, second] = TASKS.each_ref().map(|task| self.adapter(task));
        let (graft, base, data) = (graft.display(), self.base(), self.data("train.csv"));
        let (base, data, first, second) = (base.display(), data.display(), first.display(), second.display());
        println!("What to try next:");
        println!("  {graft} predict --base {base} --adapter {first} --adapter {second} \"your own message\"");
        println!("  {graft} train --base {base} --objective classification --method lora \\");
        println!("      --data {data} --text text --label urgency --eval-split 0.1 --out urgency");
        println!("  {graft} inspect {base}");
        println!("  {graft} plugins list");
        println!("  {graft} doctor");
    }
}

/// Runs the command unless what it makes is there already.
fn make(stamp: &Stamp, command: &mut Command) -> Result<((), Outcome)> {
    if stamp.holds() {
        return Ok(((), Outcome::Skipped));
    }
    stamp.clear()?;
    show_and_run(command)?;
    stamp.set()?;
    Ok(((), Outcome::Done))
}

fn show_and_run(command: &mut Command) -> Result<()> {
    eprintln!("$ {}", process::shown(command));
    process::run(command)
}
