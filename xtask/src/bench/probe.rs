//! A linear probe on TREC: what lies in front of the head is computed once, and kept for the next run.

use std::time::Instant;

use super::Bench;
use super::table::{Table, number};
use crate::error::{Result, io};
use crate::stamp;

/// How the head is trained.
#[derive(clap::Args)]
pub struct Options {
    /// How rows become vectors
    #[arg(long, default_value = "mean")]
    pooling: String,
    /// Seeds, two runs each: with an empty cache of features and with the one that the first left
    #[arg(long, value_delimiter = ',', default_value = "0,1,2")]
    seeds: Vec<u64>,
}

/// Solves the head with each seed.
///
/// # Errors
/// When a run fails.
pub fn run(bench: &Bench<'_>, options: &Options) -> Result<String> {
    let mut table =
        Table::new(["side", "seed", "features", "command to saved adapter, s", "peak MB", "accuracy, %"]);
    let cache = bench.folder.join("features");
    for seed in &options.seeds {
        stamp::remove(&cache).map_err(io("cannot remove", &cache))?;
        for features in ["computed", "from the first run"] {
            let mut command = bench.graft_train("linear-probe", &format!("probe-{seed}"))?;
            command.env("GRAFT_FEATURES", &cache).args(["--seed", &seed.to_string()]);
            command.args(["--set", &format!("objective.pooling={}", options.pooling)]);
            let start = Instant::now();
            let found = bench.measure("probe", &mut command)?;
            let seconds = start.elapsed().as_secs_f64();
            let get = |key: &str| found.get(key).and_then(serde_json::Value::as_f64);
            table.row([
                super::figures::GRAFT.into(),
                seed.to_string(),
                features.into(),
                number(Some(seconds), 2),
                number(get("peak_rss_mb"), 0),
                number(get("accuracy").map(|a| 100.0 * a), 1),
            ]);
        }
    }
    Ok(table.to_string())
}
