//! Work on adapters, on threads of its own that come after those that answer.

use std::sync::OnceLock;

use rayon::{ThreadPool, ThreadPoolBuilder};
use tokio::runtime::{Builder, Runtime};
use tokio::task::{self, JoinHandle};

/// How many there are at most: some may wait for a slow disk.
const THREADS: usize = 64;
/// Threads that make sessions: whoever needs one at once must not wait for the larger one of others.
const MAKERS: usize = 4;
/// By how much those of adapters come after others. A tenth of their share where somebody else wants the processor, all of
/// it where nobody does; and not so little that who waits for a lock that one of them holds would wait long.
const NICE: i32 = 10;

fn pool() -> Option<&'static Runtime> {
    static POOL: OnceLock<Option<Runtime>> = OnceLock::new();
    let start = || {
        let mut builder = Builder::new_current_thread();
        builder.max_blocking_threads(THREADS).thread_name("loading").on_thread_start(step_back);
        builder.build().ok()
    };
    POOL.get_or_init(start).as_ref()
}

/// Does something that reads adapters, or waits for who does.
pub(crate) fn spawn<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    match pool() {
        Some(pool) => pool.spawn_blocking(work),
        None => task::spawn_blocking(work),
    }
}

/// Lets the others go first from now on.
pub(crate) fn step_back() {
    // On Linux a thread has a priority of its own; elsewhere this would be the process's.
    #[cfg(target_os = "linux")]
    if let Err(e) = rustix::process::nice(NICE) {
        tracing::debug!("a thread keeps its priority: {e}");
    }
}

/// Threads that make what has threads itself: these inherit the priority of who starts them.
#[derive(Default)]
pub(crate) struct Makers(OnceLock<Option<ThreadPool>>);

impl Makers {
    /// Starts them, on a thread that has its priority still.
    pub(crate) fn start(&self) {
        let name = |_| "sessions".to_owned();
        self.0.get_or_init(|| ThreadPoolBuilder::new().num_threads(MAKERS).thread_name(name).build().ok());
    }

    /// Makes something there, and waits for it.
    pub(crate) fn make<T: Send>(&self, make: impl FnOnce() -> T + Send) -> T {
        match self.0.get() {
            Some(Some(pool)) => pool.install(make),
            _ => make(),
        }
    }
}
