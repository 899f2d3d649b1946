//! Holding out a part of the rows.

use std::collections::BTreeMap;

use crate::error::DataError;
use crate::rng::Rng;

/// Row numbers of the two parts, each in ascending order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// Rows to train on.
    pub train: Vec<usize>,
    /// Rows held out.
    pub held_out: Vec<usize>,
}

/// Holds out `fraction` of `rows` rows, drawn with `seed`. With labels, every class gives its share: the quotas are
/// rounded by largest remainders, and no class gives its last row. The split is a function of the arguments.
///
/// # Errors
/// [`DataError::BadFraction`], [`DataError::LabelCount`], and [`DataError::EmptySplit`] when a part has no row.
pub fn split(rows: usize, labels: Option<&[&str]>, fraction: f64, seed: u64) -> Result<Split, DataError> {
    if !(fraction > 0.0 && fraction < 1.0) {
        return Err(DataError::BadFraction { fraction });
    }
    if let Some(labels) = labels.filter(|l| l.len() != rows) {
        return Err(DataError::LabelCount { found: labels.len(), rows });
    }
    let mut classes: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for row in 0..rows {
        classes.entry(labels.map_or("", |l| l[row])).or_default().push(row);
    }
    let wanted = (rows as f64 * fraction).round() as usize;
    let sizes: Vec<usize> = classes.values().map(Vec::len).collect();
    let quotas = quotas(&sizes, wanted, fraction);
    let (mut train, mut held_out) = (Vec::new(), Vec::new());
    for (class, (mut members, quota)) in classes.into_values().zip(quotas).enumerate() {
        Rng::new("split", &[seed, class as u64]).shuffle(&mut members);
        train.extend_from_slice(&members[quota..]);
        members.truncate(quota);
        held_out.append(&mut members);
    }
    if train.is_empty() || held_out.is_empty() {
        return Err(DataError::EmptySplit { rows, train: train.len(), held_out: held_out.len() });
    }
    train.sort_unstable();
    held_out.sort_unstable();
    Ok(Split { train, held_out })
}

/// How many rows each class gives: its share rounded down, and one more for the largest remainders.
fn quotas(sizes: &[usize], wanted: usize, fraction: f64) -> Vec<usize> {
    let mut quotas: Vec<usize> =
        sizes.iter().map(|n| ((*n as f64 * fraction) as usize).min(n.saturating_sub(1))).collect();
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    let remainder = |i: usize| sizes[i] as f64 * fraction - quotas[i] as f64;
    let remainders: Vec<f64> = (0..sizes.len()).map(remainder).collect();
    order.sort_by(|a, b| remainders[*b].total_cmp(&remainders[*a]).then(a.cmp(b)));
    let mut left = wanted.saturating_sub(quotas.iter().sum());
    for i in order {
        if left > 0 && quotas[i] + 1 < sizes[i] {
            quotas[i] += 1;
            left -= 1;
        }
    }
    quotas
}
