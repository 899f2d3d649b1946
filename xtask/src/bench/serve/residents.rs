//! From one adapter in memory to thousands.

use super::Options;
use super::adapters::{Maker, remove};
use super::server::{self, Server};
use crate::bench::Bench;
use crate::bench::table::{Table, number};
use crate::error::Result;

/// Measures a server for each number of adapters.
///
/// # Errors
/// When a run fails.
pub fn run(bench: &Bench<'_>, made: &Maker, options: &Options) -> Result<String> {
    let bytes = made.bytes()? as f64 / 1e6;
    let mut table = Table::new([
        "adapters",
        "requests/s",
        "× the first",
        "p50, ms",
        "p99, ms",
        "rows a batch",
        "resident, MB",
        "growth × the adapters' bytes",
    ]);
    let mut first: Option<(usize, f64, f64)> = None;
    for count in &options.residents {
        let folder = made.folder("residents", *count)?;
        let server = Server::start(bench, &folder)?;
        let clients = options.clients.to_string();
        // Each adapter is asked once before anything is counted.
        let args = ["--clients", &clients, "--words", "14", "--warmup", "2"];
        let found = server.drive(bench, options.seconds, &args)?;
        let memory = server.resident_mb();
        drop(server);
        remove(&folder)?;
        let get = |place: &str| server::number(&found, place);
        let speed = get("requests_per_second");
        if let (None, Some(speed), Some(memory)) = (first, speed, memory) {
            first = Some((*count, speed, memory));
        }
        let growth = first
            .zip(memory)
            .filter(|((n, ..), _)| count > n)
            .map(|((n, _, before), memory)| (memory - before) / ((count - n) as f64 * bytes));
        table.row([
            count.to_string(),
            number(speed, 0),
            number(speed.zip(first).map(|(s, (_, one, _))| s / one), 3),
            number(get("latency_ms/p50"), 1),
            number(get("latency_ms/p99"), 1),
            number(get("rows_per_batch"), 1),
            number(memory, 0),
            number(growth, 2),
        ]);
    }
    let clients = options.clients;
    Ok(format!(
        "**Adapters in memory**: LoRA r = 8 on all linear layers ({bytes:.2} MB each), {clients} clients that wait for their \
         answers, texts of 16 tokens, each adapter as likely\n\n{table}"
    ))
}
