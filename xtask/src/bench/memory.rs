//! What memory further sessions and a LoRA run take.

use serde_json::{Map, Value};

use super::Bench;
use super::table::{Table, number};
use super::train::{self, Sites};
use crate::error::Result;

/// How much is tried.
#[derive(clap::Args)]
pub struct Options {
    /// Sessions over the same base
    #[arg(long, default_value_t = 3)]
    sessions: usize,
    /// Passes over the data in the LoRA run
    #[arg(long, default_value_t = 1)]
    epochs: usize,
}

/// Measures both.
///
/// # Errors
/// When a run fails.
pub fn run(bench: &Bench<'_>, options: &Options) -> Result<String> {
    let mut table = Table::new(["session", "weights", "it adds, MB", "its first run adds, MB"]);
    for (way, weights) in [("shared", "shared by Graft"), ("alone", "its own, read by ONNX Runtime")] {
        let mut command = bench.example("session_memory");
        command.arg(way).args([options.sessions, bench.threads].map(|n| n.to_string()));
        add_sessions(&mut table, weights, &bench.measure("memory", &mut command)?);
    }
    let recipe = train::Options {
        seeds: Vec::new(),
        sites: Vec::new(),
        epochs: options.epochs,
        pooling: "pooled".into(),
    };
    let mut peaks = Table::new(["LoRA run", "peak of the resident memory, MB"]);
    for sites in [Sites::Qv, Sites::All] {
        let run = train::one(bench, sites, 0, &recipe)?;
        peaks.row([sites.name().into(), number(Some(run.peak_mb), 0)]);
    }
    Ok(format!("{table}\n{peaks}"))
}

/// A row for each session.
fn add_sessions(table: &mut Table, weights: &str, found: &Map<String, Value>) {
    for (i, session) in found.get("sessions").and_then(Value::as_array).into_iter().flatten().enumerate() {
        let get = |key: &str| number(session.get(key).and_then(Value::as_f64), 1);
        table.row([(i + 1).to_string(), weights.into(), get("loaded_mb"), get("first_run_mb")]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_session_is_a_row() {
        let found = serde_json::json!({
            "sessions": [{"loaded_mb": 150.0, "first_run_mb": 40.0}, {"loaded_mb": 27.04, "first_run_mb": 12.0}],
        });
        let mut table = Table::new(["session", "weights", "it adds", "its first run adds"]);
        add_sessions(&mut table, "shared", found.as_object().unwrap());
        let text = table.to_string();
        assert_eq!(text.lines().count(), 4);
        assert!(text.contains("| 2       | shared  | 27.0    | 12.0 "), "{text}");
    }
}
