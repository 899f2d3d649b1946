//! Figures of training runs: read from what both sides print, put together by group.

use serde_json::{Map, Value};

use super::table::{Table, number};

/// What the runs of a group have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Graft or PEFT.
    pub side: &'static str,
    /// Where the adapters sit, or which method it is.
    pub sites: &'static str,
    /// How rows come together in batches.
    pub batches: &'static str,
}

/// One training run.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// Its group.
    pub group: Group,
    /// Its seed.
    pub seed: u64,
    /// On the test data, from 0 to 1.
    pub accuracy: f64,
    /// Samples per second of training alone.
    pub samples_per_second: f64,
    /// Peak of the resident memory, in MB.
    pub peak_mb: f64,
    /// Seconds from the start of the command to the end of the first step, where it tells.
    pub first_step: Option<f64>,
}

impl Run {
    /// From the object that `graft train --json` prints.
    pub fn of_graft(group: Group, seed: u64, printed: &Map<String, Value>) -> Option<Run> {
        let get = |key: &str| printed.get(key)?.as_f64();
        Some(Run {
            group,
            seed,
            accuracy: get("accuracy")?,
            samples_per_second: get("samples_per_second")?,
            peak_mb: get("peak_rss_mb")?,
            first_step: get("seconds_to_first_step"),
        })
    }

    /// From the line `RESULT …` of the peer's script.
    pub fn of_peer(group: Group, seed: u64, printed: &Map<String, Value>) -> Option<Run> {
        let get = |key: &str| printed.get(key)?.as_f64();
        let (accuracy, speed, peak_mb) = (get("acc")?, get("samples_per_s")?, get("peak_mb")?);
        Some(Run { group, seed, accuracy, samples_per_second: speed, peak_mb, first_step: None })
    }
}

/// The last line that is a JSON object.
pub fn json_object(printed: &str) -> Option<Map<String, Value>> {
    printed.lines().rev().find_map(|line| serde_json::from_str(line.trim()).ok())
}

/// The last line `RESULT name=value …`. Values are numbers where they look so.
pub fn result_line(printed: &str) -> Option<Map<String, Value>> {
    let line = printed.lines().rev().find_map(|line| line.trim().strip_prefix("RESULT "))?;
    let pairs = line.split_whitespace().filter_map(|pair| pair.split_once('='));
    let value = |text: &str| text.parse::<f64>().map_or_else(|_| Value::from(text), Value::from);
    Some(pairs.map(|(name, text)| (name.to_owned(), value(text))).collect())
}

/// The runs by group, in the order in which the groups first occur.
fn groups(runs: &[Run]) -> Vec<(&Group, Vec<&Run>)> {
    let mut all: Vec<(&Group, Vec<&Run>)> = Vec::new();
    for run in runs {
        match all.iter_mut().find(|(group, _)| **group == run.group) {
            Some((_, members)) => members.push(run),
            None => all.push((&run.group, vec![run])),
        }
    }
    all
}

/// The mean of a figure.
fn mean(runs: &[&Run], figure: fn(&Run) -> f64) -> f64 {
    runs.iter().map(|r| figure(r)).sum::<f64>() / runs.len() as f64
}

/// A row for each group, with the accuracy of each seed.
pub fn by_group(runs: &[Run]) -> Table {
    let mut table = Table::new([
        "side",
        "sites",
        "batches",
        "seeds",
        "accuracy of each, %",
        "mean, %",
        "samples/s (lowest–highest)",
        "peak MB",
        "first step, s",
    ]);
    for (group, runs) in groups(runs) {
        let list = |text: fn(&Run) -> String| runs.iter().map(|r| text(r)).collect::<Vec<_>>().join(", ");
        let fold = |f: fn(f64, f64) -> f64, figure: fn(&Run) -> f64| runs.iter().map(|r| figure(r)).reduce(f);
        let speed = |r: &Run| r.samples_per_second;
        let first = runs.iter().filter_map(|r| r.first_step).reduce(f64::max);
        table.row([
            group.side.into(),
            group.sites.into(),
            group.batches.into(),
            list(|r| r.seed.to_string()),
            list(|r| number(Some(100.0 * r.accuracy), 1)),
            number(Some(100.0 * mean(&runs, |r| r.accuracy)), 2),
            format!(
                "{} ({}–{})",
                number(Some(mean(&runs, speed)), 0),
                number(fold(f64::min, speed), 0),
                number(fold(f64::max, speed), 0)
            ),
            number(fold(f64::max, |r| r.peak_mb), 0),
            number(first, 2),
        ]);
    }
    table
}

