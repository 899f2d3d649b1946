//! A linear probe on TREC: what lies in front of the head is computed once.

use std::time::Instant;

use super::Bench;
use super::table::{Table, number};
use crate::error::Result;

/// How the head is trained.
#[derive(clap::Args)]
pub struct Options {
    /// Passes over the features
    #[arg(long, default_value_t = 100)]
    epochs: usize,
    /// Peak of the learning rate
    #[arg(long, default_value = "1e-2")]
    lr: String,
    /// Examples in a batch
    #[arg(long, default_value_t = 64)]
    batch_size: usize,
    /// Decay of the head's weights
    #[arg(long, default_value = "0.01")]
    weight_decay: String,
    /// How rows become vectors
    #[arg(long, default_value = "mean")]
    pooling: String,
    /// Seeds, a run each
    #[arg(long, value_delimiter = ',', default_value = "0,1,2")]
    seeds: Vec<u64>,
}

/// Trains the head with each seed.
///
/// # Errors
/// When a run fails.
pub fn run(bench: &Bench<'_>, options: &Options) -> Result<String> {
    let mut table =
        Table::new(["side", "seed", "command to saved adapter, s", "of it training, s", "accuracy, %"]);
    for seed in &options.seeds {
        let mut command = bench.graft_train("linear-probe", &format!("probe-{seed}"))?;
        command.args([
            "--epochs",
            &options.epochs.to_string(),
            "--batch-size",
            &options.batch_size.to_string(),
        ]);
        command.args([
            "--lr",
            &options.lr,
            "--weight-decay",
            &options.weight_decay,
            "--seed",
            &seed.to_string(),
        ]);
        command.args(["--set", &format!("objective.pooling={}", options.pooling)]);
        let start = Instant::now();
        let found = bench.measure("probe", &mut command)?;
        let seconds = start.elapsed().as_secs_f64();
        let get = |key: &str| found.get(key).and_then(serde_json::Value::as_f64);
        table.row([
            super::figures::GRAFT.into(),
            seed.to_string(),
            number(Some(seconds), 1),
            number(get("train_seconds"), 1),
            number(get("accuracy").map(|a| 100.0 * a), 1),
        ]);
    }
    Ok(table.to_string())
}
