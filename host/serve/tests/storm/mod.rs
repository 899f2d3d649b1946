//! Many clients and adapters that are replaced meanwhile: what is asked, what may be answered, how long that takes.

pub mod pace;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use graft_serve::Resident;
use serde_json::{Value, json};

use super::common::{House, copy, digest, packed};

/// What a variant of an adapter gives for a text: scores by label, or the vector.
type Numbers = BTreeMap<String, f64>;

/// Texts of several lengths.
pub const TEXTS: [&str; 4] =
    ["my apple", "old", "the order of my apple is old and late", "apple apple apple apple apple my my old"];
/// How near an answer in a batch is to the same alone.
const NEAR: f64 = 1e-4;

/// Files that a name may have, and what they answer.
pub struct Variant {
    dir: PathBuf,
    tar: Bytes,
    digest: String,
    /// For each text the scores and the vector.
    alone: Vec<[Numbers; 2]>,
}

/// What is done.
#[derive(Clone)]
pub struct Plan {
    /// How many ask at once.
    pub clients: usize,
    /// Requests a second; as many as can be answered where there is none.
    pub rate: Option<f64>,
    /// Adapters replaced a second.
    pub replacements: f64,
    /// Whether every second adapter is replaced in the folder, not by an upload.
    pub in_folder: bool,
    pub lasts: Duration,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Report {
    /// Latencies of the answers, sorted.
    pub latencies: Vec<Duration>,
    pub replaced: usize,
    /// What went wrong, in words.
    pub wrong: Vec<String>,
    pub took: Duration,
}

impl Report {
    /// Counts another run as a part of this one.
    pub fn add(&mut self, more: Report) {
        self.latencies.extend(more.latencies);
        self.latencies.sort();
        self.replaced += more.replaced;
        self.wrong.extend(more.wrong);
        self.took += more.took;
    }

    pub fn throughput(&self) -> f64 {
        self.latencies.len() as f64 / self.took.as_secs_f64()
    }

    pub fn percentile(&self, p: f64) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        self.latencies.get((last as f64 * p).round() as usize).copied().unwrap_or_default()
    }
}

/// A revision of a name: when it was begun to be put there, and when it certainly was.
struct Put {
    variant: usize,
    begun: Instant,
    done: Option<Instant>,
}

/// A server and what it is asked.
pub struct Storm {
    house: House,
    names: Vec<String>,
    variants: Vec<Variant>,
    history: Vec<Mutex<Vec<Put>>>,
    /// Every revision that there ever was.
    revisions: Mutex<Vec<Weak<Resident>>>,
}

/// The path and body that ask a name for scores, or for a vector.
fn question(name: &str, text: &str, vector: bool) -> (String, String) {
    match vector {
        true => (format!("/a/{name}/embed"), json!({ "inputs": text }).to_string()),
        false => (format!("/a/{name}/predict"), json!({ "inputs": text, "raw_scores": true }).to_string()),
    }
}

fn numbers(body: &Value, vector: bool) -> Numbers {
    let list = if vector { &body[0] } else { body }.as_array().cloned().unwrap_or_default();
    let one = |(i, v): (usize, &Value)| match vector {
        true => (i.to_string(), v.as_f64().unwrap_or(f64::NAN)),
        false => {
            (v["label"].as_str().unwrap_or_default().to_owned(), v["score"].as_f64().unwrap_or(f64::NAN))
        }
    };
    list.iter().enumerate().map(one).collect()
}

/// The largest difference of two answers; infinite where they differ in kind.
fn distance(a: &Numbers, b: &Numbers) -> f64 {
    if !a.keys().eq(b.keys()) {
        return f64::INFINITY;
    }
    let worst = a.values().zip(b.values()).fold(0f64, |m, (a, b)| m.max((a - b).abs()));
    if worst.is_nan() { f64::INFINITY } else { worst }
}

