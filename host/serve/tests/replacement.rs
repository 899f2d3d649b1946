//! Adapters that are replaced all the time, under load: every request is answered, by a revision that was there, with what
//! that revision gives; and former revisions leave memory.
//!
//! `GRAFT_LONG=1` makes it long: 200 adapters, 64 clients, ten replacements a second for two minutes at 70 % of what the
//! machine can do, compared with the same load without replacements, by turns of four seconds, since a machine's pace changes
//! (how long sorting some numbers took says how it was); a number above 1 is so many seconds. `GRAFT_LONG_BASE` and
//! `GRAFT_LONG_ADAPTERS` name another base and a folder of adapters of it; `--release` and a machine that has nothing else to do
//! are needed for the numbers to mean something.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;
mod storm;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use common::{House, Plan as HousePlan, change, copy};
use graft_serve::access::{Access, KeyFile};
use graft_serve::{Limits, Watcher};
use storm::pace::paced;
use storm::{Plan, Report, Storm, folders};
use tempfile::TempDir;

/// Turns of the long run: many short ones, so that a slow moment of the machine's does not meet the one side alone. In each one it
/// is measured again what the machine can do; the mean until then counts, since a lucky second would ask for more than can be
/// done for long.
const TURNS: u32 = 30;

fn plan() -> HousePlan {
    let access = Access::new(&KeyFile { admin: Some("root".into()), ..KeyFile::default() });
    HousePlan { access, ..HousePlan::default() }
}

/// Adapters of the tiny base that answer differently.
fn variants(house: &House) -> (TempDir, Vec<PathBuf>) {
    let dir = tempfile::tempdir().unwrap();
    let made = [("lora", 1.0), ("lora", 2.0), ("ia3", 1.5), ("lora", 3.0), ("ia3", 0.5)];
    let made = made.into_iter().enumerate().map(|(k, (of, factor))| {
        let place = dir.path().join(k.to_string());
        copy(&house.golden(of), &place);
        change(&place, "classifier", factor);
        place
    });
    let made = made.collect();
    (dir, made)
}

fn shown(what: &str, report: &Report) {
    println!(
        "{what}: {:.0} requests/s, p50 {:.1} ms, p99 {:.1} ms, {} answers, {} replacements",
        report.throughput(),
        report.percentile(0.5).as_secs_f64() * 1e3,
        report.percentile(0.99).as_secs_f64() * 1e3,
        report.latencies.len(),
        report.replaced,
    );
}

fn nothing_wrong(report: &Report) {
    let (wrong, all) = (report.wrong.len(), report.latencies.len());
    assert!(report.wrong.is_empty(), "{wrong} of {all}: {:#?}", report.wrong);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn adapters_are_replaced_under_load_and_nobody_notices() {
    let Some(house) = House::with(plan()) else { return };
    let _watcher = Watcher::start(Arc::clone(&house.engine.store), Duration::from_millis(50)).unwrap();
    let (_dir, variants) = variants(&house);
    let storm = Arc::new(Storm::new(house, &variants, 12).await);
    let seconds = Duration::from_secs(5);
    let plan = Plan { clients: 6, rate: None, replacements: 20.0, in_folder: true, lasts: seconds };
    let report = storm.run(&plan).await;
    shown("replaced under load", &report);
    nothing_wrong(&report);
    assert!(report.replaced > 0 && !report.latencies.is_empty());
    assert_eq!(storm.leaked().await, 0, "former revisions stay in memory");
}

#[tokio::test(flavor = "multi_thread")]
async fn long_run_of_replacements_at_seventy_percent() {
    let Some(long) = std::env::var_os("GRAFT_LONG") else {
        println!("skipped: GRAFT_LONG is not set");
        return;
    };
    // As `graft serve` does.
    graft_runtime::map_large_blocks();
    let given = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let limits = Some(Limits::default());
    let (house, (_dir, variants)) = match (given("GRAFT_LONG_BASE"), given("GRAFT_LONG_ADAPTERS")) {
        (Some(base), Some(adapters)) => {
            let house = House::over(&base, HousePlan { limits, ..plan() }).unwrap();
            (house, (tempfile::tempdir().unwrap(), folders(&adapters)))
        }
        _ => {
            let Some(house) = House::with(HousePlan { limits, ..plan() }) else { return };
            let variants = variants(&house);
            (house, variants)
        }
    };
    let _watcher = Watcher::start(Arc::clone(&house.engine.store), Duration::from_secs(1)).unwrap();
    let storm = Arc::new(Storm::new(house, &variants, 200).await);
    let seconds = long.to_str().and_then(|s| s.parse().ok()).filter(|s| *s > 1).unwrap_or(120);
    let slice = Duration::from_secs(seconds) / TURNS;
    let plan = Plan { clients: 64, rate: None, replacements: 0.0, in_folder: false, lasts: slice };
    let mut capacity = storm.run(&Plan { lasts: slice / 2, ..plan.clone() }).await;
    let (mut calm, mut report) = (Report::default(), Report::default());
    for turn in 0..TURNS {
        capacity.add(storm.run(&Plan { lasts: slice / 5, ..plan.clone() }).await);
        let rate = Some(0.7 * capacity.throughput());
        for replaces in [turn % 2 == 0, turn % 2 == 1] {
            let replacements = if replaces { 10.0 } else { 0.0 };
            let (of, what) = if replaces { (&mut report, "replaced") } else { (&mut calm, "calm") };
            let sliced = Plan { rate, replacements, ..plan.clone() };
            let (slice, pace) = paced(storm.run(&sliced)).await;
            let pace = pace.map(|p| format!(", sorting {:.2} ms", p.as_secs_f64() * 1e3)).unwrap_or_default();
            shown(&format!("turn {turn}, {what}{pace}"), &slice);
            of.add(slice);
        }
    }
    shown("as much as can be", &capacity);
    shown("at 70 %, nothing replaced", &calm);
    shown("at 70 %, ten replaced a second", &report);
    println!(
        "throughput {:.3} and p99 {:.2} of those without replacements",
        report.throughput() / calm.throughput(),
        report.percentile(0.99).as_secs_f64() / calm.percentile(0.99).as_secs_f64()
    );
    nothing_wrong(&report);
    assert_eq!(storm.leaked().await, 0, "former revisions stay in memory");
}
