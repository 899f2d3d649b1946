//! The threads that run batches, as many as there are lanes, and the one beside them that makes answers of what they gave while the
//! next batches run.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

use super::decode;
use super::passes::{Passes, Ran};
use super::queue::{Item, Queue, Turn};
use crate::ask::Refusal;
use crate::store::Store;

/// Groups that wait for their answers while another runs; beyond, the thread that runs batches waits for them.
const BEHIND: usize = 2;

/// Rows of a group that is answered where it was run, if no other waits.
const FEW: usize = 4;

/// Starts the threads. They end when the queue is closed and all of it answered.
///
/// # Errors
/// What the system says where it has no thread to give.
pub(super) fn start(
    store: &Arc<Store>,
    queue: &Arc<Queue>,
    passes: impl Fn(usize) -> Passes,
) -> io::Result<Vec<JoinHandle<()>>> {
    let (groups, ran) = sync_channel(BEHIND * queue.lanes());
    let for_answers = Arc::clone(store);
    let answers = Builder::new().name("answers".into()).spawn(move || answer_all(&for_answers, &ran))?;
    let mut threads = vec![answers];
    let passes: Arc<[_]> = (0..queue.lanes()).map(|lane| Mutex::new(passes(lane))).collect();
    for who in 0..queue.lanes() {
        let (store, queue, passes) = (Arc::clone(store), Arc::clone(queue), Arc::clone(&passes));
        let worker = Worker { who, store, queue, passes, groups: groups.clone() };
        threads.push(Builder::new().name("inference".into()).spawn(move || worker.run())?);
    }
    Ok(threads)
}

/// A group that was run.
struct Group {
    items: Vec<Item>,
    ran: Vec<Ran>,
}

impl Group {
    fn answer(self, store: &Store) {
        let Group { items, ran } = self;
        let answers = catch_unwind(AssertUnwindSafe(|| decode::answers(store, &items, ran)));
        match answers {
            Ok(answers) => items.iter().zip(answers).for_each(|(i, a)| match a {
                Ok(answer) => i.pending.answer(i.place, answer),
                Err(why) => i.pending.refuse(why),
            }),
            Err(_) => {
                let why = || Refusal::Internal("making answers of what came out failed".into());
                items.iter().for_each(|i| i.pending.refuse(why()));
            }
        }
    }
}

/// Who runs batches, of any lane.
struct Worker {
    who: usize,
    store: Arc<Store>,
    queue: Arc<Queue>,
    /// Of each lane, which one batch at a time uses.
    passes: Arc<[Mutex<Passes>]>,
    groups: SyncSender<Group>,
}

impl Worker {
    /// Runs batches until the queue is closed and empty.
    fn run(self) {
        while let Some(turn) = self.queue.next(self.who) {
            let pendings: Vec<_> = turn.items.iter().map(|i| Arc::clone(&i.pending)).collect();
            let one = || self.batch(turn);
            if catch_unwind(AssertUnwindSafe(one)).is_err() {
                let why = || Refusal::Internal("running the batch failed".into());
                pendings.iter().for_each(|p| p.refuse(why()));
            }
        }
    }

    fn batch(&self, mut turn: Turn<'_>) {
        let items = std::mem::take(&mut turn.items);
        let threads = turn.threads;
        items.iter().for_each(|i| i.pending.start());
        let passes = self.passes[turn.lane].lock().unwrap_or_else(PoisonError::into_inner);
        let mut groups = passes.groups(&self.store, items).into_iter();
        let mut held = Some((passes, turn));
        while let Some(group) = groups.next() {
            let Some((passes, _)) = &mut held else { break };
            let last = groups.len() == 0;
            self.store.metrics.batch(group.iter().map(|i| i.encoding.ids.len()));
            let ran = passes.run(&self.store, &group, threads);
            if last {
                // Who waits for these threads need not wait for the answers.
                held = None;
            }
            match ran {
                Ok(ran) => {
                    group.iter().for_each(|i| i.pending.end());
                    let group = Group { items: group, ran };
                    if last && group.items.len() <= FEW && self.queue.waiting() == 0 {
                        // There is nothing to run meanwhile, and to hand so little over takes longer than to answer.
                        group.answer(&self.store);
                    } else {
                        // The other thread ends after this one.
                        let _ = self.groups.send(group);
                    }
                }
                Err(why) => group.iter().for_each(|i| i.pending.refuse(why.clone())),
            }
        }
    }
}

/// Answers groups until no more can come.
fn answer_all(store: &Store, groups: &Receiver<Group>) {
    groups.iter().for_each(|group| group.answer(store));
}
