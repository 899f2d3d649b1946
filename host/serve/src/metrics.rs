//! What happens, in numbers, as Prometheus reads them: our own names, and those of Text Embeddings Inference.

mod busiest;
mod snapshot;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};

use crate::ask::{Answered, Refusal, Want};
use crate::spread::scale;
use busiest::Busiest;

pub use snapshot::Snapshot;

/// The counters. Cheap to count with; each server has its own.
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    http: IntCounterVec,
    refused: IntCounterVec,
    texts: IntCounter,
    tokens: IntCounter,
    padding: IntCounter,
    batch_rows: Histogram,
    batch_tokens: Histogram,
    queue: IntGauge,
    resident: IntGauge,
    loads: IntCounter,
    unloads: IntCounter,
    load_failures: IntCounter,
    load_seconds: Histogram,
    evictions: IntCounterVec,
    adapter_bytes: IntGauge,
    memory: IntGauge,
    memory_limit: IntGauge,
    threads: IntGauge,
    seconds: Durations,
    tei: Tei,
    adapters: Mutex<Busiest>,
}

/// Durations of a request and of its parts.
struct Durations {
    whole: Histogram,
    tokenization: Histogram,
    queue: Histogram,
    inference: Histogram,
}

impl Durations {
    fn new(registry: &Registry, prefix: &str, suffix: &str, what: &str) -> Durations {
        let make = |part: &str, help: &str| {
            let name = format!("{prefix}_{part}duration{suffix}");
            histogram(registry, &name, &format!("{what}: {help}, in seconds"), scale().to_vec())
        };
        Durations {
            whole: make("", "all of it"),
            tokenization: make("tokenization_", "making tokens of texts"),
            queue: make("queue_", "waiting to be run"),
            inference: make("inference_", "being run"),
        }
    }

    fn observe(&self, answered: &Answered, whole: Duration) {
        self.whole.observe(whole.as_secs_f64());
        self.tokenization.observe(answered.times.tokenization.as_secs_f64());
        self.queue.observe(answered.times.queue.as_secs_f64());
        self.inference.observe(answered.times.inference.as_secs_f64());
    }
}

/// The names that dashboards for Text Embeddings Inference read.
struct Tei {
    count: IntCounterVec,
    success: IntCounterVec,
    failure: IntCounterVec,
    request: Durations,
    length: Histogram,
    queue: IntGauge,
    batch_size: Histogram,
    batch_tokens: Histogram,
    embed: Kind,
    predict: Kind,
}

struct Kind {
    count: IntCounter,
    success: IntCounter,
    seconds: Durations,
}

