//! Every method on TREC, with the recipe that it needs, and the other side's where it has the method.

use std::path::{Path, PathBuf};
use std::time::Instant;

use super::figures::{self, GRAFT, Group};
use super::peers::Peer;
use super::table::{Table, number};
use super::{Bench, Figures};
use crate::error::{Error, Result, io};

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
    /// Train with PEFT as well: the Python environment that the shared script `peers/setup.sh` makes
    #[arg(long, value_name = "DIR")]
    venv: Option<PathBuf>,
    /// Seeds of PEFT's runs, each with random batches and with batches of similar length; without it those of --seeds
    #[arg(long, value_delimiter = ',', requires = "venv")]
    peer_seeds: Option<Vec<u64>>,
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
    /// What the other side's script calls it.
    peer: Option<&'static str>,
}

/// The learning rates are those of the peers' script; the bottlenecks' was chosen on a tenth of the training data, by
/// `graft sweep`.
const ROWS: &[Row] = &[
    Row {
        name: "full",
        method: "full",
        lr: "5e-5",
        settings: &["objective.pooling=pooled"],
        peer: Some("full"),
    },
    Row {
        name: "lora",
        method: "lora",
        lr: "1e-3",
        settings: &["method.target_modules=all-linear", "objective.pooling=pooled"],
        peer: Some("lora_all"),
    },
    Row {
        name: "dora",
        method: "lora",
        lr: "1e-3",
        settings: &["method.target_modules=all-linear", "method.use_dora=true", "objective.pooling=pooled"],
        peer: Some("dora"),
    },
    Row {
        name: "pfeiffer",
        method: "bottleneck-adapter",
        lr: "2e-3",
        settings: &["method.variant=seq_bn", "objective.pooling=pooled"],
        peer: None,
    },
    Row {
        name: "houlsby",
        method: "bottleneck-adapter",
        lr: "3e-3",
        settings: &["method.variant=double_seq_bn", "objective.pooling=pooled"],
        peer: None,
    },
    Row {
        name: "ia3",
        method: "ia3",
        lr: "5e-3",
        settings: &["objective.pooling=pooled"],
        peer: Some("ia3"),
    },
    Row {
        name: "prefix",
        method: "prefix-tuning",
        lr: "1e-2",
        settings: &["objective.pooling=pooled"],
        peer: Some("prefix"),
    },
    Row {
        name: "prompt",
        method: "prompt-tuning",
        lr: "1e-2",
        settings: &["objective.pooling=mean"],
        peer: Some("prompt"),
    },
    Row {
        name: "linear probe",
        method: "linear-probe",
        lr: "1e-3",
        settings: &["objective.pooling=mean"],
        peer: None,
    },
];

/// Trains with each method and each seed.
///
/// # Errors
/// When a run fails.
pub fn run(bench: &Bench<'_>, options: &Options) -> Result<String> {
    let peer = options.venv.as_deref().map(|venv| Peer::new(bench, venv, true)).transpose()?;
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
    let mut compared = Vec::new();
    let wanted = |r: &&Row| options.only.is_empty() || options.only.iter().any(|n| n == r.name);
    for row in ROWS.iter().filter(wanted) {
        let mut runs = Vec::new();
        for seed in &options.seeds {
            runs.push(one(bench, row, *seed, options)?);
        }
        line(&mut table, row, GRAFT.into(), &runs);
        compared.extend(runs.into_iter().map(|r| r.run));
        if let (Some(peer), Some(method)) = (&peer, row.peer) {
            for grouped in [false, true] {
                let mut runs = Vec::new();
                for seed in options.peer_seeds.as_ref().unwrap_or(&options.seeds) {
                    let found = peer.trained(method, *seed, grouped, options.epochs)?;
                    runs.push(Run::of(&found, peer.run_of(&found, row.name, *seed, grouped)?, 0.0));
                }
                let batches = runs.first().map_or("", |r| r.run.group.batches);
                line(&mut table, row, format!("{}, {batches}", figures::PEFT), &runs);
                compared.extend(runs.into_iter().map(|r| r.run));
            }
        }
        // Hours may lie behind it.
        eprintln!("\n{table}");
    }
    let comparison = figures::comparison(&compared, "method");
    let versions = peer.map(|p| format!("- {}\n\n", p.versions())).unwrap_or_default();
    Ok(if comparison.is_empty() { table.to_string() } else { format!("{versions}{table}\n{comparison}") })
}

/// A row of the table, of the runs of one side.
fn line(table: &mut Table, row: &Row, side: String, runs: &[Run]) {
    let list = |of: fn(&Run) -> f64, digits| {
        runs.iter().map(|r| known(of(r), digits)).collect::<Vec<_>>().join(", ")
    };
    let most = |of: fn(&Run) -> f64| runs.iter().map(of).fold(0.0, f64::max);
    let least = |of: fn(&Run) -> f64| runs.iter().map(of).reduce(f64::min);
    let mean = |of: fn(&Run) -> f64| runs.iter().map(of).sum::<f64>() / runs.len().max(1) as f64;
    let speed = |r: &Run| r.run.samples_per_second;
    table.row([
        row.name.into(),
        side,
        list(|r| 100.0 * r.run.accuracy, 1),
        number(Some(100.0 * mean(|r| r.run.accuracy)), 2),
        if row.method == "linear-probe" {
            "solved".into()
        } else {
            format!("{:.0} ({}–{:.0})", mean(speed), number(least(speed), 0), most(speed))
        },
        list(|r| r.seconds, 1),
        number(Some(most(|r| r.run.peak_mb)), 0),
        known(most(|r| r.trained), 0),
        known(most(|r| r.kilobytes), 0),
    ]);
}

/// The figure, or a dash where it was not measured.
fn known(figure: f64, digits: usize) -> String {
    number(Some(figure).filter(|f| *f > 0.0), digits)
}

/// The figures of a run.
struct Run {
    run: figures::Run,
    /// From the command to the saved adapter.
    seconds: f64,
    trained: f64,
    /// Of all files with tensors.
    kilobytes: f64,
}

impl Run {
    /// Adds to `run` what else the program printed; what it did not print is 0.
    fn of(found: &Figures, run: figures::Run, kilobytes: f64) -> Run {
        let get = |key: &str| found.get(key).and_then(serde_json::Value::as_f64).unwrap_or(0.0);
        Run { run, seconds: get("total_s"), trained: get("trainable_parameters"), kilobytes }
    }
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
    let group = Group { side: GRAFT, sites: row.name, batches: "of similar length" };
    let run = figures::Run::of_graft(group, seed, &found)
        .ok_or_else(|| Error::Figures { command: adapter.clone(), printed: format!("{found:?}") })?;
    let kilobytes = kilobytes(&bench.folder.join("adapters").join(&adapter))?;
    Ok(Run { seconds, ..Run::of(&found, run, kilobytes) })
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
