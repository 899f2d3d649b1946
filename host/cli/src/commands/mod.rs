//! One module a command.

mod grad;

use clap::Subcommand;

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    /// Compute the gradient of any ONNX model, and save it as a model
    Grad(grad::Args),
}

impl Command {
    /// Does it.
    pub fn run(self) -> anyhow::Result<()> {
        match self {
            Command::Grad(args) => grad::run(args),
        }
    }
}
