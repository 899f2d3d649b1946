//! When requests are sent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::Plan;
use super::client::Outcome;
use super::mix::Draw;

/// When requests are sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// So many clients, each of which waits for its answer and then asks again.
    Clients(usize),
    /// So many requests a second on average, at random times that depend on no answer. At most so many are under way;
    /// those that have to wait for that wait at the server's expense.
    Rate {
        /// Requests a second.
        rate: f64,
        /// Most requests under way.
        most: usize,
    },
}

/// One request.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    /// The adapter, by its place in the mix.
    pub(super) adapter: usize,
    /// From the time at which it was to be sent until its answer was there.
    pub(super) took: Duration,
    /// Of that being run; `None` where the server does not say.
    pub(super) inference: Option<Duration>,
    pub(super) outcome: Outcome,
}

/// Sends requests for a while and waits for their answers; how long all of it took, in seconds. Each `part` of a run draws
/// numbers of its own.
pub(super) async fn run(plan: &Arc<Plan>, duration: Duration, part: u64) -> (Vec<Sample>, f64) {
    let began = Instant::now();
    let end = began + duration;
    let samples = match plan.pace {
        Pace::Clients(clients) => closed(plan, clients, end, part << 32).await,
        Pace::Rate { rate, most } => open(plan, rate, most, (began, end), part << 32).await,
    };
    (samples, began.elapsed().as_secs_f64())
}

/// A request that was to be sent at `due`.
async fn one(plan: &Plan, adapter: usize, texts: &[&str], due: Instant) -> Sample {
    let (outcome, inference) = plan.client.outcome(plan.mix.name(adapter), texts).await;
    Sample { adapter, took: due.elapsed(), inference, outcome }
}

async fn closed(plan: &Arc<Plan>, clients: usize, end: Instant, stream: u64) -> Vec<Sample> {
    let mut tasks = JoinSet::new();
    for n in 0..clients as u64 {
        let plan = Arc::clone(plan);
        tasks.spawn(async move {
            let mut draw = Draw::new(plan.seed, stream + n);
            let mut samples = Vec::new();
            while Instant::now() < end {
                let adapter = plan.mix.adapter(&mut draw);
                let texts = plan.mix.texts(&mut draw, plan.rows);
                let sample = one(&plan, adapter, &texts, Instant::now()).await;
                if let Outcome::Refused(seconds) = sample.outcome {
                    let until = Instant::now() + Duration::from_secs(seconds.min(60));
                    tokio::time::sleep_until(until.min(end).into()).await;
                }
                samples.push(sample);
            }
            samples
        });
    }
    tasks.join_all().await.into_iter().flatten().collect()
}

async fn open(
    plan: &Arc<Plan>,
    rate: f64,
    most: usize,
    (began, end): (Instant, Instant),
    stream: u64,
) -> Vec<Sample> {
    let (arrivals, mut arrived) = tokio::sync::mpsc::unbounded_channel();
    let seed = plan.seed;
    // A thread sleeps to the microsecond, the runtime's timer to the millisecond.
    let clock = std::thread::spawn(move || {
        let mut draw = Draw::new(seed, stream);
        let mut due = began + Duration::from_secs_f64(draw.pause(rate));
        while due < end {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if arrivals.send(due).is_err() {
                return;
            }
            due += Duration::from_secs_f64(draw.pause(rate));
        }
    });
    let places = Arc::new(Semaphore::new(most));
    let mut draw = Draw::new(seed, stream + 1);
    let mut tasks = JoinSet::new();
    let mut samples = Vec::new();
    while let Some(due) = arrived.recv().await {
        let adapter = plan.mix.adapter(&mut draw);
        let texts: Vec<String> =
            plan.mix.texts(&mut draw, plan.rows).into_iter().map(str::to_owned).collect();
        let (plan, places) = (Arc::clone(plan), Arc::clone(&places));
        tasks.spawn(async move {
            let _place = places.acquire().await;
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            one(&plan, adapter, &texts, due).await
        });
        while let Some(Ok(sample)) = tasks.try_join_next() {
            samples.push(sample);
        }
    }
    samples.extend(tasks.join_all().await);
    // It ended with the last arrival.
    let _ = clock.join();
    samples
}
