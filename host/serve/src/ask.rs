//! What is asked and answered, whatever the wire looks like.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

/// One thing to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Text {
    /// A text.
    One(String),
    /// Two texts that are read together.
    Pair(String, String),
    /// Token ids, special ones included.
    Tokens(Vec<i64>),
}

impl Text {
    /// Its size.
    pub fn bytes(&self) -> usize {
        match self {
            Text::One(a) => a.len(),
            Text::Pair(a, b) => a.len().saturating_add(b.len()),
            Text::Tokens(ids) => ids.len().saturating_mul(size_of::<i64>()),
        }
    }
}

/// What is wanted of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Want {
    /// What the adapter's objective makes of it: a label, labels, a number, spans, a vector.
    Answer,
    /// A vector: the adapter's own where its objective gives one, otherwise the mean of its hidden states, of length 1.
    Vector,
    /// The numbers of the adapter's head as they leave the graph, before they are decoded: logits.
    Scores,
}

/// A request.
#[derive(Debug, Clone)]
pub struct Ask {
    /// The adapter's name; `None` for the base as it is, which has only vectors to give.
    pub adapter: Option<String>,
    /// What to answer.
    pub texts: Vec<Text>,
    /// What is wanted.
    pub want: Want,
    /// Whether a text that is too long is cut; otherwise it is refused.
    pub truncate: bool,
    /// When the answer is of no use any more.
    pub deadline: Option<Instant>,
}

impl Ask {
    /// A request with the defaults: cut what is too long, no deadline.
    pub fn new(adapter: Option<&str>, texts: Vec<Text>, want: Want) -> Ask {
        Ask { adapter: adapter.map(str::to_owned), texts, want, truncate: true, deadline: None }
    }
}

/// Which weights made an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provenance {
    /// The adapter; `None` for the base.
    pub adapter: Option<Arc<str>>,
    /// Its revision, counted from 1 by this server; 0 for the base.
    pub revision: u64,
    /// The digest of its files, of the base's for the base.
    pub digest: Arc<str>,
}

impl Provenance {
    /// What the headers of an answer say of the weights that made it; the base has its own name there.
    pub fn headers(&self, base: &str) -> [(&'static str, String); 3] {
        [
            ("x-adapter", self.adapter.as_deref().unwrap_or(base).to_owned()),
            ("x-adapter-revision", self.revision.to_string()),
            ("x-adapter-digest", self.digest.to_string()),
        ]
    }
}

/// Where the time of a request went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    /// Making tokens of texts.
    pub tokenization: Duration,
    /// Waiting for the first row to be run.
    pub queue: Duration,
    /// Being run, from the batch of the first row to the end of that of the last.
    pub inference: Duration,
}

impl Times {
    /// The name of [`Times::header`].
    pub const HEADER: &str = "server-timing";

    /// The header that says so (<https://www.w3.org/TR/server-timing/>), in milliseconds.
    pub fn header(&self) -> (&'static str, String) {
        let [tokenize, queue, inference] =
            [self.tokenization, self.queue, self.inference].map(|d| d.as_secs_f64() * 1e3);
        let value = format!("tokenize;dur={tokenize:.3}, queue;dur={queue:.3}, inference;dur={inference:.3}");
        (Times::HEADER, value)
    }

    /// Of two that ran beside each other, the longer of each.
    #[must_use]
    pub fn longest(self, other: Times) -> Times {
        Times {
            tokenization: self.tokenization.max(other.tokenization),
            queue: self.queue.max(other.queue),
            inference: self.inference.max(other.inference),
        }
    }
}

/// The answers to a request.
#[derive(Debug, Clone)]
pub struct Answered {
    /// One for each text, as the objective decodes it; `{"vector": […]}` where vectors were wanted, `{"scores": […]}`
    /// where scores were.
    pub answers: Vec<Value>,
    /// Tokens of each text, special ones included.
    pub tokens: Vec<usize>,
    /// What made them.
    pub by: Provenance,
    /// Where the time went.
    pub times: Times,
}