impl Storm {
    /// A server of which adapters `0`, `1` … each hold one of these variants, and what each variant answers alone.
    pub async fn new(house: House, variants: &[PathBuf], names: usize) -> Storm {
        let mut known = Vec::new();
        for dir in variants {
            house.engine.store.load("alone", dir, true).unwrap();
            let mut alone = Vec::new();
            for text in TEXTS {
                let mut of_text = [Numbers::new(), Numbers::new()];
                for (vector, of_text) in [false, true].into_iter().zip(&mut of_text) {
                    let (path, body) = question("alone", text, vector);
                    *of_text = numbers(&house.send("POST", &path, Some("root"), body).await.ok(), vector);
                }
                alone.push(of_text);
            }
            known.push(Variant { dir: dir.clone(), tar: packed(dir).into(), digest: digest(dir), alone });
        }
        for (i, a) in known.iter().enumerate() {
            for b in &known[..i] {
                let near = a.alone.iter().zip(&b.alone).map(|(a, b)| distance(&a[0], &b[0]));
                let nearest = near.fold(f64::INFINITY, f64::min);
                assert!(nearest > 10.0 * NEAR, "variants that can't be told apart: {nearest:.1e}");
            }
        }
        house.engine.store.unload("alone").unwrap();
        let names: Vec<String> = (0..names).map(|n| n.to_string()).collect();
        let mut history = Vec::new();
        let begun = Instant::now();
        for (n, name) in names.iter().enumerate() {
            let variant = n % known.len();
            let place = house.adapters().join(name);
            copy(&known[variant].dir, &place);
            house.engine.store.load(name, &place, true).unwrap();
            history.push(Mutex::new(vec![Put { variant, begun, done: Some(Instant::now()) }]));
        }
        let storm = Storm { house, names, variants: known, history, revisions: Mutex::default() };
        // Sessions are made, and vectors of each, before anything is measured.
        for name in &storm.names {
            for vector in [false, true] {
                let (path, body) = question(name, TEXTS[0], vector);
                storm.house.send("POST", &path, Some("root"), body).await.ok();
            }
        }
        storm
    }

    /// Runs a plan.
    pub async fn run(self: &Arc<Storm>, plan: &Plan) -> Report {
        let began = Instant::now();
        let next = Arc::new(AtomicUsize::new(0));
        let clients: Vec<_> = (0..plan.clients)
            .map(|_| {
                let (storm, next, plan) = (Arc::clone(self), Arc::clone(&next), plan.clone());
                tokio::spawn(async move { storm.client(&next, &plan, began).await })
            })
            .collect();
        let (storm, of_replacing) = (Arc::clone(self), plan.clone());
        let replacing = tokio::spawn(async move { storm.replace(&of_replacing, began).await });
        let mut report = Report::default();
        for client in clients {
            let (latencies, wrong) = client.await.unwrap();
            report.latencies.extend(latencies);
            report.wrong.extend(wrong);
        }
        report.took = began.elapsed();
        report.replaced = replacing.await.unwrap();
        report.latencies.sort();
        report
    }

