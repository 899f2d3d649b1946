//! What waits to be run, and who waits for it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use graft_data::Encoding;
use graft_plugins::api::Row;
use graft_tasks::Threads;
use serde_json::Value;
use tokio::sync::oneshot;

use super::waiting::{Owner, Place, Waiting};
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

/// What waits for the banks that its adapters are in.
#[derive(Default)]
struct Lane {
    rows: Waiting<Item>,
    /// A batch that was put together and waits for all threads.
    put: Option<Vec<Item>>,
    runs: bool,
}

impl Lane {
    fn is_empty(&self) -> bool {
        self.rows.len() == 0 && self.put.is_none()
    }

    /// Rows that wait or are being run, the latter counted as one.
    fn load(&self) -> usize {
        self.rows.len() + self.put.as_ref().map_or(0, Vec::len) + usize::from(self.runs)
    }
}

struct State {
    lanes: Vec<Lane>,
    /// A batch runs with all threads.
    all_run: bool,
    /// The lane of the next adapter that is asked for the first time, where all have as much to do.
    next: usize,
    closed: bool,
}

impl State {
    fn waiting(&self) -> usize {
        self.lanes.iter().map(|l| l.rows.len() + l.put.as_ref().map_or(0, Vec::len)).sum()
    }

    fn waiting_of(&self, owner: &Owner) -> usize {
        self.lanes.iter().map(|l| l.rows.len_of(owner)).sum()
    }

    fn others(&self, lane: usize) -> impl Iterator<Item = &Lane> {
        self.lanes.iter().enumerate().filter(move |(k, _)| *k != lane).map(|(_, l)| l)
    }

    /// The lane that has least to do; of equal ones the first from `from` on.
    fn idlest(&self, from: usize) -> usize {
        let count = self.lanes.len();
        (from..from + count).map(|k| k % count).min_by_key(|k| self.lanes[*k].load()).unwrap_or_default()
    }

    /// Where a row waits: what is in banks, for those that have it.
    fn lane_of(&mut self, item: &Item) -> usize {
        if item.alone || item.resident.by.adapter.is_none() {
            return self.idlest(0);
        }
        *item.resident.lane.get_or_init(|| {
            let lane = self.idlest(self.next);
            self.next = lane + 1;
            lane
        })
    }

    /// A batch of a lane and the threads for it, if there are both.
    fn turn(&mut self, lane: usize, limits: &Limits) -> Option<(Vec<Item>, Threads)> {
        let put = self.lanes[lane].put.take();
        if self.all_run || put.is_none() && self.others(lane).any(|l| l.put.is_some()) {
            self.lanes[lane].put = put;
            return None;
        }
        let beside = self.others(lane).any(|l| l.runs);
        // A batch that nothing can run beside has all threads.
        let threads =
            if beside || self.others(lane).any(|l| !l.is_empty()) { Threads::Half } else { Threads::All };
        let pass_tokens = match threads {
            Threads::All => limits.pass_tokens(),
            Threads::Half => limits.pass_tokens().div_ceil(2),
        };
        let limits = Limits { pass_tokens: Some(pass_tokens), ..*limits };
        let batch = put.unwrap_or_else(|| self.lanes[lane].rows.take(&limits, |i| i.pending.wanted()));
        if batch.is_empty() {
            return None;
        }
        // A session of its own has all threads.
        let alone = batch.iter().any(|i| i.alone);
        if alone && beside {
            self.lanes[lane].put = Some(batch);
            return None;
        }
        let threads = if alone { Threads::All } else { threads };
        self.lanes[lane].runs = true;
        self.all_run = threads == Threads::All;
        Some((batch, threads))
    }
}

/// The rows that wait: in lanes, each with the threads of its own and banks that only its batches read and write. A batch has
/// all threads while the other lane has nothing to do.
pub(super) struct Queue {
    limits: Limits,
    state: Mutex<State>,
    /// For each lane.
    changed: Vec<Condvar>,
}

/// A batch whose turn it is. Dropped, its threads are free.
pub(super) struct Turn<'q> {
    /// Its rows.
    pub(super) items: Vec<Item>,
    /// Its threads.
    pub(super) threads: Threads,
    lane: usize,
    queue: &'q Queue,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        state.lanes[self.lane].runs = false;
        state.all_run &= self.threads != Threads::All;
        for (lane, changed) in state.lanes.iter().zip(&self.queue.changed) {
            if state.closed || !lane.runs && !lane.is_empty() {
                changed.notify_one();
            }
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
            self.places.iter().for_each(|(lane, p)| drop(state.lanes[*lane].rows.remove(*p)));
        }
    }
}

impl Queue {
    pub(super) fn new(limits: Limits, lanes: usize) -> Queue {
        let changed = (0..lanes).map(|_| Condvar::new()).collect();
        let lanes = (0..lanes).map(|_| Lane::default()).collect();
        let state = State { lanes, all_run: false, next: 0, closed: false };
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
        self.lock().waiting()
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
        if full(state.waiting(), self.limits.queue_rows) {
            return busy(None);
        }
        if let Some(name) = &owner
            && full(state.waiting_of(&owner), self.limits.adapter_queue_rows())
        {
            return busy(Some(Arc::clone(name)));
        }
        let mut places = Vec::with_capacity(items.len());
        for item in items {
            let lane = state.lane_of(&item);
            places.push((lane, state.lanes[lane].rows.push(&owner, item.encoding.ids.len(), item)));
        }
        // Nobody is woken for threads that are taken: who frees them looks again.
        for (k, changed) in self.changed.iter().enumerate() {
            if !state.all_run && !state.lanes[k].runs && places.iter().any(|(lane, _)| *lane == k) {
                changed.notify_one();
            }
        }
        drop(state);
        Ok(Held { queue: Arc::clone(self), pending: Arc::clone(pending), places })
    }

    /// Nothing more is taken in.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.iter().for_each(Condvar::notify_all);
    }

    /// The next batch of a lane, waited for; `None` when the queue is closed and has none.
    pub(super) fn next(&self, lane: usize) -> Option<Turn<'_>> {
        let mut state = self.lock();
        loop {
            if let Some((items, threads)) = state.turn(lane, &self.limits) {
                return Some(Turn { items, threads, lane, queue: self });
            }
            if state.closed && state.lanes[lane].is_empty() {
                return None;
            }
            state = self.changed[lane].wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
