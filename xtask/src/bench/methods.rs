//! Every method on TREC, with the recipe that it needs.

use std::path::Path;
use std::time::Instant;

use super::Bench;
use super::figures::GRAFT;
use super::table::{Table, number};
use crate::error::{Result, io};

/// Which methods, how often.
#[derive(clap::Args)]
pub struct Options {
    /// Seeds, a run each
    #[arg(long, value_delimiter = ',', default_value = "0,1,2,3,4")]
    seeds: Vec<u64>,
    /// Passes over the data; for the soft prompt and the solver it says how often itself
    #[arg(long, default_value_t = 3)]
    epochs: usize,
    /// Names of rows to run instead of all
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

/// A row of the table.
struct Row {
    /// What it is called there and with `--only`.
    name: &'static str,
    method: &'static str,
    /// Peak of the learning rate.
    lr: &'static str,
    /// Settings of method and objective.
    settings: &'static [&'static str],
}

/// The learning rates are those of the peers' script; the bottlenecks' was chosen on a tenth of the training data, by
/// `graft sweep`.
const ROWS: &[Row] = &[
    Row { name: "full", method: "full", lr: "5e-5", settings: &["objective.pooling=pooled"] },
    Row {
        name: "lora",
        method: "lora",
        lr: "1e-3",
        settings: &["method.target_modules=all-linear", "objective.pooling=pooled"],
    },
    Row {
        name: "dora",
        method: "lora",
        lr: "1e-3",
        settings: &["method.target_modules=all-linear", "method.use_dora=true", "objective.pooling=pooled"],
    },
    Row {
        name: "pfeiffer",
        method: "bottleneck-adapter",
        lr: "2e-3",
        settings: &["method.variant=seq_bn", "objective.pooling=pooled"],
    },
    Row {
        name: "houlsby",
        method: "bottleneck-adapter",
        lr: "3e-3",
        settings: &["method.variant=double_seq_bn", "objective.pooling=pooled"],
    },
    Row { name: "ia3", method: "ia3", lr: "5e-3", settings: &["objective.pooling=pooled"] },
    Row { name: "prefix", method: "prefix-tuning", lr: "1e-2", settings: &["objective.pooling=pooled"] },
    Row { name: "prompt", method: "prompt-tuning", lr: "1e-2", settings: &["objective.pooling=mean"] },
    Row { name: "linear probe", method: "linear-probe", lr: "1e-3", settings: &["objective.pooling=mean"] },
];

/// Trains with each method and each seed.
///
/// # Errors
/// When a run fails.
pub fn run(bench: &Bench<'_>, options: &Options) -> Result<String> {
    let mut table = Table::new([
        "method",
        "side",
        "accuracy of each seed, %",
        "mean, %",
        "samples/s (lowest–highest)",
        "command to saved adapter, s",
        "peak MB",
        "trained numbers",
        "file, kB",
    ]);
    let wanted = |r: &&Row| options.only.is_empty() || options.only.iter().any(|n| n == r.name);
    for row in ROWS.iter().filter(wanted) {
        let mut runs = Vec::new();
        for seed in &options.seeds {
            runs.push(one(bench, row, *seed, options)?);
        }
        let list = |of: fn(&Run) -> f64, digits| {
            runs.iter().map(|r| number(Some(of(r)), digits)).collect::<Vec<_>>().join(", ")
        };
        let most = |of: fn(&Run) -> f64| runs.iter().map(of).reduce(f64::max);
        let least = |of: fn(&Run) -> f64| runs.iter().map(of).reduce(f64::min);
        let mean = |of: fn(&Run) -> f64| Some(runs.iter().map(of).sum::<f64>() / runs.len().max(1) as f64);
        let speed = |r: &Run| r.speed;
        table.row([
            row.name.into(),
            GRAFT.into(),
            list(|r| r.accuracy, 1),
            number(mean(|r| r.accuracy), 2),
            match mean(speed).filter(|s| *s > 0.0) {
                Some(s) => {
                    format!("{s:.0} ({}–{})", number(least(speed), 0), number(most(speed), 0))
                }
                None => "solved".into(),
            },
            list(|r| r.seconds, 1),
            number(most(|r| r.peak_mb), 0),
            number(most(|r| r.trained), 0),
            number(most(|r| r.kilobytes), 0),
        ]);
    }
    Ok(table.to_string())
}

/// The figures of a run.
struct Run {
    /// On the test data, in per cent.
    accuracy: f64,
    /// Samples per second of training alone; 0 where nothing was trained step by step.
    speed: f64,
    /// From the command to the saved adapter.
    seconds: f64,
    peak_mb: f64,
    trained: f64,
    /// Of all files with tensors.
    kilobytes: f64,
}

fn one(bench: &Bench<'_>, row: &Row, seed: u64, options: &Options) -> Result<Run> {
    let adapter = format!("methods-{}-{seed}", row.name.replace(' ', "-"));
    let mut command = bench.graft_train(row.method, &adapter)?;
    // Each run computes its own features: a cache that an earlier seed has filled would flatter the later ones.
    command.args(["--feature-cache", "false", "--seed", &seed.to_string()]);
    if row.method != "linear-probe" {
        command.args(["--epochs", &options.epochs.to_string(), "--batch-size", "32", "--lr", row.lr]);
        command.args(["--schedule", "linear", "--warmup-ratio", "0.06"]);
    }
    for setting in row.settings {
        command.args(["--set", setting]);
    }
    let start = Instant::now();
    let found = bench.measure("methods", &mut command)?;
    let seconds = start.elapsed().as_secs_f64();
    let get = |key: &str| found.get(key).and_then(serde_json::Value::as_f64).unwrap_or(0.0);
    Ok(Run {
        accuracy: 100.0 * get("accuracy"),
        speed: if row.method == "linear-probe" { 0.0 } else { get("samples_per_second") },
        seconds,
        peak_mb: get("peak_rss_mb"),
        trained: get("trainable_parameters"),
        kilobytes: kilobytes(&bench.folder.join("adapters").join(&adapter))?,
    })
}

/// The size of the files with tensors in a folder.
fn kilobytes(folder: &Path) -> Result<f64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder).map_err(io("cannot read", folder))?.flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|e| e == "safetensors") {
            bytes += std::fs::metadata(&path).map_err(io("cannot read", &path))?.len();
        }
    }
    Ok(bytes as f64 / 1e3)
}
