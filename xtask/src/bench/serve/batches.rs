//! 32 rows with 32 adapters in one batch.

use super::adapters::Maker;
use super::bare::Bare;
use super::{Options, server};
use crate::bench::figures;
use crate::bench::peers::Peer;
use crate::bench::table::{Table, number};
use crate::bench::{Bench, output};
use crate::error::{Error, Result};
use crate::fetch::ORT_DYLIB_PATH;
use crate::process::{self, cargo};

/// Rows and tokens of the other side's batch.
const PEER: (usize, usize) = (32, 32);

/// A line of the benchmark `banks`.
#[derive(Debug, PartialEq)]
struct Line {
    tokens: String,
    rows: String,
    /// Best and middle run in milliseconds, and the throughput relative to the base by each.
    figures: [f64; 4],
}

fn line(printed: &str) -> Option<Line> {
    let words: Vec<&str> = printed.split_whitespace().collect();
    let (rest, last) = words.split_last_chunk::<4>()?;
    let (tokens, rows) = rest.split_first()?;
    tokens.parse::<usize>().ok()?;
    let mut figures = [0.0; 4];
    for (figure, word) in figures.iter_mut().zip(last) {
        *figure = word.parse().ok()?;
    }
    Some(Line { tokens: (*tokens).to_owned(), rows: rows.join(" "), figures })
}

/// Measures both sides.
///
/// # Errors
/// When a run fails.
pub fn run(bench: &Bench<'_>, made: &Maker, options: &Options, peer: Option<&Peer<'_>>) -> Result<String> {
    let mut command = cargo();
    command.current_dir(&bench.paths.root).env(ORT_DYLIB_PATH, &bench.fetched.library);
    command.args(["bench", "--quiet", "-p", "graft-tasks", "--bench", "banks", "--"]).arg(bench.base());
    command.arg(bench.paths.outputs("release"));
    // A process of the benchmark counts ten runs.
    command.args([bench.threads, options.repeats.div_ceil(10)].map(|n| n.to_string()));
    let printed = output(&mut command)?;
    let lines: Vec<Line> = printed.lines().filter_map(line).collect();
    if lines.is_empty() {
        return Err(Error::Figures { command: process::shown(&command), printed });
    }
    let mut table =
        Table::new(["tokens", "32 rows", "middle, ms", "best, ms", "× base, middle", "× base, best"]);
    for Line { tokens, rows, figures: [best, middle, of_best, of_middle] } in lines {
        let of = |n: f64, digits| number(Some(n), digits);
        table.row([tokens, rows, of(middle, 1), of(best, 1), of(of_middle, 3), of(of_best, 3)]);
    }
    let mut report =
        format!("**32 rows with 32 adapters**, beside the base's file as ONNX Runtime runs it\n\n{table}");
    if let Some(peer) = peer {
        report.push('\n');
        report.push_str(&beside(bench, made, options, peer)?);
    }
    Ok(report)
}

/// PEFT's `adapter_names`, and the same batch here.
fn beside(bench: &Bench<'_>, made: &Maker, options: &Options, peer: &Peer<'_>) -> Result<String> {
    let (rows, tokens) = PEER;
    let theirs = bench.measured("serve", &mut peer.serving(rows, rows, tokens), figures::result_line)?;
    let folder = made.folder("few", rows)?;
    let ours = Bare::run(bench, &folder, options.repeats, None, &[&format!("{rows}x{tokens}")])?;
    let (base, mixed) = ours.of(rows, tokens);
    let get = |key: &str| server::number(&theirs, key);
    let mut table =
        Table::new(["side", "base alone, ms", "32 adapters, ms", "× its base", "adding an adapter, ms"]);
    let over = |a: Option<f64>, b: Option<f64>| a.zip(b).map(|(a, b)| a / b);
    let (other_base, other) = (get("base_ms"), get("mixed_ms"));
    let ratio = |a, b| number(over(a, b), 2);
    table.row(["Graft".into(), number(base, 1), number(mixed, 1), ratio(mixed, base), String::new()]);
    let adding = number(get("add_adapter_ms"), 0);
    table.row(["PEFT".into(), number(other_base, 1), number(other, 1), ratio(other, other_base), adding]);
    let times = ratio(other, mixed);
    Ok(format!(
        "**{rows} rows of {tokens} tokens with {rows} LoRAs**: {times} × PEFT's throughput\n\n{table}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_figures_are_told_from_others() {
        let found = line("     64  32 of r=4…64    136.50   151.30    1.140    1.080").expect("a line");
        let figures = [136.5, 151.3, 1.14, 1.08];
        assert_eq!(found, Line { tokens: "64".into(), rows: "32 of r=4…64".into(), figures });
        assert_eq!(line(" tokens  rows               best   middle  of best of middle"), None);
        assert_eq!(
            line("2 threads, 40 turns; best and middle run in ms, throughput relative to the base"),
            None
        );
    }
}
