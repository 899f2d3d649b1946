//! LoRA on TREC with Graft.

use std::process::Command;

use super::figures::{self, GRAFT, Group, Run};
use super::table::{Table, number};
use super::{Bench, median};
use crate::error::{Error, Result};
use crate::process;

/// Where the adapters sit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Sites {
    /// Query and value of each attention.
    Qv,
    /// All linear layers of the encoder.
    All,
}

impl Sites {
    /// For tables.
    pub fn name(self) -> &'static str {
        match self {
            Sites::Qv => "query, value",
            Sites::All => "all linear",
        }
    }

    /// PEFT's `target_modules`, as a list of TOML's.
    pub fn targets(self) -> &'static str {
        match self {
            Sites::Qv => r#"["query", "value"]"#,
            Sites::All => r#"["query", "key", "value", "dense"]"#,
        }
    }

    /// What the peer's scripts call it.
    pub fn peer(self) -> &'static str {
        match self {
            Sites::Qv => "lora",
            Sites::All => "lora_all",
        }
    }
}

/// Which runs.
// Groups are named after their type, and the peers' options of that name hold these.
#[derive(clap::Args)]
#[group(id = "training")]
pub struct Options {
    /// Seeds, a run each
    #[arg(long, value_delimiter = ',', default_value = "0,1,2,3,4")]
    pub seeds: Vec<u64>,
    /// Where the adapters sit
    #[arg(long, value_enum, value_delimiter = ',', default_value = "qv,all")]
    pub sites: Vec<Sites>,
    /// Passes over the data
    #[arg(long, default_value_t = 3)]
    pub epochs: usize,
    /// How rows become vectors; `pooled` is the base's own pooler, as PEFT's sequence classification has it
    #[arg(long, default_value = "pooled")]
    pub pooling: String,
}

/// Trains with each seed at each of the sites.
///
/// # Errors
/// When a run fails.
pub fn run(bench: &Bench<'_>, options: &Options) -> Result<String> {
    let mut runs = Vec::new();
    for seed in &options.seeds {
        for sites in &options.sites {
            runs.push(one(bench, *sites, *seed, options)?);
        }
    }
    Ok(figures::by_group(&runs).to_string())
}

/// One run of Graft.
///
/// # Errors
/// When it fails.
pub fn one(bench: &Bench<'_>, sites: Sites, seed: u64, options: &Options) -> Result<Run> {
    let mut command = lora(bench, sites, seed, options)?;
    let found = bench.measure("train", &mut command)?;
    let group = Group { side: GRAFT, sites: sites.name(), batches: "of similar length" };
    Run::of_graft(group, seed, &found)
        .ok_or_else(|| Error::Figures { command: process::shown(&command), printed: format!("{found:?}") })
}

/// The recipe that the peer's script has, as a command of ours.
pub fn lora(bench: &Bench<'_>, sites: Sites, seed: u64, options: &Options) -> Result<Command> {
    let mut command = bench.graft_train("lora", &format!("{}-{seed}", sites.peer()))?;
    command.args(["--epochs", &options.epochs.to_string(), "--batch-size", "32", "--lr", "1e-3"]);
    command.args(["--schedule", "linear", "--warmup-ratio", "0.06", "--seed", &seed.to_string()]);
    for setting in
        ["method.r=8".into(), "method.alpha=16".into(), format!("objective.pooling={}", options.pooling)]
    {
        command.args(["--set", &setting]);
    }
    command.args(["--set", &format!("method.target_modules={}", sites.targets())]);
    Ok(command)
}

/// How often.
#[derive(clap::Args)]
pub struct StartupOptions {
    /// Runs, of one epoch each; the first one may have to read files from disk
    #[arg(long, default_value_t = 3)]
    runs: u64,
}

/// Seconds from the command to the end of the first step.
///
/// # Errors
/// When a run fails.
pub fn startup(bench: &Bench<'_>, options: &StartupOptions) -> Result<String> {
    let recipe = Options { seeds: Vec::new(), sites: Vec::new(), epochs: 1, pooling: "pooled".into() };
    let all = (0..options.runs).map(|seed| Ok(one(bench, Sites::Qv, seed, &recipe)?.first_step));
    let seconds: Vec<f64> = all.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
    Ok(startup_table(&[(GRAFT, seconds)]).to_string())
}

/// A row for each side.
pub fn startup_table(sides: &[(&str, Vec<f64>)]) -> Table {
    let mut table = Table::new(["side", "command to the end of the first step, s: each run", "median"]);
    for (side, seconds) in sides {
        let each: Vec<String> = seconds.iter().map(|s| number(Some(*s), 2)).collect();
        table.row([(*side).into(), each.join(", "), number(median(seconds.clone()), 2)]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn startup_shows_every_run() {
        let table = startup_table(&[(GRAFT, vec![1.5, 0.9, 1.0])]).to_string();
        assert!(table.contains("| 1.50, 0.90, 1.00 ") && table.contains("| 1.00 "), "{table}");
    }
}
