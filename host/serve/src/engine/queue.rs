//! What waits to be run, and what a batch takes of it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use graft_data::Encoding;
use graft_plugins::api::Row;
use serde_json::Value;
use tokio::sync::oneshot;

use super::{Limits, Reply};
use crate::ask::{Refusal, Want};
use crate::store::Resident;

/// A request of which rows are waited for.
pub(super) struct Pending {
    deadline: Option<Instant>,
    taken: Instant,
    state: Mutex<State>,
}

struct State {
    answers: Vec<Option<Value>>,
    left: usize,
    started: Option<Instant>,
    reply: Option<oneshot::Sender<Reply>>,
}

impl Pending {
    pub(super) fn new(rows: usize, reply: oneshot::Sender<Reply>, deadline: Option<Instant>) -> Pending {
        let state = State { answers: vec![None; rows], left: rows, started: None, reply: Some(reply) };
        Pending { deadline, taken: Instant::now(), state: state.into() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody still wants the answer. Who is too late is told so.
    pub(super) fn wanted(&self) -> bool {
        if self.deadline.is_some_and(|d| Instant::now() >= d) {
            self.refuse(Refusal::Deadline);
        }
        self.state().reply.as_ref().is_some_and(|r| !r.is_closed())
    }

    /// Its first row is being run.
    pub(super) fn start(&self) {
        self.state().started.get_or_insert_with(Instant::now);
    }

    /// One of its rows is answered; the last one answers the request.
    pub(super) fn answer(&self, place: usize, answer: Value) {
        let mut state = self.state();
        if state.answers.get(place).is_some_and(Option::is_none) {
            state.answers[place] = Some(answer);
            state.left -= 1;
        }
        if state.left == 0
            && let Some(reply) = state.reply.take()
        {
            let answers = std::mem::take(&mut state.answers).into_iter().flatten().collect();
            let started = state.started.unwrap_or(self.taken);
            let _ = reply.send(Ok((answers, started - self.taken, started.elapsed())));
        }
    }

    /// The request is refused, once.
    pub(super) fn refuse(&self, why: Refusal) {
        if let Some(reply) = self.state().reply.take() {
            let _ = reply.send(Err(why));
        }
    }
}

/// A row that waits.
pub(super) struct Item {
    pub(super) resident: Arc<Resident>,
    pub(super) want: Want,
    pub(super) row: Row,
    pub(super) encoding: Encoding,
    pub(super) pending: Arc<Pending>,
    pub(super) place: usize,
}

#[derive(Default)]
struct Waiting {
    items: Vec<Item>,
    closed: bool,
}

/// The rows that wait, oldest first.
pub(super) struct Queue {
    limits: Limits,
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

impl Queue {
    pub(super) fn new(limits: Limits) -> Queue {
        Queue { limits, waiting: Mutex::default(), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn waiting(&self) -> usize {
        self.lock().items.len()
    }

    /// Takes rows in, all or none.
    pub(super) fn push(&self, items: Vec<Item>) -> Result<(), Refusal> {
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(Refusal::Stopping);
        }
        if waiting.items.len() + items.len() > self.limits.queue_rows {
            // Places of those who went away are free.
            waiting.items.retain(|i| i.pending.wanted());
        }
        if !waiting.items.is_empty() && waiting.items.len() + items.len() > self.limits.queue_rows {
            return Err(Refusal::Busy { retry_after: Duration::from_secs(1) });
        }
        waiting.items.extend(items);
        drop(waiting);
        self.changed.notify_one();
        Ok(())
    }

    /// Nothing more is taken in.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// The next batch, waited for; `None` when the queue is closed and empty.
    pub(super) fn next(&self) -> Option<Vec<Item>> {
        let mut waiting = self.lock();
        loop {
            waiting.items.retain(|i| i.pending.wanted());
            if !waiting.items.is_empty() {
                return Some(take(&mut waiting.items, &self.limits));
            }
            if waiting.closed {
                return None;
            }
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The oldest row and those nearest to its length, as many as fit.
fn take(items: &mut Vec<Item>, limits: &Limits) -> Vec<Item> {
    let length = |i: &Item| i.encoding.ids.len();
    let mut by_length: Vec<usize> = (0..items.len()).collect();
    by_length.sort_by_key(|i| (length(&items[*i]), *i));
    let oldest = by_length.iter().position(|i| *i == 0).unwrap_or(0);
    let (mut low, mut high) = (oldest, oldest + 1);
    while high - low < limits.batch_rows {
        let longest = |high: usize| length(&items[by_length[high - 1]]).max(1);
        let of = |k: usize| length(&items[by_length[k]]);
        let below = (low > 0).then(|| of(oldest) - of(low - 1));
        let above = (high < by_length.len()).then(|| of(high) - of(oldest));
        let up = match (below, above) {
            (None, None) => break,
            (Some(b), Some(a)) => a <= b,
            (None, Some(_)) => true,
            (Some(_), None) => false,
        };
        let (l, h) = if up { (low, high + 1) } else { (low - 1, high) };
        if (h - l) * longest(h) > limits.batch_tokens {
            break;
        }
        (low, high) = (l, h);
    }
    let mut chosen = vec![false; items.len()];
    by_length[low..high].iter().for_each(|i| chosen[*i] = true);
    let mut keep = chosen.iter();
    items.extract_if(.., |_| *keep.next().unwrap_or(&false)).collect()
}
