//! From texts to rows of tokens.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use graft_data::{EncodeOptions, Encoding};
use graft_plugins::api::Row;
use graft_tasks::Examples;

use super::Engine;
use crate::ask::{Ask, Refusal, Text};
use crate::form::Way;
use crate::store::Resident;

/// Bytes of texts whose tokens are made where the request is read, as that takes less time (some hundredths of a
/// millisecond) than to hand them over and back. A text counts as [`SHORTEST`] at least.
const SHORT: usize = 512;
const SHORTEST: usize = 64;

/// The rows of a request, ready to be run.
pub(super) struct Prepared {
    pub(super) rows: Vec<(Row, Encoding)>,
    pub(super) tokens: Vec<usize>,
    /// Whether they are run in a session of their own.
    pub(super) alone: bool,
}

impl Engine {
    /// The rows of a request. What may take long is done on a thread that may be blocked.
    ///
    /// # Errors
    /// An adapter without a head, texts that are too long, what the tokenizer refuses.
    pub(super) async fn prepared(
        self: &Arc<Engine>,
        ask: Ask,
        resident: &Arc<Resident>,
    ) -> Result<Prepared, Refusal> {
        let failed = || Refusal::Internal("the tokenizer failed".into());
        let is_short = ask.texts.iter().map(|t| t.bytes().max(SHORTEST)).sum::<usize>() <= SHORT;
        if is_short && resident.is_ready(ask.want) {
            return catch_unwind(AssertUnwindSafe(|| self.prepare(&ask, resident))).map_err(|_| failed())?;
        }
        let (engine, resident) = (Arc::clone(self), Arc::clone(resident));
        let aside = tokio::task::spawn_blocking(move || engine.prepare(&ask, &resident));
        aside.await.map_err(|_| failed())?
    }

    fn prepare(&self, ask: &Ask, resident: &Resident) -> Result<Prepared, Refusal> {
        let form = resident.form(&self.store, ask.want).map_err(Refusal::Invalid)?;
        let Some(form) = form else {
            let whose =
                resident.by.adapter.as_deref().map_or("the base".to_owned(), |n| format!("adapter '{n}'"));
            return Err(Refusal::Unfit(format!("{whose} has no head, so it gives vectors alone")));
        };
        let ready = form.get_ready(&self.store.base, &self.store.rooms);
        ready.map_err(|e| Refusal::Internal(e.to_string()))?;
        // A row of more tokens than a batch may have would be run all the same, alone.
        let most = resident.max_length.unwrap_or(usize::MAX).min(self.limits.batch_tokens);
        let mut rows = Vec::with_capacity(ask.texts.len());
        for (i, text) in ask.texts.iter().enumerate() {
            let (row, encoding) = self.encode(text, Some(most))?;
            if !ask.truncate && encoding.is_cut() {
                let (tokens, limit) = (encoding.full_length, encoding.ids.len());
                return Err(Refusal::TooLong { number: i + 1, tokens, limit });
            }
            rows.push((row, encoding));
        }
        let tokens = rows.iter().map(|(_, e)| e.ids.len()).collect();
        let laid_out = |(row, e): (Row, Encoding)| (row, e.behind_virtual(form.laid_out()));
        let alone = matches!(form.way, Way::Alone(..));
        Ok(Prepared { rows: rows.into_iter().map(laid_out).collect(), tokens, alone })
    }

    fn encode(&self, text: &Text, max_length: Option<usize>) -> Result<(Row, Encoding), Refusal> {
        let invalid = |e: &dyn std::fmt::Display| Refusal::Invalid(e.to_string());
        match text {
            Text::One(text) => self.of_texts(std::slice::from_ref(text), max_length),
            Text::Pair(a, b) => {
                let options = EncodeOptions { max_length, ..EncodeOptions::default() };
                let mut made = self
                    .tokenizer
                    .encode_batch(std::slice::from_ref(a), Some(std::slice::from_ref(b)), &options)
                    .map_err(|e| invalid(&e))?;
                let encoding = made.rows.pop().unwrap_or_default();
                Ok((Row::default(), encoding))
            }
            Text::Tokens(ids) => {
                let most = self.vocabulary;
                if let Some(id) = ids.iter().find(|id| !usize::try_from(**id).is_ok_and(|i| i < most)) {
                    return Err(Refusal::Invalid(format!("{id} is no token id; there are {most}")));
                }
                if ids.is_empty() {
                    return Err(Refusal::Invalid("a list of token ids is empty".into()));
                }
                let kept = ids.len().min(max_length.unwrap_or(usize::MAX));
                let encoding = Encoding {
                    ids: ids[..kept].to_vec(),
                    type_ids: vec![0; kept],
                    full_length: ids.len(),
                    ..Encoding::default()
                };
                Ok((Row::default(), encoding))
            }
        }
    }

    fn of_texts(&self, texts: &[String], max_length: Option<usize>) -> Result<(Row, Encoding), Refusal> {
        let made = Examples::of_texts(texts, None, &self.tokenizer, max_length);
        let mut made = made.map_err(|e| Refusal::Invalid(e.to_string()))?;
        Ok((made.rows.pop().unwrap_or_default(), made.encodings.pop().unwrap_or_default()))
    }
}
