//! The `graft` binary: arguments in, words and tables out.

mod answer;
mod chosen;
mod commands;
mod common;
mod table;

use std::process::ExitCode;

use clap::Parser;

/// Fine-tunes and serves adapters on ONNX base models.
#[derive(Parser)]
#[command(name = "graft", version, max_term_width = 110, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: commands::Command,
}

fn main() -> ExitCode {
    common::started();
    let cli = Cli::parse();
    if !matches!(cli.command, commands::Command::Serve(_)) {
        common::start_logging();
    }
    match cli.command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            common::report(&e);
            ExitCode::FAILURE
        }
    }
}