/// Why there is no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Refusal {
    /// There is no adapter of that name.
    #[error("there is no adapter '{name}' here")]
    UnknownAdapter {
        /// The name.
        name: String,
    },
    /// There is one, but what lies in its folder can't be loaded.
    #[error("adapter '{name}' can't be loaded: {why}")]
    NotLoaded {
        /// The name.
        name: String,
        /// Why not, with paths below the folder of the adapters.
        why: String,
    },
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// There is nothing in it to answer.
    #[error("{0}")]
    Empty(String),
    /// The adapter has no such answers to give.
    #[error("{0}")]
    Unfit(String),
    /// The body has too many bytes.
    #[error("the body has more than {most} bytes")]
    TooLarge {
        /// The limit.
        most: usize,
    },
    /// The body did not come in time.
    #[error("the body was not there within {} s", seconds(*.within))]
    Slow {
        /// The limit.
        within: Duration,
    },
    /// A key is needed, and none was given or one that nobody has.
    #[error("a key is needed: send it as 'Authorization: Bearer KEY'")]
    NoKey,
    /// The key is not for this.
    #[error("{0}")]
    Forbidden(String),
    /// An adapter was asked more often than it may be.
    #[error("'{name}' is asked too often; try again in {} s", seconds(*.retry_after))]
    Rate {
        /// The adapter, or the base.
        name: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// A text has too many tokens, and cutting was not allowed.
    #[error(
        "text {number} has {tokens} tokens, more than the {limit} that fit; shorten it or ask for truncation"
    )]
    TooLong {
        /// Counted from 1.
        number: usize,
        /// Its tokens.
        tokens: usize,
        /// The limit.
        limit: usize,
    },
    /// Too much is waiting already.
    #[error("{} waits already; try again in {} s", too_much(.adapter.as_deref()), seconds(*.retry_after))]
    Busy {
        /// The adapter of which too much waits; `None` where it is too much of all.
        adapter: Option<Arc<str>>,
        /// When to try again.
        retry_after: Duration,
    },
    /// The answer was not there in time.
    #[error("the deadline of the request has passed")]
    Deadline,
    /// The server is being stopped.
    #[error("the server is being stopped")]
    Stopping,
    /// What went wrong is not the asker's doing.
    #[error("{0}")]
    Internal(String),
}

fn too_much(adapter: Option<&str>) -> String {
    adapter.map_or("the server is busy: too much".to_owned(), |name| format!("too much for '{name}'"))
}

/// Whole seconds to wait, at least one.
fn seconds(wait: Duration) -> u64 {
    wait.as_secs_f64().ceil().max(1.0) as u64
}

impl Refusal {
    /// Whole seconds after which another try may be answered, where trying again makes sense.
    pub fn retry_after(&self) -> Option<u64> {
        match self {
            Refusal::Busy { retry_after, .. } | Refusal::Rate { retry_after, .. } => {
                Some(seconds(*retry_after))
            }
            _ => None,
        }
    }

    /// One word for what went wrong, for counters.
    pub fn kind(&self) -> &'static str {
        match self {
            Refusal::UnknownAdapter { .. } => "unknown_adapter",
            Refusal::NotLoaded { .. } => "not_loaded",
            Refusal::Invalid(_) => "validation",
            Refusal::Empty(_) => "empty",
            Refusal::Unfit(_) => "model_type",
            Refusal::TooLarge { .. } => "too_large",
            Refusal::TooLong { .. } => "too_long",
            Refusal::Slow { .. } => "slow",
            Refusal::NoKey | Refusal::Forbidden(_) => "key",
            Refusal::Rate { .. } => "rate",
            Refusal::Busy { .. } => "overloaded",
            Refusal::Deadline => "deadline",
            Refusal::Stopping => "stopping",
            Refusal::Internal(_) => "inference",
        }
    }
}
