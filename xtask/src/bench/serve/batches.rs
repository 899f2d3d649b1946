//! 32 rows with 32 adapters in one batch.

use super::adapters::Maker;
use super::bare::Bare;
use super::{Options, server};
use crate::bench::figures;
use crate::bench::peers::Peer;
use crate::bench::table::{Table, number};
use crate::bench::{Bench, median, output};
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
    /// Best and middle run in milliseconds, the throughput relative to the base by the best and by the middle of the
    /// rounds, and that one's error.
    figures: [f64; 5],
}

fn line(printed: &str) -> Option<Line> {
    let words: Vec<&str> = printed.split_whitespace().collect();
    let (rest, last) = words.split_last_chunk::<5>()?;
    let (tokens, rows) = rest.split_first()?;
    tokens.parse::<usize>().ok()?;
    let mut figures = [0.0; 5];
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
    command.args([bench.threads, options.turns.max(1)].map(|n| n.to_string()));
    command.arg("cpu").arg(options.rounds.max(1).to_string());
    command.args(options.tokens.iter().map(ToString::to_string));
    let printed = output(&mut command)?;
    let lines: Vec<Line> = printed.lines().filter_map(line).collect();
    if lines.is_empty() {
        return Err(Error::Figures { command: process::shown(&command), printed });
    }
    let mut table = Table::new([
        "tokens",
        "32 rows",
        "middle, ms",
        "best, ms",
        "× base by the middle round",
        "its error",
        "× base, best",
    ]);
    for Line { tokens, rows, figures: [best, middle, of_best, of_it, error] } in lines {
        let of = |n: f64, digits| number(Some(n), digits);
        table.row([tokens, rows, of(middle, 1), of(best, 1), of(of_it, 3), of(error, 3), of(of_best, 3)]);
    }
    let mut report =
        format!("**32 rows with 32 adapters**, beside the base's file as ONNX Runtime runs it\n\n{table}");
    if let Some(peer) = peer {
        report.push('\n');
        report.push_str(&beside(bench, made, options, peer)?);
    }
    Ok(report)
}

/// What one turn found, ms.
struct Turn {
    base: f64,
    mixed: f64,
    their_base: f64,
    theirs: f64,
    adding: Option<f64>,
}

/// PEFT's `adapter_names`, and the same batch here, in turn.
fn beside(bench: &Bench<'_>, made: &Maker, options: &Options, peer: &Peer<'_>) -> Result<String> {
    let (rows, tokens) = PEER;
    let folder = made.folder("few", rows)?;
    let mut ours = Bare::start(bench, &folder)?;
    let turns = options.turns.max(1);
    let seconds = options.seconds / turns as f64;
    let mut found = Vec::new();
    for _ in 0..turns {
        let base = ours.base(rows, tokens, seconds)?.middle;
        let mixed = ours.banks(rows, tokens, seconds)?.middle;
        let theirs = bench.measured("serve", &mut peer.serving(rows, rows, tokens), figures::result_line)?;
        let get = |key: &str| server::number(&theirs, key);
        let all = base.zip(mixed).zip(get("base_ms").zip(get("mixed_ms")));
        found.extend(all.map(|((base, mixed), (their_base, theirs))| {
            let adding = get("add_adapter_ms");
            Turn { base, mixed, their_base, theirs, adding }
        }));
    }
    let middle = |of: &dyn Fn(&Turn) -> Option<f64>, digits| {
        number(median(found.iter().filter_map(of).collect()), digits)
    };
    let mut table =
        Table::new(["side", "base alone, ms", "32 adapters, ms", "× its base", "adding an adapter, ms"]);
    table.row([
        "Graft".into(),
        middle(&|t| Some(t.base), 1),
        middle(&|t| Some(t.mixed), 1),
        middle(&|t| Some(t.mixed / t.base), 2),
        String::new(),
    ]);
    table.row([
        "PEFT".into(),
        middle(&|t| Some(t.their_base), 1),
        middle(&|t| Some(t.theirs), 1),
        middle(&|t| Some(t.theirs / t.their_base), 2),
        middle(&|t| t.adding, 0),
    ]);
    let times: Vec<String> = found.iter().map(|t| number(Some(t.theirs / t.mixed), 2)).collect();
    let (ratio, times) = (middle(&|t| Some(t.theirs / t.mixed), 2), times.join(", "));
    Ok(format!(
        "**{rows} rows of {tokens} tokens with {rows} LoRAs**: {ratio} × PEFT's throughput, the middle of {turns} turns \
         ({times})\n\n{table}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_figures_are_told_from_others() {
        let found =
            line("     64  32 of r=4…64    136.50   151.30    1.140    1.080    0.012").expect("a line");
        let figures = [136.5, 151.3, 1.14, 1.08, 0.012];
        assert_eq!(found, Line { tokens: "64".into(), rows: "32 of r=4…64".into(), figures });
        assert_eq!(line(" tokens  rows               best   middle  of best    of it    error"), None);
        assert_eq!(
            line("2 threads, 20 rounds in 5 processes a side; ms of the best and the middle run"),
            None
        );
    }
}
