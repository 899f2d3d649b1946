//! One training step at batches of a constant shape, and the forward pass beside it.

use serde_json::{Map, Value};

use super::Bench;
use super::figures::GRAFT;
use super::table::{Table, number};
use super::train::Sites;
use crate::error::Result;

/// The shape of the batches.
#[derive(clap::Args)]
pub struct Options {
    /// Rows
    #[arg(long, default_value_t = 32)]
    pub batch: usize,
    /// Tokens in a row
    #[arg(long, default_value_t = 64)]
    pub length: usize,
    /// Steps that are timed, after some that are not
    #[arg(long, default_value_t = 20)]
    pub steps: usize,
    /// Execution provider: cpu, cuda or tensorrt; the last two need an NVIDIA GPU
    #[arg(long, default_value = "cpu")]
    pub provider: String,
    /// Where the adapters sit
    #[arg(long, value_enum, value_delimiter = ',', default_value = "qv,all")]
    pub sites: Vec<Sites>,
}

/// Times steps at each of the sites.
///
/// # Errors
/// When a run fails.
pub fn run(bench: &Bench<'_>, options: &Options) -> Result<String> {
    let rows = options.sites.iter().map(|s| Ok((GRAFT, *s, one(bench, *s, options)?)));
    Ok(table(&rows.collect::<Result<Vec<_>>>()?).to_string())
}

/// Graft's figures: the times of a step and of ONNX Runtime's forward pass.
///
/// # Errors
/// When the run fails.
pub fn one(bench: &Bench<'_>, sites: Sites, options: &Options) -> Result<Times> {
    let mut command = bench.example("step_time");
    for (name, value) in
        [("--batch", options.batch), ("--length", options.length), ("--steps", options.steps)]
    {
        command.args([name, &value.to_string()]);
    }
    command.args(["--provider", &options.provider]);
    command.args(["--threads", &bench.threads.to_string(), "--targets", sites.targets(), "--plugins"]);
    command.arg(bench.paths.relative(&bench.paths.outputs("release")));
    Ok(Times::of_graft(&bench.measure("step", &mut command)?))
}

/// Milliseconds of a step and of a forward pass of the base, each with the best that was seen.
#[derive(Debug, Clone, PartialEq)]
pub struct Times {
    step: Option<f64>,
    best_step: Option<f64>,
    forward: Option<f64>,
    best_forward: Option<f64>,
}

impl Times {
    fn of_graft(printed: &Map<String, Value>) -> Times {
        let get = |what: &str, which: &str| printed.get(what)?.get(which)?.as_f64();
        Times {
            step: get("step_ms", "median"),
            best_step: get("step_ms", "min"),
            forward: get("forward_ms", "median"),
            best_forward: get("forward_ms", "min"),
        }
    }

    /// From the peer's line `RESULT step_ms=… step_min_ms=… forward_ms=… forward_min_ms=…`.
    pub fn of_peer(printed: &Map<String, Value>) -> Times {
        let get = |key: &str| printed.get(key)?.as_f64();
        Times {
            step: get("step_ms"),
            best_step: get("step_min_ms"),
            forward: get("forward_ms"),
            best_forward: get("forward_min_ms"),
        }
    }
}

/// A row for each side and place of the adapters.
pub fn table(rows: &[(&str, Sites, Times)]) -> Table {
    let mut table = Table::new([
        "side",
        "sites",
        "step, ms: median (best)",
        "the runtime's forward pass",
        "step / forward",
    ]);
    for (side, sites, times) in rows {
        let both = |median: Option<f64>, best: Option<f64>| format!("{} ({})", figure(median), figure(best));
        table.row([
            (*side).into(),
            sites.name().into(),
            both(times.step, times.best_step),
            both(times.forward, times.best_forward),
            number(times.step.zip(times.forward).map(|(s, f)| s / f), 2),
        ]);
    }
    table
}

/// Milliseconds, with two digits behind the point below 20.
fn figure(ms: Option<f64>) -> String {
    number(ms, if ms.is_some_and(|ms| ms < 20.0) { 2 } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::figures::{PEFT, json_object, result_line};

    #[test]
    fn both_sides_are_read_into_the_same_table() {
        let ours = r#"{"step_ms":{"median":640.4,"min":630.0},"forward_ms":{"median":320.2,"min":318.0}}"#;
        let ours = Times::of_graft(&json_object(ours).unwrap());
        let theirs = "RESULT step_ms=950.0 step_min_ms=930.1 forward_ms=450.0 forward_min_ms=440.0";
        let theirs = Times::of_peer(&result_line(theirs).unwrap());
        let text = table(&[(GRAFT, Sites::Qv, ours), (PEFT, Sites::All, theirs)]).to_string();
        let rows: Vec<&str> = text.lines().skip(2).collect();
        assert!(rows[0].contains("| 640 (630) ") && rows[0].contains("| 320 (318) "), "{text}");
        assert!(rows[0].contains("| 2.00 ") && rows[1].contains("| 2.11 "), "{text}");
    }
}