/// Each group of Graft's against each of the other side's at the same sites, or whatever else `what` calls them. Empty
/// unless both sides ran.
pub fn comparison(runs: &[Run], what: &str) -> Table {
    let mut table = Table::new([what, "Graft against", "accuracy, points", "speed", "peak memory"]);
    let all = groups(runs);
    for (group, ours) in all.iter().filter(|(g, _)| g.side == GRAFT) {
        for (other, theirs) in all.iter().filter(|(g, _)| g.side != GRAFT && g.sites == group.sites) {
            let times = |figure: fn(&Run) -> f64| mean(ours, figure) / mean(theirs, figure);
            let points = 100.0 * (mean(ours, |r| r.accuracy) - mean(theirs, |r| r.accuracy));
            table.row([
                group.sites.into(),
                format!("{}, {}", other.side, other.batches),
                format!("{points:+.2}"),
                format!("× {:.2}", times(|r| r.samples_per_second)),
                format!("× {:.2}", times(|r| r.peak_mb)),
            ]);
        }
    }
    table
}

/// The name of our own side.
pub const GRAFT: &str = "Graft";
/// The name of the other side.
pub const PEFT: &str = "PEFT";

#[cfg(test)]
mod tests {
    use super::*;

    fn run(side: &'static str, seed: u64, accuracy: f64, speed: f64) -> Run {
        let group = Group { side, sites: "query, value", batches: "of similar length" };
        Run { group, seed, accuracy, samples_per_second: speed, peak_mb: 500.0, first_step: None }
    }

    #[test]
    fn the_peers_result_line_is_read() {
        let printed = "epoch 2 loss 0.2485\nRESULT method=lora acc=0.9380 train_only_s=166.2 samples_per_s=98.4 \
                       total_s=175.3 peak_mb=1491\n";
        let result = result_line(printed).unwrap();
        assert_eq!(result["method"], "lora");
        let group = Group { side: PEFT, sites: "query, value", batches: "random" };
        let read = Run::of_peer(group.clone(), 3, &result).unwrap();
        let expected = Run {
            group,
            seed: 3,
            accuracy: 0.938,
            samples_per_second: 98.4,
            peak_mb: 1491.0,
            first_step: None,
        };
        assert_eq!(read, expected);
        assert_eq!(result_line("no RESULT here"), None);
    }

    #[test]
    fn the_last_json_object_counts() {
        let printed = "{\"a\": 1}\nwords\n{\"accuracy\": 0.9, \"samples_per_second\": 200.5, \"peak_rss_mb\": 410.0}\n[1]\n";
        let object = json_object(printed).unwrap();
        let read = Run::of_graft(run(GRAFT, 0, 0.0, 0.0).group, 7, &object).unwrap();
        assert_eq!(
            (read.accuracy, read.samples_per_second, read.peak_mb, read.first_step),
            (0.9, 200.5, 410.0, None)
        );
        assert_eq!(json_object("words\n"), None);
    }

    #[test]
    fn a_group_shows_every_seed_and_the_mean() {
        let runs = [run(GRAFT, 0, 0.94, 200.0), run(PEFT, 0, 0.93, 100.0), run(GRAFT, 1, 0.95, 220.0)];
        let table = by_group(&runs).to_string();
        let rows: Vec<&str> = table.lines().collect();
        assert_eq!(rows.len(), 4);
        for part in ["| 0, 1 ", "| 94.0, 95.0 ", "| 94.50 ", "| 210 (200–220) "] {
            assert!(rows[2].contains(part), "{part} in {}", rows[2]);
        }
    }

    #[test]
    fn sides_are_compared_at_the_same_sites_only() {
        let mut other = run(PEFT, 0, 0.99, 1.0);
        other.group.sites = "all linear";
        let runs = [run(GRAFT, 0, 0.94, 210.0), run(PEFT, 0, 0.95, 100.0), other];
        let table = comparison(&runs, "sites").to_string();
        assert_eq!(table.lines().count(), 3);
        assert!(table.contains("| -1.00 ") && table.contains("| × 2.10 "), "{table}");
        assert!(comparison(&runs[..1], "sites").is_empty());
    }
}
