//! From what passes gave to answers.

use graft_plugins::api::{self, Code};
use graft_tasks::TaskError;
use serde_json::Value;

use super::passes::{Ran, picked};
use super::queue::Item;
use super::scores::scores;
use crate::ask::{Refusal, Want};
use crate::form::Form;
use crate::store::Store;

/// An answer for each row of a group.
pub(super) type Answers = Vec<Result<Value, Refusal>>;

/// The answers to the rows of a group, of which `ran` came out.
pub(super) fn answers(store: &Store, items: &[Item], ran: Vec<Ran>) -> Answers {
    let mut answers: Answers = items.iter().map(|_| Err(lost())).collect();
    for Ran { rows, outputs } in ran {
        let of: Vec<&Item> = rows.iter().filter_map(|i| items.get(*i)).collect();
        let made = outputs.and_then(|tensors| match of.first() {
            Some(first) => Ok(decoded(first.form(store)?, &of, tensors)),
            None => Ok(Vec::new()),
        });
        let made = made.unwrap_or_else(|why| of.iter().map(|_| Err(why.clone())).collect());
        for (row, answer) in rows.iter().zip(made) {
            if let Some(place) = answers.get_mut(*row) {
                *place = answer;
            }
        }
    }
    answers
}

/// The answers that an objective makes of its outputs for these rows, which are of one adapter.
fn decoded(form: &Form, items: &[&Item], tensors: Vec<api::Tensor>) -> Answers {
    let rows: Vec<api::Row> = items.iter().map(|i| i.row.clone()).collect();
    let numbers = items.iter().any(|i| i.want == Want::Scores).then(|| scores(&tensors, items.len()));
    let words = || form.objective().and_then(|o| Ok(o.decode(&rows, tensors.clone())?));
    let words = if items.iter().all(|i| i.want == Want::Scores) { None } else { Some(words()) };
    let one = |(k, item): (usize, &&Item)| match (item.want, &numbers, &words) {
        (Want::Scores, Some(Ok(all)), _) => all.get(k).cloned().ok_or_else(lost),
        (Want::Scores, Some(Err(why)), _) => Err(why.clone()),
        (_, _, Some(Ok(all))) => all.get(k).cloned().ok_or_else(lost),
        // One row that can't be answered (ids without a text for spans) is no reason not to answer the others.
        (_, _, Some(Err(_))) if items.len() > 1 => {
            let alone = tensors.iter().map(|t| row_of(t, k)).collect();
            decoded(form, &[item], alone).pop().unwrap_or_else(|| Err(lost()))
        }
        (_, _, Some(Err(e))) => Err(unanswered(e)),
        _ => Err(lost()),
    };
    items.iter().enumerate().map(one).collect()
}

/// Why an objective has no answer: one that is broken has none whatever is asked.
fn unanswered(e: &TaskError) -> Refusal {
    let broken = [Code::PANIC, Code::POISONED, Code::MALFORMED];
    match e {
        TaskError::Plugin(p) if broken.contains(&p.code) => Refusal::Internal(e.to_string()),
        e => Refusal::Unfit(e.to_string()),
    }
}

fn lost() -> Refusal {
    Refusal::Internal("an answer is missing".into())
}

fn row_of(t: &api::Tensor, row: usize) -> api::Tensor {
    match t.to_f32s() {
        Ok(values) => picked(&t.name, &t.shape, &values, &[], &[row]),
        Err(_) => t.clone(),
    }
}
