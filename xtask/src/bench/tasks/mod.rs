//! Tasks of every kind on real data, and the same by PyTorch and PEFT in the same settings.

mod data;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use self::data::{Data, Place};
use super::figures::{self, GRAFT, PEFT};
use super::peers::Peer;
use super::table::{Table, number};
use super::{Bench, Figures, trec};
use crate::error::{Result, io};
use crate::stamp::{self, write_atomic};

const TASKS: (&str, &str) = ("tasks.py", include_str!("../peers/tasks.py"));
const WORDS: (&str, &str) = ("words.py", include_str!("../peers/words.py"));
/// ImageNet's mean and deviation, which the ResNet was trained with, and no resizing.
const PREPROCESSOR: &str = r#"{"do_resize": false, "do_rescale": true, "rescale_factor": 0.00392156862745098, "do_normalize": true,
 "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
"#;

/// Which tasks, and which sides.
#[derive(clap::Args)]
pub struct Options {
    /// Names of tasks to run instead of all
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Seeds, a run each
    #[arg(long, value_delimiter = ',', default_value = "0")]
    seeds: Vec<u64>,
    /// Train with PEFT as well: the Python environment that the shared script `peers/setup.sh` makes; token
    /// classification needs `seqeval` in it, images `pillow`, molecules `onnx`
    #[arg(long, value_name = "DIR")]
    venv: Option<PathBuf>,
}

