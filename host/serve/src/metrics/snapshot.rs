//! The numbers at a moment, for who draws them itself.

use prometheus::core::Metric;
use serde::Serialize;

use super::Metrics;

/// Sums since the start, and what waits now. Rates are differences of two of them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Snapshot {
    /// Requests answered.
    pub answered: u64,
    /// Requests refused.
    pub refused: u64,
    /// Rows answered.
    pub rows: u64,
    /// Tokens that were run, padding not included.
    pub tokens: u64,
    /// Padding that was run.
    pub padding: u64,
    /// Passes.
    pub passes: u64,
    /// Rows that wait.
    pub waiting: usize,
    /// Threads that run a batch.
    pub threads: i64,
    /// How long requests took.
    pub durations: Durations,
}

/// Counts of durations.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Durations {
    /// Upper ends, in seconds.
    pub bounds: Vec<f64>,
    /// How many there were up to each end and above the one before; then those above the last.
    pub counts: Vec<u64>,
}

impl Metrics {
    /// The numbers now; `waiting` rows wait.
    pub fn snapshot(&self, waiting: usize) -> Snapshot {
        let of = |result: &str| self.requests.with_label_values(&[result]).get();
        Snapshot {
            answered: of("answered"),
            refused: of("refused"),
            rows: self.texts.get(),
            tokens: self.tokens.get(),
            padding: self.padding.get(),
            passes: self.batch_rows.get_sample_count(),
            waiting,
            threads: self.threads.get(),
            durations: self.durations(),
        }
    }

    fn durations(&self) -> Durations {
        let metric = self.seconds.whole.metric();
        let histogram = metric.get_histogram();
        let buckets = histogram.get_bucket();
        let bounds = buckets.iter().map(|b| b.upper_bound()).collect();
        let up_to = buckets.iter().map(|b| b.cumulative_count()).chain([histogram.get_sample_count()]);
        let counts = up_to.scan(0, |below, n| Some(n.saturating_sub(std::mem::replace(below, n)))).collect();
        Durations { bounds, counts }
    }
}
