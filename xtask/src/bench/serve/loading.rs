//! Loading adapters into the running server, and starting it.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::json;

use super::Options;
use super::adapters::{Maker, remove};
use super::server::{self, Server};
use crate::bench::table::{Table, number};
use crate::bench::{Bench, Figures, figures, median};
use crate::error::{Error, Result, io};
use crate::process;

const ADAPTERS: usize = 32;
/// Between one load and the next.
const PAUSE: Duration = Duration::from_millis(200);

/// Loads adapters by vLLM's route, each from the request until its first answer was read, while another client asks.
///
/// # Errors
/// When a run fails.
pub fn run(bench: &Bench<'_>, made: &Maker, options: &Options) -> Result<String> {
    let folder = made.folder("loading", ADAPTERS)?;
    // Below a folder that is no adapter nothing is served at first.
    let spare = made.folder("spare", options.times)?;
    let below = folder.join("spare");
    std::fs::rename(&spare, &below).map_err(io("cannot move", &spare))?;
    let server = Server::start(bench, &folder)?;
    let asking = ["--clients", "1", "--words", "14", "--adapter", "a0000"];
    let quiet = server.drive(bench, options.seconds, &asking)?;

    // As long as the loads take, and the warm-up before.
    let seconds = 2.0 + options.times as f64 * (PAUSE.as_secs_f64() + 0.1);
    let mut driver = server.driver(bench, seconds, &asking);
    let line = process::shown(&driver);
    let other = driver.stdout(Stdio::piped()).spawn();
    let other = other.map_err(|source| Error::Start { program: "graft".into(), source })?;
    std::thread::sleep(Duration::from_secs(2));
    let (mut loads, mut first, mut whole) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..options.times {
        let began = Instant::now();
        let body = json!({ "lora_name": format!("new{n}"), "lora_path": format!("spare/a{n:04}") });
        server.post("/v1/load_lora_adapter", &body)?;
        loads.push(began.elapsed().as_secs_f64() * 1e3);
        first.push(server.ask(&format!("new{n}"))?);
        whole.push(began.elapsed().as_secs_f64() * 1e3);
        std::thread::sleep(PAUSE);
    }
    let out = other.wait_with_output().map_err(|source| Error::Start { program: "graft".into(), source })?;
    let printed = String::from_utf8_lossy(&out.stdout).into_owned();
    let busy = figures::json_object(&printed).ok_or(Error::Figures { command: line, printed })?;
    drop(server);
    remove(&folder)?;

    let longest = |all: &[f64]| all.iter().copied().reduce(f64::max);
    let mut table = Table::new(["milliseconds", "middle", "longest"]);
    for (name, times) in [("loading", loads), ("its first answer", first), ("both", whole)] {
        let most = longest(&times);
        table.row([name.into(), number(median(times), 1), number(most, 1)]);
    }
    let mut others = Table::new(["another client meanwhile", "p50, ms", "p99, ms", "longest, ms"]);
    let mut row = |name: &str, found: &Figures| {
        let get = |rank: &str| number(server::number(found, &format!("latency_ms/{rank}")), 2);
        others.row([name.into(), get("p50"), get("p99"), get("max")]);
    };
    row("nothing is loaded", &quiet);
    row("adapters are loaded", &busy);
    let (megabytes, times) = (made.bytes()? as f64 / 1e6, options.times);
    Ok(format!(
        "**Loading an adapter into the running server** of {ADAPTERS} others: {megabytes:.2} MB, {times} times\n\n{table}\n{others}"
    ))
}

/// From the start of the process to the first answer.
///
/// # Errors
/// When a run fails.
pub fn start(bench: &Bench<'_>, made: &Maker, options: &Options) -> Result<String> {
    let mut table = Table::new(["adapters", "start to first answer, s: middle", "longest"]);
    for count in [1, ADAPTERS] {
        let folder = made.folder("few", count)?;
        let mut seconds = Vec::new();
        for _ in 0..options.times.div_ceil(4) {
            let began = Instant::now();
            let server = Server::start(bench, &folder)?;
            server.ask("a0000")?;
            seconds.push(began.elapsed().as_secs_f64());
        }
        let most = seconds.iter().copied().reduce(f64::max);
        table.row([count.to_string(), number(median(seconds), 2), number(most, 2)]);
    }
    Ok(format!("**Start of the process to its first answer**\n\n{table}"))
}
