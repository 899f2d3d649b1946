//! What waits to be run, and who waits for it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use graft_data::Encoding;
use graft_plugins::api::Row;
use graft_tasks::Threads;
use serde_json::Value;
use tokio::sync::oneshot;

use super::lanes::Lanes;
use super::waiting::Place;
use super::{Limits, Reply};
use crate::ask::{Refusal, Want};
use crate::form::Form;
use crate::store::{Resident, Store};

/// A request of which rows are waited for.
pub(super) struct Pending {
    deadline: Option<Instant>,
    taken: Instant,
    answers: Mutex<Answers>,
}

struct Answers {
    answers: Vec<Option<Value>>,
    left: usize,
    started: Option<Instant>,
    ended: Option<Instant>,
    reply: Option<oneshot::Sender<Reply>>,
}

impl Pending {
    pub(super) fn new(rows: usize, reply: oneshot::Sender<Reply>, deadline: Option<Instant>) -> Pending {
        let state =
            Answers { answers: vec![None; rows], left: rows, started: None, ended: None, reply: Some(reply) };
        Pending { deadline, taken: Instant::now(), answers: state.into() }
    }

    fn state(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody still wants the answer. Who is too late is told so.
    pub(super) fn wanted(&self) -> bool {
        if self.deadline.is_some_and(|d| Instant::now() >= d) {
            self.refuse(Refusal::Deadline);
        }
        self.state().reply.as_ref().is_some_and(|r| !r.is_closed())
    }

    /// Whether all of its rows were answered.
    fn is_answered(&self) -> bool {
        self.state().left == 0
    }

    /// Its first row is being run.
    pub(super) fn start(&self) {
        self.state().started.get_or_insert_with(Instant::now);
    }

    /// What was run of its rows until now came out.
    pub(super) fn end(&self) {
        self.state().ended = Some(Instant::now());
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
            let inference = state.ended.map_or(Duration::ZERO, |e| e.saturating_duration_since(started));
            let _ = reply.send(Ok((answers, started.saturating_duration_since(self.taken), inference)));
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
    /// Whether it is run in a session of its own.
    pub(super) alone: bool,
}

impl Item {
    /// What it is run and answered by.
    ///
    /// # Errors
    /// Why its adapter has none, which was looked at before it was taken in.
    pub(super) fn form(&self, store: &Store) -> Result<&Form, Refusal> {
        let form = self.resident.form(store, self.want).map_err(Refusal::Invalid)?;
        form.ok_or_else(|| Refusal::Invalid("the adapter has no head".into()))
    }
}

struct State {
    lanes: Lanes<Item>,
    /// Which of those who run batches wait.
    idle: Vec<bool>,
    closed: bool,
}

impl State {
    /// Where a row waits: those of an adapter in one lane, whose banks it is in; those of the base, which is in the banks of
    /// all, where there is least to do.
    fn lane_of(&mut self, item: &Item) -> usize {
        if item.resident.by.adapter.is_none() && !item.alone {
            return self.lanes.idlest(0);
        }
        *item.resident.lane.get_or_init(|| self.lanes.give())
    }
}

/// The rows that wait.
pub(super) struct Queue {
    limits: Limits,
    state: Mutex<State>,
    /// For each of those who run batches, as many as there are lanes.
    changed: Vec<Condvar>,
}

/// A batch whose turn it is. Dropped, its threads are free.
pub(super) struct Turn<'q> {
    /// Its rows.
    pub(super) items: Vec<Item>,
    /// Its threads.
    pub(super) threads: Threads,
    /// Its lane.
    pub(super) lane: usize,
    queue: &'q Queue,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        state.lanes.end(self.lane, self.threads);
        // Who ends a batch looks for the next one, so that nobody else is woken for it.
        if state.closed {
            self.queue.changed.iter().for_each(Condvar::notify_one);
        }
    }
}

/// The places of a request in the queue. Dropped, they are given up.
pub(super) struct Held {
    queue: Arc<Queue>,
    pending: Arc<Pending>,
    /// In which lane, and where there.
    places: Vec<(usize, Place)>,
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.pending.is_answered() {
            let mut state = self.queue.lock();
            self.places.iter().for_each(|(lane, p)| drop(state.lanes.remove(*lane, *p)));
        }
    }
}

impl Queue {
    pub(super) fn new(limits: Limits, lanes: usize) -> Queue {
        let state = State { lanes: Lanes::new(lanes), idle: vec![false; lanes], closed: false };
        let changed = (0..lanes).map(|_| Condvar::new()).collect();
        Queue { limits, state: Mutex::new(state), changed }
    }

    /// How many batches may run at once.
    pub(super) fn lanes(&self) -> usize {
        self.changed.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn waiting(&self) -> usize {
        self.lock().lanes.waiting()
    }

    /// Takes the rows of a request in, all or none.
    ///
    /// # Errors
    /// [`Refusal::Busy`], [`Refusal::Stopping`].
    pub(super) fn push(self: &Arc<Queue>, pending: &Arc<Pending>, items: Vec<Item>) -> Result<Held, Refusal> {
        let owner = items.first().and_then(|i| i.resident.by.adapter.clone());
        let mut state = self.lock();
        if state.closed {
            return Err(Refusal::Stopping);
        }
        let full = |waiting: usize, most: usize| waiting > 0 && waiting + items.len() > most;
        let busy = |adapter| Err(Refusal::Busy { adapter, retry_after: Duration::from_secs(1) });
        if full(state.lanes.waiting(), self.limits.queue_rows) {
            return busy(None);
        }
        if let Some(name) = &owner
            && full(state.lanes.waiting_of(&owner), self.limits.adapter_queue_rows())
        {
            return busy(Some(Arc::clone(name)));
        }
        let mut places = Vec::with_capacity(items.len());
        for item in items {
            let lane = state.lane_of(&item);
            let length = item.encoding.ids.len();
            places.push((lane, state.lanes.push(lane, &owner, length, item)));
        }
        self.wake(&mut state);
        drop(state);
        Ok(Held { queue: Arc::clone(self), pending: Arc::clone(pending), places })
    }

    /// Wakes one who waits, if there may be something to begin with: the first one, since what it needs is in its caches if it
    /// ran the last batch.
    fn wake(&self, state: &mut State) {
        if (0..self.lanes()).any(|lane| state.lanes.can_begin(lane))
            && let Some(first) = state.idle.iter().position(|idle| *idle)
        {
            state.idle[first] = false;
            self.changed[first].notify_one();
        }
    }

    /// Nothing more is taken in.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.iter().for_each(Condvar::notify_one);
    }

    /// The next batch for one of those who run them, waited for; `None` when the queue is closed and empty.
    pub(super) fn next(&self, who: usize) -> Option<Turn<'_>> {
        let mut state = self.lock();
        loop {
            // Twice: a lane may have waited for rows of another that nobody wants any more.
            for lane in (0..self.lanes()).chain(0..self.lanes()) {
                let begun = state.lanes.begin(lane, &self.limits, |i| i.pending.wanted(), |i| i.alone);
                if let Some((items, threads)) = begun {
                    self.wake(&mut state);
                    return Some(Turn { items, threads, lane, queue: self });
                }
            }
            if state.closed && state.lanes.waiting() == 0 {
                return None;
            }
            state.idle[who] = true;
            state = self.changed[who].wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle[who] = false;
        }
    }
}
