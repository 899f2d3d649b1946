//! What HTTP costs on top of running the batches.

use std::path::Path;

use super::Options;
use super::adapters::Maker;
use super::bare::Bare;
use super::server::{Server, number as figure};
use crate::bench::table::{Table, number};
use crate::bench::{Bench, median, standard_error};
use crate::error::Result;

/// Words of the texts, and the tokens that they are.
const WORDS: [(&str, usize); 2] = [("14", 16), ("62", 64)];
const ADAPTERS: usize = 32;
/// Seconds in which one client is measured at a time, before it is the session's turn: the machine's pace changes within
/// seconds, by more than what is asked for.
const ONE: f64 = 0.5;
/// The same of many clients, for whom the beginning and the end of a run count.
const MANY: f64 = 5.0;

/// Both sides of one client, one after the other.
#[derive(Clone, Copy)]
struct Alone {
    /// What the client waited and what a row took in the session, ms.
    client: f64,
    session: f64,
    /// What the client waited beyond its requests' own inference, ms.
    beyond: Option<f64>,
}

/// Rows a second of many clients, and of the session.
#[derive(Clone, Copy)]
struct Busy {
    clients: f64,
    session: f64,
}

/// What was found of one length in a turn.
#[derive(Default)]
struct Found {
    alone: Vec<Alone>,
    busy: Vec<Busy>,
}

impl Found {
    fn apart(&self) -> impl Iterator<Item = f64> {
        self.alone.iter().map(|a| a.client - a.session)
    }

    fn of_it(&self) -> impl Iterator<Item = f64> {
        self.busy.iter().map(|b| b.clients / b.session)
    }
}

/// Measures a client alone and many clients. Server and session take turns, in new processes a few times, as processes differ
/// too.
///
/// # Errors
/// When a run fails.
pub fn run(bench: &Bench<'_>, made: &Maker, options: &Options) -> Result<String> {
    let folder = made.folder("few", ADAPTERS)?;
    let turns: Vec<[Found; WORDS.len()]> =
        (0..options.turns.max(1)).map(|_| turn(bench, &folder, options)).collect::<Result<_>>()?;
    let mut alone = Table::new([
        "tokens",
        "one client: p50, ms",
        "a row in the session, ms",
        "the difference, ms",
        "its error",
        "by turn",
        "beyond its own inference, ms",
    ]);
    let mut busy = Table::new([
        "tokens",
        "many clients: rows/s",
        "batches of 32 in the session: rows/s",
        "of it",
        "its error",
        "by turn",
    ]);
    for (k, (_, tokens)) in WORDS.iter().enumerate() {
        let of = || turns.iter().map(|t| &t[k]);
        let by_turn = |of_turn: &dyn Fn(&Found) -> Option<f64>| {
            of().map(|f| number(of_turn(f), 2)).collect::<Vec<_>>().join(", ")
        };
        let middle = |all: &dyn Fn(&Alone) -> Option<f64>| {
            number(median(of().flat_map(|f| &f.alone).filter_map(all).collect()), 2)
        };
        let apart: Vec<f64> = of().flat_map(Found::apart).collect();
        alone.row([
            tokens.to_string(),
            middle(&|a| Some(a.client)),
            middle(&|a| Some(a.session)),
            number(median(apart.clone()), 2),
            number(standard_error(&apart), 2),
            by_turn(&|f| median(f.apart().collect())),
            middle(&|a| a.beyond),
        ]);
        let middle =
            |all: &dyn Fn(&Busy) -> f64| number(median(of().flat_map(|f| &f.busy).map(all).collect()), 0);
        let of_it: Vec<f64> = of().flat_map(Found::of_it).collect();
        busy.row([
            tokens.to_string(),
            middle(&|b| b.clients),
            middle(&|b| b.session),
            number(median(of_it.clone()), 3),
            number(standard_error(&of_it), 3),
            by_turn(&|f| median(f.of_it().collect())),
        ]);
    }
    let (count, clients) = (options.turns.max(1), options.clients);
    Ok(format!(
        "**HTTP on top of inference**: {ADAPTERS} adapters; the clients ({clients} where they are many) run on the same cores, and a \
         session in another process runs the same batches with the same adapters; the two take turns of {ONE} s for one client and \
         {MANY} s for many; the middle of all, in {count} pairs of processes\n\n{alone}\n{busy}"
    ))
}

/// A pair of processes.
fn turn(bench: &Bench<'_>, folder: &Path, options: &Options) -> Result<[Found; WORDS.len()]> {
    let mut bare = Bare::start(bench, folder)?;
    let server = Server::start(bench, folder)?;
    let clients = options.clients.to_string();
    let each = options.seconds / options.turns.max(1) as f64;
    let slices = |seconds: f64| 0..((each / seconds).round() as usize).max(1);
    let mut rows: [Found; WORDS.len()] = Default::default();
    for (found, (words, tokens)) in rows.iter_mut().zip(WORDS) {
        for slice in slices(ONE) {
            let (session, driven) = both(
                slice % 2 == 1,
                || bare.banks(1, tokens, ONE),
                || server.drive(bench, ONE, &["--warmup", "0.1", "--clients", "1", "--words", words]),
            )?;
            let beyond = figure(&driven, "beyond_inference_ms/p50");
            let pair = figure(&driven, "latency_ms/p50").zip(session.middle);
            found.alone.extend(pair.map(|(client, session)| Alone { client, session, beyond }));
        }
        for slice in slices(MANY) {
            let (session, driven) = both(
                slice % 2 == 1,
                || bare.banks(32, tokens, MANY),
                || server.drive(bench, MANY, &["--clients", &clients, "--words", words]),
            )?;
            let pair = figure(&driven, "rows_per_second").zip(session.rows_per_second);
            found.busy.extend(pair.map(|(clients, session)| Busy { clients, session }));
        }
    }
    Ok(rows)
}

/// Does both, the second first if asked to.
fn both<A, B>(
    second_first: bool,
    a: impl FnOnce() -> Result<A>,
    b: impl FnOnce() -> Result<B>,
) -> Result<(A, B)> {
    if second_first {
        let b = b()?;
        Ok((a()?, b))
    } else {
        Ok((a()?, b()?))
    }
}