    async fn client(&self, next: &AtomicUsize, plan: &Plan, began: Instant) -> (Vec<Duration>, Vec<String>) {
        let (mut latencies, mut wrong) = (Vec::new(), Vec::new());
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            let due = match plan.rate {
                Some(rate) => began + Duration::from_secs_f64(i as f64 / rate),
                None => Instant::now(),
            };
            if due.duration_since(began) >= plan.lasts {
                return (latencies, wrong);
            }
            tokio::time::sleep_until(due.into()).await;
            if let Err(why) = self.ask(i).await {
                wrong.push(why);
            }
            latencies.push(due.elapsed());
        }
    }

    /// Asks something, and says what is wrong with the answer.
    async fn ask(&self, i: usize) -> Result<(), String> {
        let (name, text, vector) =
            (i.wrapping_mul(7919) % self.names.len(), i % TEXTS.len(), i.is_multiple_of(5));
        let (path, body) = question(&self.names[name], TEXTS[text], vector);
        let asked = Instant::now();
        let answer = self.house.send("POST", &path, Some("root"), body).await;
        if answer.status != 200 {
            return Err(format!("{path}: {} {}", answer.status, answer.text));
        }
        let by = answer.header("x-adapter-digest");
        let of = self.variants.iter().position(|v| v.digest == by);
        let of = of.ok_or_else(|| format!("{path}: of {by}, which nobody has put there"))?;
        if !self.may_answer(name, of, asked) {
            return Err(format!("{path}: of variant {of}, which was not there then"));
        }
        let off =
            distance(&numbers(&answer.json(), vector), &self.variants[of].alone[text][usize::from(vector)]);
        if off <= NEAR {
            Ok(())
        } else {
            Err(format!("{path}: not what variant {of} gives: off by {off:.1e}"))
        }
    }

    /// Whether a variant was there at some time since a request was sent.
    fn may_answer(&self, name: usize, variant: usize, asked: Instant) -> bool {
        let history = self.history[name].lock().unwrap();
        let gone = |k: usize| history.get(k + 1).and_then(|next| next.done).is_some_and(|done| done < asked);
        (0..history.len()).any(|k| history[k].variant == variant && !gone(k))
    }

    /// Replaces adapters until the time is over; how many.
    async fn replace(self: &Arc<Storm>, plan: &Plan, began: Instant) -> usize {
        let mut count = 0usize;
        if plan.replacements <= 0.0 {
            return count;
        }
        let at_once = Arc::new(tokio::sync::Semaphore::new(4));
        let mut running = tokio::task::JoinSet::new();
        loop {
            let due = began + Duration::from_secs_f64(count as f64 / plan.replacements);
            tokio::time::sleep_until(due.into()).await;
            let turn = Arc::clone(&at_once).acquire_owned().await;
            if began.elapsed() >= plan.lasts {
                running.join_all().await;
                return count;
            }
            let name = count.wrapping_mul(31) % self.names.len();
            let in_folder = plan.in_folder && name % 2 == 1;
            let storm = Arc::clone(self);
            running.spawn(async move {
                storm.replace_one(name, in_folder).await;
                drop(turn);
            });
            count += 1;
        }
    }

    async fn replace_one(&self, name: usize, in_folder: bool) {
        let of = &self.names[name];
        let variant = {
            let mut history = self.history[name].lock().unwrap();
            let variant = (history.last().unwrap().variant + 1 + history.len() % 2) % self.variants.len();
            let begun = Instant::now();
            // Of those that nobody can be asking any more the last one still answers.
            let old = history.iter().take_while(|p| p.begun + Duration::from_secs(60) < begun).count();
            let old = old.min(history.len() - 1);
            history.drain(..old);
            history.push(Put { variant, begun, done: None });
            variant
        };
        if in_folder {
            copy(&self.variants[variant].dir, &self.house.adapters().join(of));
            let began = Instant::now();
            while self.current(of).by.digest.as_ref() != self.variants[variant].digest {
                assert!(began.elapsed() < Duration::from_secs(60), "'{of}' is not loaded from the folder");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        } else {
            let (path, tar) = (format!("/admin/adapters/{of}"), self.variants[variant].tar.clone());
            self.house.send("PUT", &path, Some("root"), tar).await.ok();
        }
        self.history[name].lock().unwrap().last_mut().unwrap().done = Some(Instant::now());
        self.revisions.lock().unwrap().push(Arc::downgrade(&self.current(of)));
    }

    fn current(&self, name: &str) -> Arc<Resident> {
        self.house.engine.store.find(name).unwrap()
    }

    /// Revisions that are still in memory, though they neither answer nor could be gone back to.
    pub async fn leaked(&self) -> usize {
        // What is not there any more leaves the banks with the next batch.
        self.ask(1).await.unwrap();
        let mut kept = HashMap::new();
        for named in self.house.engine.store.all() {
            let previous = named.previous.and_then(|p| p.resident);
            for one in [named.current, previous].into_iter().flatten() {
                kept.insert(one.id, ());
            }
        }
        let revisions = self.revisions.lock().unwrap();
        revisions.iter().filter_map(Weak::upgrade).filter(|r| !kept.contains_key(&r.id)).count()
    }
}

/// The folders of a folder.
pub fn folders(dir: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().flatten().map(|e| e.path()).collect();
    all.retain(|p| !graft_adapters::files_of(p).is_empty());
    all.sort();
    all
}
