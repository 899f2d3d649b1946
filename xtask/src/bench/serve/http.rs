//! What HTTP costs on top of running the batches.

use std::path::Path;

use super::Options;
use super::adapters::Maker;
use super::bare::Bare;
use super::server::{self, Server};
use crate::bench::table::{Table, number};
use crate::bench::{Bench, median};
use crate::error::Result;

/// Words of the texts, and the tokens that they are.
const WORDS: [(&str, usize); 2] = [("14", 16), ("62", 64)];
const ADAPTERS: usize = 32;

/// Figures of one length, in the order of the table's columns.
type Row = [Option<f64>; 7];

/// Measures a client alone and many clients. Both sides run in turn, in new processes each time, as processes differ and
/// the machine's pace changes; what is told is the middle of the turns.
///
/// # Errors
/// When a run fails.
pub fn run(bench: &Bench<'_>, made: &Maker, options: &Options) -> Result<String> {
    let folder = made.folder("few", ADAPTERS)?;
    let turns = options.turns.max(1);
    let found: Vec<[Row; WORDS.len()]> =
        (0..turns).map(|_| turn(bench, &folder, options, turns)).collect::<Result<_>>()?;
    let mut table = Table::new([
        "tokens",
        "one client: p50, ms",
        "a row in the session, ms",
        "the difference, ms",
        "one client: p50 beyond inference, ms",
        "many clients: rows/s",
        "batches of 32 in the session: rows/s",
        "of it",
        "of it, turn by turn",
    ]);
    for (k, (_, tokens)) in WORDS.iter().enumerate() {
        let column = |c: usize| found.iter().filter_map(|t| t[k][c]).collect::<Vec<_>>();
        let middle = |c: usize, digits| number(median(column(c)), digits);
        let each: Vec<String> = column(6).into_iter().map(|of| number(Some(of), 2)).collect();
        table.row([
            tokens.to_string(),
            middle(0, 2),
            middle(1, 2),
            middle(2, 2),
            middle(3, 2),
            middle(4, 0),
            middle(5, 0),
            middle(6, 3),
            each.join(", "),
        ]);
    }
    let clients = options.clients;
    Ok(format!(
        "**HTTP on top of inference**: {ADAPTERS} adapters; the clients ({clients} where they are many) run on the same cores, \
         and the session runs the same batches with the same adapters in another process; beyond inference is a request's \
         time less that of its own inference; the middle of {turns} turns\n\n{table}"
    ))
}

/// Both sides once.
fn turn(bench: &Bench<'_>, folder: &Path, options: &Options, turns: usize) -> Result<[Row; WORDS.len()]> {
    let shapes = ["1x16", "32x16", "1x64", "32x64"];
    let repeats = options.repeats.div_ceil(turns);
    let bare = Bare::run(bench, folder, repeats, None, &shapes)?;
    let server = Server::start(bench, folder)?;
    let (seconds, clients) = (options.seconds / turns as f64, options.clients.to_string());
    let mut rows: [Row; WORDS.len()] = Default::default();
    for (row, (words, tokens)) in rows.iter_mut().zip(WORDS) {
        let one = server.drive(bench, seconds, &["--clients", "1", "--words", words])?;
        let many = server.drive(bench, seconds, &["--clients", &clients, "--words", words])?;
        let p50 = server::number(&one, "latency_ms/p50");
        let beyond = server::number(&one, "beyond_inference_ms/p50");
        let (alone, most) = (bare.of(1, tokens).1, bare.rows_per_second(32, tokens));
        let answered = server::number(&many, "rows_per_second");
        let apart = p50.zip(alone).map(|(a, b)| a - b);
        *row = [p50, alone, apart, beyond, answered, most, answered.zip(most).map(|(a, b)| a / b)];
    }
    Ok(rows)
}
