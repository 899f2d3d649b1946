//! Counters of single adapters: of the busiest hundred, and of all others together. There may be thousands of adapters,
//! and each name is a series that Prometheus keeps.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{CounterVec, Opts};

/// Adapters with counters of their own.
const MOST: usize = 100;
/// Adapters of which is remembered how busy they are.
const REMEMBERED: usize = 100_000;
/// How much busier than the least busy one with counters another has to be to take its place.
const MARGIN: u64 = 2;
/// The label of all others; an adapter of that name is counted among them.
const OTHER: &str = "other";

#[derive(Debug, Default, Clone, Copy)]
struct Sums {
    requests: u64,
    tokens: u64,
    seconds: f64,
}

impl Sums {
    fn add(&mut self, more: Sums) {
        self.requests += more.requests;
        self.tokens += more.tokens;
        self.seconds += more.seconds;
    }
}

#[derive(Debug, Default)]
pub(super) struct Busiest {
    /// Requests that each was ever asked.
    ranks: HashMap<Arc<str>, u64>,
    own: HashMap<Arc<str>, Sums>,
    other: Sums,
}

impl Busiest {
    pub(super) fn count(&mut self, name: &Arc<str>, tokens: u64, time: Duration) {
        let more = Sums { requests: 1, tokens, seconds: time.as_secs_f64() };
        if self.ranks.len() >= REMEMBERED && !self.ranks.contains_key(name) {
            return self.other.add(more);
        }
        let rank = self.ranks.entry(Arc::clone(name)).or_default();
        *rank += 1;
        let rank = *rank;
        if let Some(sums) = self.own.get_mut(name) {
            return sums.add(more);
        }
        if self.own.len() >= MOST && !self.make_room(rank) {
            return self.other.add(more);
        }
        self.own.insert(Arc::clone(name), more);
    }

    /// Moves the least busy adapter to the others, if `rank` is well above it. What the others have never sinks: it would
    /// look like a restart.
    fn make_room(&mut self, rank: u64) -> bool {
        let of = |name: &Arc<str>| self.ranks.get(name).copied().unwrap_or(0);
        let least = self.own.keys().min_by_key(|n| of(n)).cloned();
        match least {
            Some(name) if rank > of(&name).saturating_mul(MARGIN) => {
                let sums = self.own.remove(&name).unwrap_or_default();
                self.other.add(sums);
                true
            }
            _ => false,
        }
    }

    pub(super) fn gather(&self) -> Vec<MetricFamily> {
        type Of = fn(&Sums) -> f64;
        let families: [(&str, &str, Of); 3] = [
            ("graft_adapter_requests_total", "Requests answered by an adapter", |s| s.requests as f64),
            ("graft_adapter_tokens_total", "Tokens of the texts that an adapter answered", |s| {
                s.tokens as f64
            }),
            ("graft_adapter_request_seconds_total", "Seconds that requests to an adapter took", |s| {
                s.seconds
            }),
        ];
        let all = || self.own.iter().map(|(n, s)| (&**n, s)).chain([(OTHER, &self.other)]);
        let family = |(name, help, of): (&str, &str, Of)| {
            let counters = CounterVec::new(Opts::new(name, help), &["adapter"]).ok()?;
            all().for_each(|(n, sums)| counters.with_label_values(&[n]).inc_by(of(sums)));
            Some(counters.collect())
        };
        families.into_iter().filter_map(family).flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(i: usize) -> Arc<str> {
        format!("a{i}").into()
    }

    #[test]
    fn the_busiest_have_counters_and_the_others_share_one() {
        let mut all = Busiest::default();
        (0..MOST + 5).for_each(|i| all.count(&name(i), 10, Duration::from_secs(1)));
        assert_eq!((all.own.len(), all.other.requests, all.other.tokens), (MOST, 5, 50));
        // One of the others becomes busy: it takes the place of an idle one.
        let busy = name(MOST + 1);
        (0..3).for_each(|_| all.count(&busy, 10, Duration::from_secs(1)));
        assert_eq!(all.own.len(), MOST);
        assert!(all.own.contains_key(&busy));
        let sum: u64 = all.own.values().map(|s| s.requests).sum::<u64>() + all.other.requests;
        assert_eq!(sum, (MOST + 5 + 3) as u64, "nothing is lost");
    }

    #[test]
    fn what_the_others_have_never_sinks() {
        let (mut all, mut before) = (Busiest::default(), 0);
        for i in 0..5000usize {
            all.count(&name(i * i % 307), 1, Duration::ZERO);
            assert!(all.other.requests >= before);
            before = all.other.requests;
        }
    }
}
