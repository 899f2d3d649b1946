//! How often each adapter may be asked: a bucket for each that fills at its rate. A request may be larger than what is in
//! it, and then those behind wait for longer.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::ask::Refusal;

/// Limits in texts a second, and what of them is used up.
#[derive(Debug, Default)]
pub struct Rates {
    everyone: Option<f64>,
    own: HashMap<String, f64>,
    buckets: Mutex<HashMap<String, Bucket>>,
}

#[derive(Debug)]
struct Bucket {
    texts: f64,
    seen: Instant,
}

impl Rates {
    /// `everyone` is the limit of each adapter that has none of its `own`. Neither is below 0.001.
    pub fn new(everyone: Option<f64>, own: HashMap<String, f64>) -> Rates {
        Rates { everyone, own, buckets: Mutex::default() }
    }

    /// Takes `texts` for an adapter.
    ///
    /// # Errors
    /// [`Refusal::Rate`] where too much was taken before.
    pub fn take(&self, name: &str, texts: usize) -> Result<(), Refusal> {
        self.take_at(name, texts, Instant::now())
    }

    fn take_at(&self, name: &str, texts: usize, now: Instant) -> Result<(), Refusal> {
        let Some(rate) = self.own.get(name).copied().or(self.everyone) else { return Ok(()) };
        let rate = rate.max(0.001);
        // What a second fills, and always room for one.
        let room = rate.max(1.0);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = buckets.entry(name.to_owned()).or_insert(Bucket { texts: room, seen: now });
        let filled = now.saturating_duration_since(bucket.seen).as_secs_f64() * rate;
        bucket.texts = (bucket.texts + filled).min(room);
        bucket.seen = now;
        if bucket.texts < 1.0 {
            let wait = ((1.0 - bucket.texts) / rate).min(3600.0);
            return Err(Refusal::Rate { name: name.to_owned(), retry_after: Duration::from_secs_f64(wait) });
        }
        bucket.texts -= texts as f64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_emptied_and_fills_again() {
        let rates = Rates::new(None, HashMap::from([("slow".to_owned(), 2.0)]));
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        assert!(rates.take_at("slow", 1, at(0)).is_ok());
        assert!(rates.take_at("slow", 1, at(0)).is_ok());
        let refused = rates.take_at("slow", 1, at(0)).expect_err("the bucket is empty");
        assert_eq!(refused.retry_after(), Some(1));
        assert!(rates.take_at("slow", 1, at(500)).is_ok());
        assert!(rates.take_at("fast", 1_000_000, at(0)).is_ok(), "no limit");
    }

    #[test]
    fn a_large_request_is_taken_and_those_behind_wait() {
        let rates = Rates::new(Some(1.0), HashMap::new());
        let start = Instant::now();
        assert!(rates.take_at("a", 10, start).is_ok());
        let refused = rates.take_at("a", 1, start).expect_err("nine too many");
        assert_eq!(refused.retry_after(), Some(10));
        assert!(rates.take_at("a", 1, start + Duration::from_secs(10)).is_ok());
        assert!(rates.take_at("b", 1, start).is_ok(), "each its own");
    }
}
