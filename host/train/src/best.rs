//! Which epoch is kept, and when training stops early.

use indexmap::IndexMap;

use crate::error::TrainError;

/// Metrics of one evaluation by name.
pub type Metrics = IndexMap<String, f64>;

/// Whether more or less of a metric is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Accuracy, F1 …
    Higher,
    /// Loss, error …
    Lower,
}

/// The metric that selects the best epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watch {
    /// Its name in the evaluation's metrics.
    pub metric: String,
    /// Which way is better.
    pub direction: Direction,
    /// Stop after so many evaluations in a row without improvement; 0 never stops early.
    pub patience: usize,
}

/// What an evaluation means for the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// This is the best so far and is kept.
    pub improved: bool,
    /// Patience is at its end.
    pub stop: bool,
}

/// Follows a metric through the run. Only a strictly better value is an improvement, so of equal epochs the first is
/// kept; NaN never is one.
#[derive(Debug)]
pub struct Best {
    watch: Watch,
    best: Option<(usize, f64)>,
    since: usize,
}

impl Best {
    /// Nothing seen yet.
    pub fn new(watch: Watch) -> Self {
        Best { watch, best: None, since: 0 }
    }

    /// Takes in the evaluation after `epoch` (from 1).
    ///
    /// # Errors
    /// [`TrainError::NoMetric`] when the watched metric is not among them.
    pub fn see(&mut self, epoch: usize, metrics: &Metrics) -> Result<Verdict, TrainError> {
        let value = *metrics.get(&self.watch.metric).ok_or_else(|| TrainError::NoMetric {
            metric: self.watch.metric.clone(),
            found: metrics.keys().map(String::as_str).collect::<Vec<_>>().join(", "),
        })?;
        let improved = !value.is_nan()
            && self.best.is_none_or(|(_, b)| match self.watch.direction {
                Direction::Higher => value > b,
                Direction::Lower => value < b,
            });
        if improved {
            self.best = Some((epoch, value));
            self.since = 0;
        } else {
            self.since += 1;
        }
        let stop = self.watch.patience > 0 && self.since >= self.watch.patience;
        Ok(Verdict { improved, stop })
    }

    /// Epoch (from 1) and value of the best evaluation so far.
    pub fn best(&self) -> Option<(usize, f64)> {
        self.best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(direction: Direction, patience: usize, values: &[f64]) -> (Option<(usize, f64)>, Option<usize>) {
        let mut b = Best::new(Watch { metric: "m".into(), direction, patience });
        for (i, v) in values.iter().enumerate() {
            if b.see(i + 1, &Metrics::from([("m".into(), *v)])).unwrap().stop {
                return (b.best(), Some(i + 1));
            }
        }
        (b.best(), None)
    }

    #[test]
    fn the_first_of_equal_epochs_is_the_best() {
        assert_eq!(run(Direction::Higher, 0, &[0.5, 0.9, 0.9, 0.1]), (Some((2, 0.9)), None));
        assert_eq!(run(Direction::Lower, 0, &[0.5, 0.2, 0.2]), (Some((2, 0.2)), None));
    }

    #[test]
    fn patience_counts_evaluations_in_a_row() {
        assert_eq!(run(Direction::Higher, 2, &[0.5, 0.4, 0.6, 0.6, 0.5, 0.9]), (Some((3, 0.6)), Some(5)));
    }

    #[test]
    fn nan_is_never_the_best() {
        assert_eq!(run(Direction::Lower, 0, &[f64::NAN, 3.0, f64::NAN]), (Some((2, 3.0)), None));
        assert_eq!(run(Direction::Lower, 2, &[f64::NAN, f64::NAN]), (None, Some(2)));
    }

    #[test]
    fn a_metric_that_is_not_there_is_an_error_with_those_that_are() {
        let mut b = Best::new(Watch { metric: "f2".into(), direction: Direction::Higher, patience: 1 });
        let e = b.see(1, &Metrics::from([("accuracy".into(), 1.0), ("loss".into(), 0.0)])).unwrap_err();
        assert!(e.to_string().ends_with("gives only: accuracy, loss"), "{e}");
    }
}
