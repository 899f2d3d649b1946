//! One module a command.

mod adapters;
mod answers;
mod bench;
mod doctor;
mod export;
mod grad;
mod inspect;
mod model;
mod plugins;
mod run;
mod serve;
mod sweep;
mod train;

use clap::Subcommand;

pub use inspect::sites::patterns;

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    Train(train::Args),
    Sweep(sweep::Args),
    Eval(answers::EvalArgs),
    Predict(answers::PredictArgs),
    Serve(serve::Args),
    Bench(bench::Args),
    Run(run::Args),
    /// Compute the gradient of any ONNX model, and save it as a model
    Grad(grad::Args),
    Model(model::Args),
    Inspect(inspect::Args),
    Export(export::ExportArgs),
    Merge(export::MergeArgs),
    Adapters(adapters::Args),
    Plugins(plugins::Args),
    Doctor(doctor::Args),
}

impl Command {
    /// Does it.
    pub fn run(self) -> anyhow::Result<()> {
        match self {
            Command::Train(args) => train::run(args),
            Command::Sweep(args) => sweep::run(args),
            Command::Eval(args) => answers::eval(args),
            Command::Predict(args) => answers::predict(args),
            Command::Serve(args) => serve::run(args),
            Command::Bench(args) => bench::run(args),
            Command::Run(args) => run::run(args),
            Command::Grad(args) => grad::run(args),
            Command::Model(args) => model::run(args),
            Command::Inspect(args) => inspect::run(args),
            Command::Export(args) => export::run_export(args),
            Command::Merge(args) => export::run_merge(args),
            Command::Adapters(args) => adapters::run(args),
            Command::Plugins(args) => plugins::run(args),
            Command::Doctor(args) => doctor::run(args),
        }
    }
}
