//! `cargo xtask test`: everything that a clean clone needs to pass its tests, and the tests.

use std::process::{Command, ExitCode};

use clap::ValueEnum;

use crate::error::Result;
use crate::fetch::{self, Fetched, GRAFT_CLIENTS, GRAFT_MINILM, ORT_DYLIB_PATH};
use crate::paths::Paths;
use crate::process::{self, cargo};
use crate::steps::{Outcome, Steps};

/// Tests whose name, without its modules, begins so run on the provider that `GRAFT_TEST_PROVIDER` names.
const PROVIDER_TESTS: &str = "test(/(^|::)provider_/)";
/// The package whose plugins misbehave, for tests of the host.
const MISBEHAVING: &str = "graft-misbehaving";
const GRAFT_TEST_PROVIDER: &str = "GRAFT_TEST_PROVIDER";

/// Arguments of `test`.
#[derive(clap::Args)]
pub struct Args {
    /// Run the tests that depend on the execution provider, on this one
    #[arg(long, value_enum)]
    provider: Option<Provider>,
    /// Further arguments for `cargo nextest run`: a filter, `-p graft-graph`, `--profile ci`, `--no-capture` …
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Provider {
    Cpu,
    Cuda,
    Tensorrt,
}

impl Provider {
    fn name(self) -> &'static str {
        match self {
            Provider::Cpu => "cpu",
            Provider::Cuda => "cuda",
            Provider::Tensorrt => "tensorrt",
        }
    }
}

/// Runs the command. The last line printed is "N passed, N failed", and a failure is in the exit code.
///
/// # Errors
/// As [`fetch::fetch`]; when the build fails.
pub fn run(paths: &Paths, args: &Args) -> Result<ExitCode> {
    let mut steps = Steps::default();
    let gpu = args.provider.is_some_and(|p| p != Provider::Cpu);
    let fetched = steps.step("fetch", || fetch::fetch(paths, gpu))?;
    // Tests of a provider need neither clients of servers nor a browser.
    let all = args.provider.is_none();
    let clients = if all { steps.step("clients", || fetch::clients(paths))? } else { None };
    steps.step("nextest", || install_nextest(paths))?;
    if all {
        steps.step("chromium", || Ok(((), install_browser())))?;
    }
    steps.step("build the plugins", || build_plugins(paths).map(|()| ((), Outcome::Done)))?;

    let mut counts = Counts::default();
    let mut failed = Vec::new();
    let mut suite = |steps: &mut Steps, name: &str, mut command: Command| -> Result<()> {
        prepare(&mut command, paths, &fetched, args.provider);
        if let Some(python) = &clients {
            command.env(GRAFT_CLIENTS, python);
        }
        let line = process::shown(&command);
        steps.step(name, || {
            if !process::run_watched(&mut command, |line| counts.read(line))? {
                failed.push(line);
            }
            Ok(((), Outcome::Done))
        })
    };
    if args.provider.is_none() && args.rest.is_empty() {
        let mut docs = cargo();
        docs.args(["test", "--quiet", "--workspace", "--doc"]);
        suite(&mut steps, "documentation tests", docs)?;
    }
    let mut tests = cargo();
    tests.args(["nextest", "run"]);
    if !chooses_packages(&args.rest) {
        tests.arg("--workspace");
    }
    if args.provider.is_some() {
        tests.args(["-E", PROVIDER_TESTS]);
    }
    tests.args(&args.rest);
    suite(&mut steps, "tests", tests)?;

    println!("\n{steps}\n");
    for command in &failed {
        println!("failed: {command}");
    }
    println!("{} passed, {} failed", counts.passed, counts.failed);
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn prepare(command: &mut Command, paths: &Paths, fetched: &Fetched, provider: Option<Provider>) {
    command.current_dir(&paths.root).env(ORT_DYLIB_PATH, &fetched.library).env(GRAFT_MINILM, &fetched.minilm);
    // The summaries are read, and colours would stand in between.
    command.env("CARGO_TERM_COLOR", "never");
    if let Some(provider) = provider {
        command.env(GRAFT_TEST_PROVIDER, provider.name());
    }
}

/// Builds the binary and the plugins that tests use from their files, which is a dependency that cargo does not know of.
/// The packages are the ones that such a test asks cargo for, so that it finds them built.
fn build_plugins(paths: &Paths) -> Result<()> {
    let mut build = cargo();
    build.current_dir(&paths.root).args([
        "build",
        "--lib",
        "--bins",
        "--examples",
        "-p",
        "graft",
        "-p",
        MISBEHAVING,
    ]);
    for package in paths.plugin_packages() {
        build.args(["-p", &package]);
    }
    process::run(&mut build)
}

/// Whether arguments for nextest name packages; together with `--workspace` they would have no effect.
fn chooses_packages(args: &[String]) -> bool {
    args.iter().any(|a| a.starts_with("-p") || a.starts_with("--package") || a == "--workspace")
}

fn install_nextest(paths: &Paths) -> Result<((), Outcome)> {
    let mut ask = cargo();
    ask.args(["nextest", "--version"]);
    if ask.output().is_ok_and(|out| out.status.success()) {
        return Ok(((), Outcome::Skipped));
    }
    eprintln!("cargo-nextest is not installed; building it takes some minutes, once");
    let mut install = cargo();
    install.current_dir(&paths.root).args(["install", "cargo-nextest", "--locked"]);
    process::run(&mut install).map(|()| ((), Outcome::Done))
}

/// The browser for tests of the console: Debian's, where this is Debian and we may install it. Without one those tests say
/// that they are skipped, and fail on a build server.
fn install_browser() -> Outcome {
    let works = |program: &str, args: &[&str]| {
        Command::new(program).args(args).output().is_ok_and(|o| o.status.success())
    };
    if ["chromium", "chromium-browser", "google-chrome"].iter().any(|b| works(b, &["--version"])) {
        return Outcome::Skipped;
    }
    let mut install = Command::new("apt-get");
    install.env("DEBIAN_FRONTEND", "noninteractive");
    install.args(["install", "--yes", "--quiet", "--no-install-recommends", "chromium"]);
    // Lists that are old or were never fetched name packages that are not there.
    let root = Command::new("id").arg("-u").output().is_ok_and(|o| o.stdout.trim_ascii() == b"0");
    if root && works("apt-get", &["update", "--quiet"]) && process::run(&mut install).is_ok() {
        return Outcome::Done;
    }
    eprintln!("there is no chromium, and it can't be installed here: tests of the console need it");
    Outcome::Skipped
}

/// Passed and failed tests, read from the summary lines of nextest and of rustdoc's tests.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: u64,
    failed: u64,
}

