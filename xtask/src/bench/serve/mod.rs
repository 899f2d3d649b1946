//! `graft serve`: many adapters in one batch, many in memory, what HTTP costs, mixed lengths, loading, starting.

mod adapters;
mod bare;
mod batches;
mod http;
mod lengths;
mod loading;
mod residents;
mod server;

use std::path::PathBuf;

use super::Bench;
use super::peers::Peer;
use crate::error::Result;

/// A part of the measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// 32 rows with 32 adapters beside the base alone, and the same by PEFT where a Python environment is given
    Batches,
    /// From one adapter in memory to thousands
    Residents,
    /// What HTTP costs
    Http,
    /// Short and long texts
    Lengths,
    /// Loading adapters into the running server
    Loading,
    /// From the start of the process to the first answer
    Start,
}

/// Which parts, how long.
#[derive(clap::Args)]
pub struct Options {
    /// Parts to measure instead of all
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Seconds of each run of requests
    #[arg(long, default_value_t = 20.0)]
    seconds: f64,
    /// How often new processes are made where two sides take turns, of batches and of what HTTP costs; the seconds are
    /// shared among them
    #[arg(long, default_value_t = 5)]
    turns: usize,
    /// How often the sides of a batch take turns in the processes of one turn
    #[arg(long, default_value_t = 4)]
    rounds: usize,
    /// Tokens of a batch's rows
    #[arg(long, value_delimiter = ',', default_value = "16,64,128")]
    tokens: Vec<usize>,
    /// How many adapters are in memory
    #[arg(long, value_delimiter = ',', default_value = "1,10,100,500,2000")]
    residents: Vec<usize>,
    /// Clients that wait for their answers, where the server is to be busy
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// How often adapters are loaded and servers started
    #[arg(long, default_value_t = 20)]
    times: usize,
    /// Answer with PEFT as well: the Python environment that the shared script `peers/setup.sh` makes
    #[arg(long, value_name = "DIR")]
    venv: Option<PathBuf>,
}

/// Measures the parts.
///
/// # Errors
/// When a run fails.
pub fn run(bench: &Bench<'_>, options: &Options) -> Result<String> {
    let peer = options.venv.as_deref().map(|venv| Peer::new(bench, venv, true)).transpose()?;
    let mut report = peer.as_ref().map(|p| format!("- {}\n", p.versions())).unwrap_or_default();
    let made = adapters::Maker::new(bench)?;
    let all: &[Part] =
        &[Part::Batches, Part::Residents, Part::Http, Part::Lengths, Part::Loading, Part::Start];
    for part in all.iter().filter(|p| options.only.is_empty() || options.only.contains(p)) {
        let text = match part {
            Part::Batches => batches::run(bench, &made, options, peer.as_ref())?,
            Part::Residents => residents::run(bench, &made, options)?,
            Part::Http => http::run(bench, &made, options)?,
            Part::Lengths => lengths::run(bench, &made, options)?,
            Part::Loading => loading::run(bench, &made, options)?,
            Part::Start => loading::start(bench, &made, options)?,
        };
        // Much time may lie behind it.
        eprintln!("\n{text}");
        report.push('\n');
        report.push_str(&text);
    }
    Ok(report)
}
