//! What is shown of a data set before training.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::tokenizer::Encoding;

/// How many rows have a label.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassCount {
    /// The label.
    pub label: String,
    /// Rows with it.
    pub count: usize,
    /// Their share of all rows, from 0 to 1.
    pub share: f64,
}

/// Lengths of the rows in tokens, special tokens included, before truncation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Lengths {
    /// Mean.
    pub mean: f64,
    /// Median (nearest rank).
    pub p50: usize,
    /// 95th percentile (nearest rank).
    pub p95: usize,
    /// The longest row.
    pub max: usize,
    /// Rows that truncation cuts.
    pub truncated: usize,
    /// Their share, from 0 to 1.
    pub truncated_share: f64,
}

/// Class balance and lengths.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stats {
    /// Number of rows.
    pub rows: usize,
    /// Classes, the most frequent first; empty without labels.
    pub classes: Vec<ClassCount>,
    /// Token lengths; `None` without text.
    pub lengths: Option<Lengths>,
    /// Columns of numbers by the fields that they are for.
    pub numbers: Vec<NumberStats>,
}

/// A column of numbers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NumberStats {
    /// The field that it is for.
    pub field: String,
    /// Mean.
    pub mean: f64,
    /// Standard deviation of the population.
    pub deviation: f64,
    /// The smallest.
    pub low: f64,
    /// The largest.
    pub high: f64,
}

impl Stats {
    /// Statistics over rows; `labels` and `encodings` have one item a row where they are given, `labels` more or fewer
    /// where rows have several or none.
    pub fn new(rows: usize, labels: Option<&[&str]>, encodings: Option<&[Encoding]>) -> Stats {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for label in labels.unwrap_or_default() {
            *counts.entry(label).or_default() += 1;
        }
        let mut classes: Vec<ClassCount> = counts
            .into_iter()
            .map(|(label, count)| ClassCount { label: label.to_owned(), count, share: share(count, rows) })
            .collect();
        classes.sort_by_key(|c| std::cmp::Reverse(c.count));
        Stats { rows, classes, lengths: encodings.and_then(lengths), numbers: Vec::new() }
    }
}

fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn lengths(encodings: &[Encoding]) -> Option<Lengths> {
    let mut sorted: Vec<usize> = encodings.iter().map(|e| e.full_length).collect();
    sorted.sort_unstable();
    let max = *sorted.last()?;
    let rank = |percent: usize| sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1];
    let truncated = encodings.iter().filter(|e| e.is_cut()).count();
    Some(Lengths {
        mean: sorted.iter().map(|n| *n as f64).sum::<f64>() / sorted.len() as f64,
        p50: rank(50),
        p95: rank(95),
        max,
        truncated,
        truncated_share: share(truncated, sorted.len()),
    })
}

/// Labels that are listed; the rest is summed up in a line.
const LISTED: usize = 20;
const BAR: usize = 20;

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rows", self.rows)?;
        if let Some(l) = &self.lengths {
            write!(f, "\ntokens   mean {:.1}   p50 {}   p95 {}   max {}", l.mean, l.p50, l.p95, l.max)?;
            write!(f, "   cut {} ({:.1} %)", l.truncated, 100.0 * l.truncated_share)?;
        }
        for n in &self.numbers {
            write!(f, "\n{}   mean {:.4}   deviation {:.4}", n.field, n.mean, n.deviation)?;
            write!(f, "   from {:.4} to {:.4}", n.low, n.high)?;
        }
        if self.classes.is_empty() {
            return Ok(());
        }
        let shown = &self.classes[..self.classes.len().min(LISTED)];
        let name = |c: &ClassCount| c.label.chars().take(40).collect::<String>();
        let width =
            shown.iter().map(|c| name(c).chars().count()).max().unwrap_or_default().max("label".len());
        write!(f, "\n{:width$}  {:>8}  {:>7}", "label", "rows", "share")?;
        for c in shown {
            let most = self.classes[0].count.max(1);
            let bar = "▪".repeat((c.count * BAR).div_ceil(most));
            write!(f, "\n{:width$}  {:>8}  {:>5.1} %  {bar}", name(c), c.count, 100.0 * c.share)?;
        }
        if let Some(rest) = self.classes.get(LISTED..).filter(|r| !r.is_empty()) {
            let rows: usize = rest.iter().map(|c| c.count).sum();
            let least = rest.last().map_or(0, |c| c.count);
            write!(f, "\nand {} more labels with {rows} rows, the rarest with {least}", rest.len())?;
        }
        Ok(())
    }
}