impl Kind {
    fn new(registry: &Registry, name: &str) -> Kind {
        Kind {
            count: counter(registry, &format!("te_{name}_count"), &format!("Texts to {name}")),
            success: counter(registry, &format!("te_{name}_success"), &format!("Texts of {name} answered")),
            seconds: Durations::new(registry, &format!("te_{name}"), "", name),
        }
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Metrics {
        let r = Registry::new();
        let powers = |n: i32| (0..n).map(|i| 2f64.powi(i)).collect::<Vec<_>>();
        let evictions = counters(
            &r,
            "graft_adapter_evictions_total",
            "Adapters put out of the banks or out of memory for want of room",
            "tier",
        );
        // What never happened is 0, and not missing.
        ["banks", "memory"].iter().for_each(|tier| {
            evictions.with_label_values(&[tier]);
        });
        Metrics {
            requests: counters(
                &r,
                "graft_requests_total",
                "Requests that were answered or refused",
                "result",
            ),
            http: counters(&r, "graft_http_responses_total", "HTTP answers by status", "status"),
            refused: counters(&r, "graft_refusals_total", "Requests that were refused, by why", "why"),
            texts: counter(&r, "graft_texts_total", "Texts that were answered"),
            tokens: counter(&r, "graft_tokens_total", "Tokens that were run, padding not included"),
            padding: counter(&r, "graft_padding_tokens_total", "Padding that was run"),
            batch_rows: histogram(&r, "graft_batch_rows", "Rows of a pass", powers(13)),
            batch_tokens: histogram(
                &r,
                "graft_batch_tokens",
                "Tokens of a pass, padding included",
                powers(21),
            ),
            queue: gauge(&r, "graft_queue_rows", "Rows that wait"),
            resident: gauge(&r, "graft_adapters_resident", "Adapters in memory"),
            loads: counter(&r, "graft_adapter_loads_total", "Adapters loaded or replaced"),
            unloads: counter(&r, "graft_adapter_unloads_total", "Adapters taken away on demand"),
            load_failures: counter(&r, "graft_adapter_load_failures_total", "Adapters that can't be loaded"),
            load_seconds: histogram(
                &r,
                "graft_adapter_load_duration_seconds",
                "Loading an adapter from its folder, in seconds",
                scale().to_vec(),
            ),
            evictions,
            adapter_bytes: gauge(
                &r,
                "graft_adapter_bytes",
                "Bytes of adapters in memory, in banks or beside them",
            ),
            memory: gauge(&r, "graft_memory_bytes", "Memory of the process, mapped files not included"),
            memory_limit: gauge(&r, "graft_memory_limit_bytes", "Memory that may be used; 0 for no limit"),
            threads: gauge(&r, "graft_threads", "Threads that run a batch"),
            seconds: Durations::new(&r, "graft_request", "_seconds", "a request"),
            tei: Tei {
                count: counters(&r, "te_request_count", "Requests", "method"),
                success: counters(&r, "te_request_success", "Requests answered", "method"),
                failure: counters(&r, "te_request_failure", "Requests refused", "err"),
                request: Durations::new(&r, "te_request", "", "a request"),
                length: histogram(&r, "te_request_input_length", "Tokens of a text", powers(20)),
                queue: gauge(&r, "te_queue_size", "Rows that wait"),
                batch_size: histogram(&r, "te_batch_next_size", "Rows of a pass", powers(13)),
                batch_tokens: histogram(&r, "te_batch_next_tokens", "Tokens of a pass", powers(21)),
                embed: Kind::new(&r, "embed"),
                predict: Kind::new(&r, "predict"),
            },
            adapters: Mutex::default(),
            registry: r,
        }
    }

    fn kind(&self, want: Want) -> &Kind {
        match want {
            Want::Vector => &self.tei.embed,
            Want::Answer | Want::Scores => &self.tei.predict,
        }
    }

    /// A request came.
    pub(crate) fn asked(&self, want: Want, texts: usize) {
        self.tei.count.with_label_values(&[method(texts)]).inc();
        self.kind(want).count.inc_by(texts as u64);
    }

    /// It was answered.
    pub(crate) fn answered(&self, want: Want, answered: &Answered, whole: Duration) {
        let texts = answered.answers.len();
        self.requests.with_label_values(&["answered"]).inc();
        self.texts.inc_by(texts as u64);
        self.seconds.observe(answered, whole);
        self.tei.request.observe(answered, whole);
        self.tei.success.with_label_values(&[method(texts)]).inc();
        answered.tokens.iter().for_each(|t| self.tei.length.observe(*t as f64));
        let kind = self.kind(want);
        kind.success.inc_by(texts as u64);
        kind.seconds.observe(answered, whole);
        if let Some(name) = &answered.by.adapter {
            let tokens = answered.tokens.iter().sum::<usize>() as u64;
            let mut adapters = self.adapters.lock().unwrap_or_else(PoisonError::into_inner);
            adapters.count(name, tokens, whole);
        }
    }

    /// It was refused.
    pub(crate) fn refused(&self, why: &Refusal) {
        self.requests.with_label_values(&["refused"]).inc();
        self.refused.with_label_values(&[why.kind()]).inc();
        self.tei.failure.with_label_values(&[why.kind()]).inc();
    }

    /// An HTTP answer went out.
    pub(crate) fn responded(&self, status: u16) {
        self.http.with_label_values(&[&status.to_string()]).inc();
    }

    /// Rows of these lengths are about to be run together.
    pub(crate) fn batch(&self, lengths: impl Iterator<Item = usize>) {
        let (rows, sum, longest) = lengths.fold((0, 0, 0), |(n, sum, most), l| (n + 1, sum + l, most.max(l)));
        let padded = rows * longest;
        self.tokens.inc_by(sum as u64);
        self.padding.inc_by((padded - sum) as u64);
        for (of_rows, of_tokens) in
            [(&self.batch_rows, &self.batch_tokens), (&self.tei.batch_size, &self.tei.batch_tokens)]
        {
            of_rows.observe(rows as f64);
            of_tokens.observe(padded as f64);
        }
    }

    fn in_memory(&self, resident: usize, bytes: usize) {
        self.resident.set(resident as i64);
        self.adapter_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// An adapter was loaded; there are `resident` now, of so many bytes.
    pub(crate) fn loaded(&self, resident: usize, bytes: usize) {
        self.loads.inc();
        self.in_memory(resident, bytes);
    }

    /// Reading and fitting it took so long.
    pub(crate) fn loading(&self, took: Duration) {
        self.load_seconds.observe(took.as_secs_f64());
    }

    /// One can't be loaded.
    pub(crate) fn load_failed(&self) {
        self.load_failures.inc();
    }

    /// An adapter was taken away; there are `resident` left, of so many bytes.
    pub(crate) fn unloaded(&self, resident: usize, bytes: usize) {
        self.unloads.inc();
        self.in_memory(resident, bytes);
    }

    /// An adapter was put out of the banks to make room.
    pub(crate) fn evicted(&self) {
        self.evictions.with_label_values(&["banks"]).inc();
    }

    /// An adapter was put out of memory to make room; there are `resident` left, of so many bytes.
    pub(crate) fn evicted_from_memory(&self, resident: usize, bytes: usize) {
        self.evictions.with_label_values(&["memory"]).inc();
        self.in_memory(resident, bytes);
    }

    /// Batches are run by so many threads.
    pub(crate) fn runs_on(&self, threads: usize) {
        self.threads.set(threads as i64);
    }

    /// The process has so many bytes of memory, of so many that it may have.
    pub(crate) fn holds(&self, memory: Option<u64>, most: Option<u64>) {
        let of = |bytes: Option<u64>| i64::try_from(bytes.unwrap_or(0)).unwrap_or(i64::MAX);
        self.memory.set(of(memory));
        self.memory_limit.set(of(most));
    }

    /// Everything, as Prometheus reads it; `waiting` rows wait.
    pub fn text(&self, waiting: usize) -> String {
        self.queue.set(waiting as i64);
        self.tei.queue.set(waiting as i64);
        let mut families = self.registry.gather();
        families.extend(self.adapters.lock().unwrap_or_else(PoisonError::into_inner).gather());
        let mut out = Vec::new();
        // Only a family without samples is refused, and the registry leaves those out.
        let _ = TextEncoder::new().encode(&families, &mut out);
        String::from_utf8(out).unwrap_or_default()
    }
}

fn method(texts: usize) -> &'static str {
    if texts == 1 { "single" } else { "batch" }
}

fn register<C: prometheus::core::Collector + Clone + 'static>(
    registry: &Registry,
    made: prometheus::Result<C>,
) -> C {
    let made = made.expect("the names of this file are well-formed");
    registry.register(Box::new(made.clone())).expect("the names of this file are distinct");
    made
}

fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    register(registry, IntCounter::new(name, help))
}

fn counters(registry: &Registry, name: &str, help: &str, label: &str) -> IntCounterVec {
    register(registry, IntCounterVec::new(Opts::new(name, help), &[label]))
}

fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    register(registry, IntGauge::new(name, help))
}

fn histogram(registry: &Registry, name: &str, help: &str, buckets: Vec<f64>) -> Histogram {
    register(registry, Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets)))
}
