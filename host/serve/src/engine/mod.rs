//! From an [`Ask`] to an [`Answered`]: tokens, a queue, batches, the threads that run and answer them.

mod decode;
mod lanes;
mod passes;
mod prepare;
mod queue;
mod scores;
mod waiting;
mod worker;

use std::sync::Arc;
use std::time::{Duration, Instant};

use graft_data::Tokenizer;
use graft_graph::model::Role;
use graft_graph::sites::{Site, SiteKind};
use graft_runtime::{Provider, SessionOptions, Spinning};
use graft_tasks::{Base, Intake, PASS_TOKENS, Room, TaskError};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::ask::{Answered, Ask, Refusal, Text, Times};
use crate::rates::Rates;
use crate::store::{Resident, Store};
use prepare::Prepared;
use queue::{Item, Pending, Queue};

/// How much is taken at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Most rows of a batch.
    pub batch_rows: usize,
    /// Most tokens of a batch, padding included, and so of a text.
    pub batch_tokens: usize,
    /// Tokens, padding included, up to which further rows are added to a batch; if not given, on a processor
    /// [`PASS_TOKENS`] for each thread.
    pub pass_tokens: Option<usize>,
    /// Most rows that wait; a request beyond is refused.
    pub queue_rows: usize,
    /// Most rows of one adapter that wait; a quarter of `queue_rows` if not given.
    pub adapter_queue_rows: Option<usize>,
    /// Most texts of one request.
    pub texts: usize,
    /// Longest text, in bytes.
    pub text_bytes: usize,
    /// Most bytes of adapters in banks, half of them in those of each lane where there are two; those that were not used for
    /// longest make room.
    pub bank_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            batch_rows: 32,
            batch_tokens: 8192,
            pass_tokens: None,
            queue_rows: 4096,
            adapter_queue_rows: None,
            texts: 1024,
            text_bytes: 1 << 20,
            bank_bytes: 8 << 30,
        }
    }
}

impl Limits {
    /// Tokens up to which further rows are added to a batch.
    pub fn pass_tokens(&self) -> usize {
        self.pass_tokens.unwrap_or(self.batch_tokens).min(self.batch_tokens)
    }

    /// Most rows of one adapter that wait; a request beyond is refused.
    pub fn adapter_queue_rows(&self) -> usize {
        self.adapter_queue_rows.unwrap_or(self.queue_rows.div_ceil(4))
    }
}

/// Answers requests over one base.
pub struct Engine {
    /// The adapters.
    pub store: Arc<Store>,
    /// How much is taken at once.
    pub limits: Limits,
    /// How often each adapter may be asked.
    pub rates: Rates,
    tokenizer: Tokenizer,
    /// Token ids are below this.
    vocabulary: usize,
    queue: Arc<Queue>,
    threads: std::sync::Mutex<Vec<std::thread::JoinHandle<()>>>,
}

impl Engine {
    /// Starts the threads that run batches and answer.
    ///
    /// # Errors
    /// A base of images; one without a tokenizer.
    pub fn start(store: Arc<Store>, limits: Limits, options: SessionOptions) -> Result<Engine, TaskError> {
        let Intake::Text(tokenizer) = Intake::open(&store.base)? else {
            return Err(TaskError::Input {
                what: store.base.path.display().to_string(),
                detail: "a base of images can't be served yet".into(),
            });
        };
        let threads = options.threads.unwrap_or_else(|| store.base.runtime().threads());
        store.metrics.runs_on(threads);
        let usual = (options.provider == Provider::Cpu).then_some(PASS_TOKENS * threads);
        let limits = Limits { pass_tokens: limits.pass_tokens.or(usual), ..limits };
        let lanes = Room::count(&options, threads);
        let queue = Arc::new(Queue::new(limits, lanes));
        // Requests are read and adapters loaded on the same processors.
        let options = SessionOptions { spinning: Spinning::InRuns, ..options };
        store.rooms.open(&store.base, options)?;
        let passes = |lane| passes::Passes::new(lane, tokenizer.pad_id(), limits.bank_bytes / lanes);
        let threads = worker::start(&store, &queue, passes).map_err(|e| {
            queue.close();
            TaskError::Input { what: "the threads that run batches".into(), detail: e.to_string() }
        })?;
        let (rates, threads) = (Rates::default(), threads.into());
        let vocabulary = rows_of_embeddings(&store.base).unwrap_or(tokenizer.vocab_size());
        Ok(Engine { store, limits, rates, tokenizer: *tokenizer, vocabulary, queue, threads })
    }

