//! What an adapter answered since it was loaded.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::ask::{Answered, Refusal};
use crate::spread::Spread;

/// Counts of one resident, which end with it.
#[derive(Debug, Default)]
pub struct Tally {
    success: Sum,
    fail: Sum,
    queue: Sum,
    tokenization: Sum,
    inference: Sum,
    rows: AtomicU64,
    last: AtomicU64,
    latency: Spread,
}

#[derive(Debug, Default)]
struct Sum {
    count: AtomicU64,
    nanoseconds: AtomicU64,
}

/// How often something took how long in all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    /// How often.
    pub count: u64,
    /// How long.
    pub nanoseconds: u64,
}

/// A [`Tally`] at a moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests that were answered.
    pub success: Spent,
    /// Requests that were refused or failed; those that were given up by the asker are in neither.
    pub fail: Spent,
    /// Waiting.
    pub queue: Spent,
    /// Making tokens of texts.
    pub tokenization: Spent,
    /// Being run.
    pub inference: Spent,
    /// Answered rows.
    pub rows: u64,
    /// The last answer or refusal, in milliseconds since 1970; 0 for none.
    pub last: u64,
}

impl Sum {
    fn add(&self, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.count.fetch_add(1, Ordering::Relaxed);
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    fn spent(&self) -> Spent {
        let read = |n: &AtomicU64| n.load(Ordering::Relaxed);
        Spent { count: read(&self.count), nanoseconds: read(&self.nanoseconds) }
    }
}

impl Tally {
    /// Counts what became of a request, and how long it took from its beginning.
    pub fn add(&self, answered: &Result<Answered, Refusal>, took: Duration) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last.store(u64::try_from(now.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        let Ok(answered) = answered else { return self.fail.add(took) };
        self.success.add(took);
        self.latency.add(took);
        self.queue.add(answered.times.queue);
        self.tokenization.add(answered.times.tokenization);
        self.inference.add(answered.times.inference);
        self.rows.fetch_add(answered.answers.len() as u64, Ordering::Relaxed);
    }

    /// How long answered requests took from their beginning.
    pub fn latency(&self) -> &Spread {
        &self.latency
    }

    /// What was counted until now.
    pub fn counts(&self) -> Counts {
        Counts {
            success: self.success.spent(),
            fail: self.fail.spent(),
            queue: self.queue.spent(),
            tokenization: self.tokenization.spent(),
            inference: self.inference.spent(),
            rows: self.rows.load(Ordering::Relaxed),
            last: self.last.load(Ordering::Relaxed),
        }
    }
}
