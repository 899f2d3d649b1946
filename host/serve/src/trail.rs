//! What is written down of a request: a line with its id, never its texts and never its key.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderValue};

use crate::ask::{Answered, Provenance, Refusal, Times};

/// Where a request and its answer have its id.
pub const REQUEST_ID: &str = "x-request-id";
/// Under which the lines of requests are logged.
pub const TARGET: &str = "graft::request";
/// Longest id that is taken from a request.
const MAX_ID: usize = 128;

/// A request's id, and what became of it; shared by all who work at it.
#[derive(Debug)]
pub struct Trail {
    id: HeaderValue,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    adapter: Option<Arc<str>>,
    revision: u64,
    rows: usize,
    tokens: usize,
    times: Times,
    refused: Option<&'static str>,
}

impl Trail {
    /// With the id that the request brings, where it is a sane one, and a new one otherwise.
    pub fn of(headers: &HeaderMap) -> Arc<Trail> {
        let sane = |id: &&HeaderValue| {
            let fits = |b: &u8| b.is_ascii_alphanumeric() || b"-_.:/+=".contains(b);
            (1..=MAX_ID).contains(&id.len()) && id.as_bytes().iter().all(fits)
        };
        let id = headers.get(REQUEST_ID).filter(sane).cloned().unwrap_or_else(made);
        Arc::new(Trail { id, seen: Mutex::default() })
    }

    /// The id, as a header.
    pub fn id(&self) -> &HeaderValue {
        &self.id
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something is asked of an adapter, or of the base under its name.
    pub(crate) fn asks(&self, by: &Provenance, base: &str) {
        let name = by.adapter.clone().unwrap_or_else(|| base.into());
        let mut seen = self.seen();
        match &seen.adapter {
            Some(other) if *other != name => (seen.adapter, seen.revision) = (Some("several".into()), 0),
            _ => (seen.adapter, seen.revision) = (Some(name), by.revision),
        }
    }

    /// What became of it. A request of several parts has the sum of their rows, and the longest of their times.
    pub(crate) fn ends(&self, result: &Result<Answered, Refusal>) {
        let mut seen = self.seen();
        match result {
            Ok(answered) => {
                seen.rows += answered.answers.len();
                seen.tokens += answered.tokens.iter().sum::<usize>();
                let (old, new) = (seen.times, answered.times);
                seen.times = Times {
                    tokenization: old.tokenization.max(new.tokenization),
                    queue: old.queue.max(new.queue),
                    inference: old.inference.max(new.inference),
                };
            }
            Err(why) => seen.refused = Some(why.kind()),
        }
    }
}

/// An id that no other request has: the process is in it by chance, the request by its number.
fn made() -> HeaderValue {
    static PROCESS: OnceLock<u64> = OnceLock::new();
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let process = PROCESS.get_or_init(|| {
        use std::hash::{BuildHasher, RandomState};
        RandomState::new().hash_one(std::process::id())
    });
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let id = format!("{process:016x}{number:016x}");
    HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static("0"))
}

/// The line of a request, which is written when it ends, and also when its sender went away before.
pub(crate) struct Line {
    trail: Arc<Trail>,
    protocol: &'static str,
    method: &'static str,
    route: String,
    began: Instant,
    status: Option<u16>,
}

impl Line {
    /// Of a request that came; `route` is the pattern of its path, without what the sender put in.
    pub(crate) fn begin(
        trail: &Arc<Trail>,
        protocol: &'static str,
        method: &'static str,
        route: Option<&str>,
    ) -> Line {
        let wanted = tracing::enabled!(target: TARGET, tracing::Level::INFO);
        let route = if wanted { route.unwrap_or("unknown").to_owned() } else { String::new() };
        Line { trail: Arc::clone(trail), protocol, method, route, began: Instant::now(), status: None }
    }

    /// Ends with a status: that of HTTP, or gRPC's code.
    pub(crate) fn end(mut self, status: u16) {
        self.status = Some(status);
    }
}

fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

impl Drop for Line {
    fn drop(&mut self) {
        if !tracing::enabled!(target: TARGET, tracing::Level::INFO) {
            return;
        }
        let seen = self.trail.seen();
        let answered = seen.rows > 0;
        let time = |t: Duration| answered.then(|| ms(t));
        tracing::info!(
            target: TARGET,
            request_id = self.trail.id.to_str().unwrap_or_default(),
            protocol = self.protocol,
            method = self.method,
            route = self.route,
            status = self.status,
            gone = self.status.is_none().then_some(true),
            adapter = seen.adapter.as_deref(),
            revision = seen.adapter.as_ref().map(|_| seen.revision),
            refused = seen.refused,
            rows = answered.then_some(seen.rows),
            tokens = answered.then_some(seen.tokens),
            ms = ms(self.began.elapsed()),
            tokenization_ms = time(seen.times.tokenization),
            queue_ms = time(seen.times.queue),
            inference_ms = time(seen.times.inference),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(given: &[u8]) -> HeaderValue {
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST_ID, HeaderValue::from_bytes(given).expect("a value"));
        Trail::of(&headers).id().clone()
    }

    #[test]
    fn a_sane_id_is_kept_and_any_other_replaced() {
        for sane in ["7", "6f9619ff-8b86-d011-b42d-00c04fc964ff", "a_b.c:d/e+f=", &"x".repeat(MAX_ID)] {
            assert_eq!(id(sane.as_bytes()), sane);
        }
        let long = "x".repeat(MAX_ID + 1);
        for odd in [&b""[..], b"a b", b"\"", b"{}", b"\xff", b"a\tb", long.as_bytes()] {
            let made = id(odd);
            assert_eq!(made.len(), 32, "{odd:?}");
            assert!(made.as_bytes().iter().all(u8::is_ascii_hexdigit));
        }
        assert_ne!(made(), made());
    }

    #[test]
    fn parts_of_a_request_are_added_up() {
        let by = |name: Option<&str>| Provenance {
            adapter: name.map(Into::into),
            revision: 3,
            digest: "d".into(),
        };
        let answered = |rows: usize, ms: u64| {
            let times = Times { inference: Duration::from_millis(ms), ..Times::default() };
            let answers = vec![serde_json::Value::Null; rows];
            Ok(Answered { answers, tokens: vec![5; rows], by: by(None), times })
        };
        let trail = Trail::of(&HeaderMap::new());
        trail.asks(&by(Some("a")), "base");
        let of_one = (trail.seen().adapter.clone(), 3);
        assert_eq!(of_one, (Some("a".into()), trail.seen().revision));
        trail.asks(&by(None), "base");
        trail.ends(&answered(2, 9));
        trail.ends(&answered(1, 4));
        let seen = trail.seen();
        assert_eq!((seen.adapter.as_deref(), seen.rows, seen.tokens), (Some("several"), 3, 15));
        assert_eq!(seen.times.inference, Duration::from_millis(9));
    }
}