    /// The same with limits on how often each adapter may be asked.
    pub fn with_rates(mut self, rates: Rates) -> Engine {
        self.rates = rates;
        self
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Rows that wait.
    pub fn waiting(&self) -> usize {
        self.queue.waiting()
    }

    /// The adapter that a request means; the base for none and for the base's own name. It is loaded where it is not in
    /// memory.
    ///
    /// # Errors
    /// See [`Store::get`].
    pub async fn resident(&self, adapter: Option<&str>) -> Result<Arc<Resident>, Refusal> {
        match adapter {
            None => Ok(Arc::clone(&self.store.bare)),
            Some(name) if name == self.store.base_name && !self.store.knows(name) => {
                Ok(Arc::clone(&self.store.bare))
            }
            Some(name) => self.store.get(name).await,
        }
    }

    /// Answers a request. Dropping the future gives up the place in the queue.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn ask(self: &Arc<Engine>, ask: Ask) -> Result<Answered, Refusal> {
        let resident = match self.resident(ask.adapter.as_deref()).await {
            Ok(found) => found,
            Err(why) => {
                self.store.metrics.refused(&why);
                return Err(why);
            }
        };
        self.ask_of(&resident, ask).await
    }

    /// As [`Engine::ask`], of an adapter that was found already: a revision that is replaced meanwhile still answers.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn ask_of(self: &Arc<Engine>, resident: &Arc<Resident>, ask: Ask) -> Result<Answered, Refusal> {
        let began = Instant::now();
        let metrics = Arc::clone(&self.store.metrics);
        let (want, texts) = (ask.want, ask.texts.len());
        metrics.asked(want, texts);
        let result = self.answer(resident, ask, began).await;
        match &result {
            Ok(answered) => metrics.answered(want, answered, began.elapsed()),
            Err(why) => metrics.refused(why),
        }
        resident.tally.add(&result, began.elapsed());
        result
    }

    async fn answer(
        self: &Arc<Engine>,
        resident: &Arc<Resident>,
        ask: Ask,
        began: Instant,
    ) -> Result<Answered, Refusal> {
        self.check(&ask.texts)?;
        if ask.deadline.is_some_and(|at| Instant::now() >= at) {
            return Err(Refusal::Deadline);
        }
        self.rates.take(resident.by.adapter.as_deref().unwrap_or(&self.store.base_name), ask.texts.len())?;
        let (want, deadline) = (ask.want, ask.deadline);
        let Prepared { rows, tokens, alone } = self.prepared(ask, resident).await?;
        let tokenization = began.elapsed();
        let (reply, answer) = oneshot::channel();
        let pending = Arc::new(Pending::new(rows.len(), reply, deadline));
        let items = rows.into_iter().enumerate().map(|(place, (row, encoding))| Item {
            resident: Arc::clone(resident),
            want,
            row,
            encoding,
            pending: Arc::clone(&pending),
            place,
            alone,
        });
        let _held = self.queue.push(&pending, items.collect())?;
        let answer = match deadline {
            Some(at) => tokio::time::timeout_at(at.into(), answer).await.map_err(|_| Refusal::Deadline)?,
            None => answer.await,
        };
        let (answers, queue, inference) = answer.map_err(|_| Refusal::Stopping)??;
        let times = Times { tokenization, queue, inference };
        Ok(Answered { answers, tokens, by: resident.by.clone(), times })
    }

    /// Whether texts are within the limits.
    ///
    /// # Errors
    /// [`Refusal::Empty`], [`Refusal::Invalid`].
    pub fn check(&self, texts: &[Text]) -> Result<(), Refusal> {
        if texts.is_empty() {
            return Err(Refusal::Empty("there is no text to answer".into()));
        }
        if texts.len() > self.limits.texts {
            let (n, most) = (texts.len(), self.limits.texts);
            return Err(Refusal::Invalid(format!("{n} texts in one request; at most {most} are taken")));
        }
        let blank = |t: &Text| matches!(t, Text::One(a) if a.trim().is_empty());
        if let Some(i) = texts.iter().position(blank) {
            return Err(Refusal::Empty(format!("text {} is empty", i + 1)));
        }
        match texts.iter().position(|t| t.bytes() > self.limits.text_bytes) {
            Some(i) => {
                let most = self.limits.text_bytes;
                Err(Refusal::Invalid(format!("text {} is longer than {most} bytes", i + 1)))
            }
            None => Ok(()),
        }
    }

    /// Takes nothing new, answers what was taken, and ends the threads.
    pub fn stop(&self) {
        self.queue.close();
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        for thread in threads {
            let _ = thread.join();
        }
    }
}

/// Rows of the table that token ids are looked up in. It may have more than the tokenizer has tokens.
fn rows_of_embeddings(base: &Base) -> Option<usize> {
    let ids = base.model.input(Role::Ids)?;
    let of_ids = |s: &Site| s.kind == SiteKind::Embedding && s.input == ids;
    base.sites().iter().find(|s| of_ids(s)).map(|s| s.in_features)
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What the worker sends back: the answers, how long the first row waited, how long running took.
type Reply = Result<(Vec<serde_json::Value>, Duration, Duration), Refusal>;
