//! How fast the processor is, which changes within seconds where it is shared with others.

use std::hint::black_box;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// Between two looks.
const EVERY: Duration = Duration::from_millis(250);
/// Numbers that a look sorts, in about half a millisecond.
const COUNT: u64 = 30_000;

/// The time of the processor, not of the clock, that sorting some numbers took in the middle while something else was done;
/// none where the system does not say.
pub async fn paced<T>(done: impl Future<Output = T>) -> (T, Option<Duration>) {
    let (stop, stopped) = channel::<()>();
    let looks = std::thread::spawn(move || {
        let mut looks = Vec::new();
        while stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
            looks.extend(look());
        }
        looks.sort();
        looks.get(looks.len() / 2).copied()
    });
    let done = done.await;
    drop(stop);
    (done, looks.join().unwrap())
}

#[cfg(target_os = "linux")]
fn look() -> Option<Duration> {
    use rustix::time::{ClockId, clock_gettime};
    let now = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).ok();
    let mut numbers: Vec<u64> = (0..COUNT).map(|k| k.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
    let began = now()?;
    black_box(&mut numbers).sort_unstable();
    now()?.checked_sub(began)
}

#[cfg(not(target_os = "linux"))]
fn look() -> Option<Duration> {
    None
}
