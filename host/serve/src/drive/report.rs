//! Figures of a run.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::scrape::Numbers;
use super::{Outcome, Plan, Sample};

/// Latencies of requests that were answered, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Latencies {
    /// Half of the requests took no longer.
    pub p50: f64,
    /// Nine of ten took no longer.
    pub p90: f64,
    /// 99 of 100 took no longer.
    pub p99: f64,
    /// The longest.
    pub max: f64,
    /// The mean.
    pub mean: f64,
}

/// What was measured.
#[derive(Debug, Clone)]
pub struct Report {
    /// From the first request to the last answer, in seconds.
    pub seconds: f64,
    /// Requests that were answered.
    pub answered: usize,
    /// Texts that were answered.
    pub rows: usize,
    /// Requests that were refused because there was too much to do.
    pub refused: usize,
    /// Requests without an answer for another reason, by what it was.
    pub errors: BTreeMap<String, usize>,
    /// Of all that were answered; `None` where none was.
    pub latencies: Option<Latencies>,
    /// Of all that were answered, less the time of inference: what the server and the way to it take, waiting
    /// included. `None` where no answer says how long inference took.
    pub beyond_inference: Option<Latencies>,
    /// Of each adapter: how many were answered and how fast.
    pub by_adapter: Vec<(String, usize, Option<Latencies>)>,
    /// What the server counted meanwhile, of everybody's requests; why that is not known.
    pub served: Result<Numbers, String>,
}

impl Latencies {
    /// Of these durations.
    fn of(mut all: Vec<Duration>) -> Option<Latencies> {
        all.sort_unstable();
        let ms = |d: Duration| d.as_secs_f64() * 1e3;
        // The nearest rank: never a duration that did not occur.
        let rank = |part: f64| {
            let place = (part * all.len() as f64).ceil() as usize;
            all.get(place.clamp(1, all.len().max(1)) - 1).copied().map(ms)
        };
        let mean = all.iter().sum::<Duration>().as_secs_f64() * 1e3 / all.len() as f64;
        Some(Latencies { p50: rank(0.5)?, p90: rank(0.9)?, p99: rank(0.99)?, max: rank(1.0)?, mean })
    }
}

impl Report {
    pub(super) fn of(
        plan: &Plan,
        samples: &[Sample],
        seconds: f64,
        served: Result<Numbers, String>,
    ) -> Report {
        let answered = |s: &&Sample| s.outcome == Outcome::Answered;
        let mut errors = BTreeMap::new();
        for sample in samples.iter().filter(|s| !answered(s)) {
            if !matches!(sample.outcome, Outcome::Refused(_)) {
                *errors.entry(sample.outcome.kind()).or_default() += 1;
            }
        }
        let mut own: Vec<Vec<Duration>> = plan.mix.adapters().map(|_| Vec::new()).collect();
        samples.iter().filter(answered).for_each(|s| own[s.adapter].push(s.took));
        let own = plan.mix.adapters().zip(own);
        let all: Vec<Duration> = samples.iter().filter(answered).map(|s| s.took).collect();
        let beyond = |s: &Sample| Some(s.took.saturating_sub(s.inference?));
        let beyond = samples.iter().filter(answered).filter_map(beyond).collect();
        Report {
            seconds,
            answered: all.len(),
            rows: all.len() * plan.rows,
            refused: samples.iter().filter(|s| matches!(s.outcome, Outcome::Refused(_))).count(),
            errors,
            latencies: Latencies::of(all),
            beyond_inference: Latencies::of(beyond),
            by_adapter: own.map(|(n, took)| (n.to_owned(), took.len(), Latencies::of(took))).collect(),
            served,
        }
    }

    /// So many a second.
    pub fn per_second(&self, count: f64) -> f64 {
        if self.seconds > 0.0 { count / self.seconds } else { 0.0 }
    }

    /// All figures; those that are not known are null.
    pub fn json(&self) -> Value {
        let served = self.served.as_ref().ok();
        let adapters = self.by_adapter.iter().map(|(name, answered, latencies)| {
            json!({ "name": name, "answered": answered, "latency_ms": latencies })
        });
        json!({
            "seconds": self.seconds,
            "answered": self.answered,
            "refused": self.refused,
            "errors": self.errors,
            "requests_per_second": self.per_second(self.answered as f64),
            "rows_per_second": self.per_second(self.rows as f64),
            "tokens_per_second": served.map(|n| self.per_second(n.tokens)),
            "padding": served.map(Numbers::waste),
            "rows_per_batch": served.filter(|n| n.batches > 0.0).map(|n| n.rows / n.batches),
            "latency_ms": self.latencies,
            "beyond_inference_ms": self.beyond_inference,
            "adapters": adapters.collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_durations_that_occurred() {
        let ms = |n: u64| Duration::from_millis(n);
        let all = (1..=200).rev().map(ms).collect();
        let found = Latencies::of(all).expect("there are some");
        assert_eq!((found.p50, found.p90, found.p99, found.max), (100.0, 180.0, 198.0, 200.0));
        assert!((found.mean - 100.5).abs() < 1e-9);
        let one = Latencies::of(vec![ms(7)]).expect("there is one");
        assert_eq!((one.p50, one.p99, one.max), (7.0, 7.0, 7.0));
        assert_eq!(Latencies::of(Vec::new()), None);
    }
}