impl Counts {
    fn read(&mut self, line: &str) {
        // Further in stands what a test has printed that failed.
        let summary = line.trim_start().starts_with("Summary [") || line.starts_with("test result:");
        if summary {
            self.passed += number_before(line, "passed");
            self.failed += number_before(line, "failed") + number_before(line, "timed out");
        }
    }
}

/// The number in front of `word`, as in "12 passed"; 0 if there is none.
fn number_before(line: &str, word: &str) -> u64 {
    let Some(at) = line.find(&format!(" {word}")) else { return 0 };
    line[..at].rsplit(|c: char| !c.is_ascii_digit()).next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_that_name_packages_are_told_from_others() {
        let chooses =
            |args: &[&str]| chooses_packages(&args.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>());
        assert!(
            chooses(&["-p", "graft-graph"]) && chooses(&["--package=graft-graph"]) && chooses(&["-pxtask"])
        );
        assert!(!chooses(&["--profile", "ci", "reshape"]) && !chooses(&[]));
    }

    #[test]
    fn summaries_of_both_runners_are_counted() {
        let mut counts = Counts::default();
        counts.read(
            "     Summary [   8.171s] 31 tests run: 29 passed (1 slow), 1 failed, 1 timed out, 4 skipped\n",
        );
        counts.read("test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; finished in 0.1s\n");
        counts.read("    test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; finished in 0.3s\n");
        counts.read("        PASS [   0.011s] graft-graph a_test_that_says_7 passed\n");
        assert_eq!(counts, Counts { passed: 34, failed: 2 });
    }
}