/// What the other side runs.
#[derive(Clone, Copy)]
enum Other {
    /// The shared script, with LoRA on all linear sites.
    Shared,
    /// `words.py`.
    Words,
    /// `tasks.py` with this task.
    Tasks(&'static str),
}

/// A task: LoRA with r = 8 in the same settings on both sides.
struct Task {
    name: &'static str,
    /// The base, in the shared folder of models; MiniLM where it is empty.
    model: &'static str,
    data: fn(&Place<'_>) -> Result<Data>,
    objective: &'static str,
    epochs: usize,
    lr: &'static str,
    args: &'static [&'static str],
    metric: &'static str,
    /// Figures are fractions, to be shown in per cent.
    percent: bool,
    other: Other,
}

const BANKING: Task = Task {
    name: "banking77",
    model: "",
    data: data::banking77,
    objective: "classification",
    epochs: 3,
    lr: "1e-3",
    args: &[
        "--text",
        "text",
        "--label",
        "label",
        "--set",
        "method.target_modules=all-linear",
        "--set",
        "objective.pooling=pooled",
    ],
    metric: "accuracy",
    percent: true,
    other: Other::Shared,
};

const ALL: &[Task] = &[
    BANKING,
    Task { name: "sst", data: data::sst, ..BANKING },
    Task {
        name: "wnut17",
        model: "",
        data: data::wnut17,
        objective: "token-classification",
        epochs: 5,
        lr: "1e-3",
        args: &["--max-length", "128"],
        metric: "f1",
        percent: true,
        other: Other::Words,
    },
    Task {
        name: "sts2015",
        model: "",
        data: data::sts2015,
        objective: "embedding",
        epochs: 3,
        lr: "5e-4",
        args: &[
            "--text",
            "text",
            "--text-pair",
            "text_pair",
            "--score",
            "score",
            "--set",
            "objective.loss=cosine",
            "--set",
            "objective.score_low=0",
            "--set",
            "objective.score_high=5",
        ],
        metric: "spearman",
        percent: false,
        other: Other::Tasks("pairs"),
    },
    Task {
        name: "ESOL",
        model: "albert_smiles/converted_encoder.onnx",
        data: data::esol,
        objective: "regression",
        epochs: 10,
        lr: "2e-3",
        args: &["--text", "smiles", "--target", "target", "--set", "method.target_modules=all-linear"],
        metric: "rmse",
        percent: false,
        other: Other::Tasks("molecules"),
    },
    Task {
        name: "CIFAR-10",
        model: "resnet20_cifar10/converted_resnet20.onnx",
        data: data::cifar,
        objective: "classification",
        epochs: 6,
        lr: "2e-3",
        args: &["--set", "objective.pooling=logits", "--set", "method.target_modules=.*conv[12]"],
        metric: "accuracy",
        percent: true,
        other: Other::Tasks("images"),
    },
];

/// Trains each task with each seed, on both sides where a Python environment is given.
///
/// # Errors
/// [`Error::Shared`](crate::error::Error::Shared) without data or models; when a run fails.
pub fn run(bench: &Bench<'_>, options: &Options) -> Result<String> {
    let peer = options.venv.as_deref().map(|venv| Peer::new(bench, venv, true)).transpose()?;
    let mut table = Table::new(["task", "measure", "side", "of each seed", "samples/s", "peak MB"]);
    let wanted = |t: &&Task| options.only.is_empty() || options.only.iter().any(|n| n == t.name);
    for task in ALL.iter().filter(wanted) {
        let shared = trec::shared(bench.paths);
        let to = bench.folder.join("tasks");
        std::fs::create_dir_all(&to).map_err(io("cannot make the folder", &to))?;
        let rows = bench.rows.unwrap_or(usize::MAX);
        let data = (task.data)(&Place { from: &shared.join("data"), to: &to, rows })?;
        let model = if task.model.is_empty() { None } else { Some(shared.join("models").join(task.model)) };
        let mut sides = vec![(GRAFT, Vec::new())];
        sides.extend(peer.as_ref().map(|_| (PEFT, Vec::new())));
        for seed in &options.seeds {
            let ours = ours(bench, task, &data, model.as_deref(), *seed)?;
            sides[0].1.push((ours.get(task.metric).cloned(), ours));
            if let Some(peer) = &peer {
                let theirs = theirs(bench, peer, task, &data, model.as_deref(), *seed)?;
                let score = ["acc", "score", task.metric].iter().find_map(|k| theirs.get(*k).cloned());
                sides[1].1.push((score, theirs));
            }
        }
        for (side, runs) in &sides {
            line(&mut table, task, side, runs);
        }
        eprintln!("\n{table}");
    }
    let versions = peer.map(|p| format!("- {}\n\n", p.versions())).unwrap_or_default();
    Ok(format!("{versions}{table}"))
}

/// A row of the table: the runs of a side, each with its score.
fn line(table: &mut Table, task: &Task, side: &str, runs: &[(Option<Value>, Figures)]) {
    let figure = |found: &Figures, keys: &[&str]| keys.iter().find_map(|k| found.get(*k)?.as_f64());
    let score = |score: &Option<Value>| {
        let score = score.as_ref().and_then(Value::as_f64);
        if task.percent { number(score.map(|s| 100.0 * s), 1) } else { number(score, 3) }
    };
    let speeds = runs.iter().filter_map(|(_, f)| figure(f, &["samples_per_second", "samples_per_s"]));
    let peak = runs.iter().filter_map(|(_, f)| figure(f, &["peak_rss_mb", "peak_mb"])).reduce(f64::max);
    table.row([
        task.name.into(),
        if task.percent { format!("{}, %", task.metric) } else { task.metric.into() },
        side.into(),
        runs.iter().map(|(s, _)| score(s)).collect::<Vec<_>>().join(", "),
        number(Some(speeds.sum::<f64>() / runs.len().max(1) as f64), 0),
        number(peak, 0),
    ]);
}

fn ours(bench: &Bench<'_>, task: &Task, data: &Data, model: Option<&Path>, seed: u64) -> Result<Figures> {
    let out = bench.folder.join("adapters").join(format!("tasks-{}-{seed}", task.name));
    stamp::remove(&out).map_err(io("cannot remove", &out))?;
    let mut command = bench.graft("train");
    let base = bench.base();
    command.arg("--base").arg(model.unwrap_or(&base));
    if task.name == "CIFAR-10" {
        let file = bench.folder.join("preprocessor_config.json");
        write_atomic(&file, PREPROCESSOR.as_bytes()).map_err(io("cannot write", &file))?;
        command.arg("--preprocessor").arg(file);
    }
    command.args(["--objective", task.objective, "--method", "lora", "--data"]).arg(&data.train);
    if let Some(dev) = &data.dev {
        command.arg("--eval-data").arg(dev);
    }
    command.arg("--test-data").arg(&data.test).args(task.args);
    command.args(["--epochs", &task.epochs.to_string(), "--lr", task.lr, "--seed", &seed.to_string()]);
    command.args(["--schedule", "linear", "--warmup-ratio", "0.06", "--threads", &bench.threads.to_string()]);
    command.arg("--out").arg(&out).arg("--json");
    bench.measure("tasks", &mut command)
}

fn theirs(
    bench: &Bench<'_>,
    peer: &Peer<'_>,
    task: &Task,
    data: &Data,
    model: Option<&Path>,
    seed: u64,
) -> Result<Figures> {
    let model = model.unwrap_or(&bench.fetched.minilm);
    let (epochs, seed_text) = (task.epochs.to_string(), seed.to_string());
    let parts = |command: &mut Command| {
        command.arg(model).arg(&data.train).args(&data.dev).arg(&data.test);
    };
    match task.other {
        Other::Shared => peer.trained_on((&data.train, &data.test), "lora_all", seed, true, task.epochs),
        Other::Words => {
            let mut command = peer.ours(WORDS)?;
            parts(&mut command);
            command.args([epochs, seed_text, bench.threads.to_string()]);
            words(bench.measured("tasks", &mut command, figures::json_object)?, task, data)
        }
        Other::Tasks(name) => {
            let mut command = peer.ours(TASKS)?;
            command.arg(name);
            parts(&mut command);
            command.args([&epochs, task.lr, &seed_text, &bench.threads.to_string()]);
            bench.measured("tasks", &mut command, figures::json_object)
        }
    }
}

/// Adds the samples per second, which the script does not tell.
fn words(mut found: Figures, task: &Task, data: &Data) -> Result<Figures> {
    let text = std::fs::read_to_string(&data.train).map_err(io("cannot read", &data.train))?;
    let sentences = text.split("\n\n").filter(|s| !s.trim().is_empty()).count();
    if let Some(seconds) = found.get("train_seconds").and_then(Value::as_f64) {
        found.insert("samples_per_second".into(), (task.epochs as f64 * sentences as f64 / seconds).into());
    }
    Ok(found)
}
