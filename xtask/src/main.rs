//! `cargo xtask`: the chores of this repository. One module per command; this file only reads arguments.

mod bench;
mod error;
mod fetch;
mod paths;
mod process;
mod quickstart;
mod release_api;
mod stamp;
mod steps;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::error::Result;
use crate::paths::Paths;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The chores of this repository")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Bring the ONNX Runtime library and the checkpoint all-MiniLM-L6-v2 into the cache folder
    Fetch(fetch::Args),
    /// From a clean clone to two trained adapters that answer messages
    Quickstart(quickstart::Args),
    /// Everything that a clean clone needs to pass its tests, and the tests
    Test(test::Args),
    /// How fast and how good, beside Hugging Face PEFT: Markdown for docs/benchmarks.md
    Bench(bench::Args),
    /// At a release of the plugin API: keep it for the tests of later hosts
    ReleaseApi,
}

fn run(cli: Cli) -> Result<ExitCode> {
    let paths = Paths::from_process()?;
    match cli.command {
        Command::Fetch(args) => fetch::run(&paths, &args),
        Command::Quickstart(args) => quickstart::run(&paths, &args),
        Command::Test(args) => test::run(&paths, &args),
        Command::Bench(args) => bench::run(&paths, &args),
        Command::ReleaseApi => release_api::run(&paths).map(|()| ExitCode::SUCCESS),
    }
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
