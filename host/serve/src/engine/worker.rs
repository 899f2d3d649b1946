//! The thread that runs batches.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::passes::Passes;
use super::queue::{Item, Queue};
use crate::ask::Refusal;
use crate::store::Store;

pub(super) struct Worker {
    store: Arc<Store>,
    queue: Arc<Queue>,
    passes: Passes,
}

impl Worker {
    pub(super) fn new(store: Arc<Store>, queue: Arc<Queue>, passes: Passes) -> Worker {
        Worker { store, queue, passes }
    }

    /// Runs batches until the queue is closed and empty.
    pub(super) fn run(mut self) {
        while let Some(items) = self.queue.next() {
            let pendings: Vec<_> = items.iter().map(|i| Arc::clone(&i.pending)).collect();
            let one = || self.batch(items);
            if catch_unwind(AssertUnwindSafe(one)).is_err() {
                let why = || Refusal::Internal("running the batch failed".into());
                pendings.iter().for_each(|p| p.refuse(why()));
            }
        }
    }

    fn batch(&mut self, items: Vec<Item>) {
        items.iter().for_each(|i| i.pending.start());
        for group in self.passes.groups(&self.store, items) {
            self.store.metrics.batch(group.iter().map(|i| i.encoding.ids.len()));
            match self.passes.run(&self.store, &group) {
                Ok(answers) => group.iter().zip(answers).for_each(|(i, a)| match a {
                    Ok(answer) => i.pending.answer(i.place, answer),
                    Err(why) => i.pending.refuse(why),
                }),
                Err(why) => group.iter().for_each(|i| i.pending.refuse(why.clone())),
            }
        }
    }
}
