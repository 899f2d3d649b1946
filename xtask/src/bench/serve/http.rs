//! What HTTP costs on top of running the batches.

use super::Options;
use super::adapters::Maker;
use super::bare::Bare;
use super::server::{self, Server};
use crate::bench::Bench;
use crate::bench::table::{Table, number};
use crate::error::Result;

/// Words of the texts, and the tokens that they are.
const WORDS: [(&str, usize); 2] = [("14", 16), ("62", 64)];
const ADAPTERS: usize = 32;

/// Measures a client alone and many clients.
///
/// # Errors
/// When a run fails.
pub fn run(bench: &Bench<'_>, made: &Maker, options: &Options) -> Result<String> {
    let folder = made.folder("few", ADAPTERS)?;
    let shapes = ["1x16", "32x16", "1x64", "32x64"];
    let bare = Bare::run(bench, &folder, options.repeats, &bench.trec.test, &shapes)?;
    let server = Server::start(bench, &folder)?;
    let mut table = Table::new([
        "tokens",
        "one client: p50, ms",
        "a row in the session, ms",
        "on top, ms",
        "many clients: rows/s",
        "batches of 32 in the session: rows/s",
        "of it",
    ]);
    for (words, tokens) in WORDS {
        let one = server.drive(bench, options.seconds, &["--clients", "1", "--words", words])?;
        let clients = options.clients.to_string();
        let many = server.drive(bench, options.seconds, &["--clients", &clients, "--words", words])?;
        let p50 = server::number(&one, "latency_ms/p50");
        let (alone, batch) = (bare.of(1, tokens).1, bare.of(32, tokens).1);
        let rows = server::number(&many, "rows_per_second");
        let most = batch.map(|ms| 32.0 / ms * 1e3);
        table.row([
            tokens.to_string(),
            number(p50, 2),
            number(alone, 2),
            number(p50.zip(alone).map(|(a, b)| a - b), 2),
            number(rows, 0),
            number(most, 0),
            number(rows.zip(most).map(|(a, b)| a / b), 3),
        ]);
    }
    let clients = options.clients;
    Ok(format!(
        "**HTTP on top of inference**: {ADAPTERS} adapters; the clients ({clients} where they are many) run on the same cores, \
         and the session runs the same batches with the same adapters\n\n{table}"
    ))
}
