//! Lanes: each has rows of its own that wait, banks that only its batches read and write, and a part of the threads.

use graft_tasks::Threads;

use super::Limits;
use super::waiting::{Owner, Place, Waiting};

/// Rows that wait, from which on two batches at once, each with half of the threads, are better than one after the other with
/// all. Two take 1.7 times as long as one; for fewer rows the first one's answer comes sooner (`docs/benchmarks.md`).
const MANY: usize = 4;

struct Lane<T> {
    rows: Waiting<T>,
    /// A batch that was put together and waits for all threads.
    put: Option<Vec<T>>,
    /// A batch of it is run.
    runs: bool,
    /// It waited while another had all threads, so that no other has them again before.
    owed: bool,
}

impl<T> Lane<T> {
    fn waiting(&self) -> usize {
        self.rows.len() + self.put.as_ref().map_or(0, Vec::len)
    }
}

/// What waits and what is run, in lanes. A batch has half of the threads where there is enough to do for another lane as well;
/// otherwise, and if it is of rows that take all, it has all of them, and lanes come by turns.
pub(super) struct Lanes<T> {
    lanes: Vec<Lane<T>>,
    /// A batch is run with all threads.
    all_run: bool,
    /// Which lane is given out next, where all have as much to do.
    next: usize,
}

impl<T> Lanes<T> {
    pub(super) fn new(count: usize) -> Lanes<T> {
        let lane = |_| Lane { rows: Waiting::default(), put: None, runs: false, owed: false };
        Lanes { lanes: (0..count).map(lane).collect(), all_run: false, next: 0 }
    }

    /// Rows that wait.
    pub(super) fn waiting(&self) -> usize {
        self.lanes.iter().map(Lane::waiting).sum()
    }

    /// Rows of an owner that wait.
    pub(super) fn waiting_of(&self, owner: &Owner) -> usize {
        self.lanes.iter().map(|l| l.rows.len_of(owner)).sum()
    }

    /// The lane with least to do; of equal ones the first from `from` on.
    pub(super) fn idlest(&self, from: usize) -> usize {
        let count = self.lanes.len();
        let load = |k: &usize| self.lanes[*k].waiting() + usize::from(self.lanes[*k].runs);
        (from..from + count).map(|k| k % count).min_by_key(load).unwrap_or_default()
    }

    /// The lane of an adapter that is asked for the first time.
    pub(super) fn give(&mut self) -> usize {
        let lane = self.idlest(self.next);
        self.next = lane + 1;
        lane
    }

    /// Takes a row in.
    pub(super) fn push(&mut self, lane: usize, owner: &Owner, length: usize, row: T) -> Place {
        self.lanes[lane].rows.push(owner, length, row)
    }

    /// Takes a row out, if it still waits.
    pub(super) fn remove(&mut self, lane: usize, place: Place) -> Option<T> {
        self.lanes[lane].rows.remove(place)
    }

    /// Whether a lane has something that it may be able to begin with now.
    pub(super) fn can_begin(&self, lane: usize) -> bool {
        !self.all_run && !self.lanes[lane].runs && self.lanes[lane].waiting() > 0
    }

    fn others(&self, lane: usize) -> impl Iterator<Item = &Lane<T>> {
        self.lanes.iter().enumerate().filter(move |(k, _)| *k != lane).map(|(_, l)| l)
    }

    /// The next batch of a lane and the threads for it, if there are both; [`Lanes::end`] ends it. Rows that nobody wants any
    /// more are dropped. `takes_all` says whether a row takes all threads.
    pub(super) fn begin(
        &mut self,
        lane: usize,
        limits: &Limits,
        wanted: impl Fn(&T) -> bool,
        takes_all: impl Fn(&T) -> bool,
    ) -> Option<(Vec<T>, Threads)> {
        let own = &self.lanes[lane];
        let must_wait = own.put.is_none() && !own.owed && self.others(lane).any(|l| l.put.is_some());
        if self.all_run || own.runs || must_wait {
            return None;
        }
        let beside = self.others(lane).any(|l| l.runs);
        let busy = beside || self.others(lane).any(|l| l.waiting() > 0) && self.waiting() >= MANY;
        let owes = self.others(lane).any(|l| l.owed && l.waiting() > 0);
        if !busy && owes {
            return None;
        }
        // Beside another, a batch has half of the cache as well.
        let pass_tokens = if busy { limits.pass_tokens().div_ceil(2) } else { limits.pass_tokens() };
        let limits = Limits { pass_tokens: Some(pass_tokens), ..*limits };
        let own = &mut self.lanes[lane];
        let batch = own.put.take().unwrap_or_else(|| own.rows.take(&limits, wanted));
        if batch.is_empty() {
            own.owed = false;
            return None;
        }
        let all = batch.iter().any(takes_all);
        if all && (beside || owes) {
            self.lanes[lane].put = Some(batch);
            return None;
        }
        let threads = if all || !busy { Threads::All } else { Threads::Half };
        let own = &mut self.lanes[lane];
        (own.runs, own.owed) = (true, false);
        self.all_run = threads == Threads::All;
        Some((batch, threads))
    }

    /// The batch of a lane is over.
    pub(super) fn end(&mut self, lane: usize, threads: Threads) {
        self.lanes[lane].runs = false;
        if threads == Threads::All {
            self.all_run = false;
            for (k, other) in self.lanes.iter_mut().enumerate() {
                other.owed = k != lane && other.waiting() > 0;
            }
        }
    }
}

#[cfg(test)]
mod tests;
