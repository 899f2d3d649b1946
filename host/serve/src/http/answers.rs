//! What objectives answer, as the dialects want it.

use serde::Serialize;
use serde_json::Value;

use crate::ask::{Refusal, Text, Want};
use crate::engine::Engine;
use crate::store::Resident;

/// What an adapter makes of a text.
pub(super) enum Answer {
    /// A probability of each label, in the order of the head; of labels that exclude each other or not.
    Labels(Vec<(String, f64)>),
    /// A number.
    Number(f64),
    /// Several numbers by name.
    Numbers(Vec<(String, f64)>),
    /// Places in the text.
    Spans(Vec<Span>),
    /// A vector.
    Vector,
}

/// A place in the text, with the names of Hugging Face's pipelines.
#[derive(Serialize, Clone)]
pub(super) struct Span {
    pub(super) entity_group: String,
    pub(super) score: f64,
    pub(super) word: String,
    pub(super) start: u64,
    pub(super) end: u64,
}

fn broken() -> Refusal {
    Refusal::Internal("the adapter gives a score that is no number".into())
}

fn number(value: &Value) -> Result<f64, Refusal> {
    value.as_f64().ok_or_else(broken)
}

fn pairs(value: &Value) -> Result<Vec<(String, f64)>, Refusal> {
    let map = value.as_object().ok_or_else(broken)?;
    map.iter().map(|(k, v)| Ok((k.clone(), number(v)?))).collect()
}

/// The numbers of a list.
pub(super) fn vector(value: &Value) -> Result<Vec<f32>, Refusal> {
    let list = value.as_array().ok_or_else(broken)?;
    list.iter().map(|v| Ok(number(v)? as f32)).collect()
}

fn span(value: &Value) -> Result<Span, Refusal> {
    let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let place = |key: &str| value[key].as_u64().unwrap_or(0);
    let (start, end) = (place("start"), place("end"));
    let score = number(&value["score"])?;
    Ok(Span { entity_group: text("label"), score, word: text("text"), start, end })
}

impl Answer {
    /// Reads what an objective decoded, or the numbers of a head.
    pub(super) fn of(value: &Value, resident: &Resident) -> Result<Answer, Refusal> {
        if let Some(spans) = value.as_array() {
            return Ok(Answer::Spans(spans.iter().map(span).collect::<Result<_, _>>()?));
        }
        let get = |key: &str| value.get(key);
        if let Some(all) = get("probabilities") {
            return Ok(Answer::Labels(pairs(all)?));
        }
        if let Some(scores) = get("scores") {
            let scores = vector(scores)?.into_iter().map(f64::from).enumerate();
            let name = |i: usize| resident.labels.get(i).cloned().unwrap_or_else(|| format!("LABEL_{i}"));
            return Ok(Answer::Labels(scores.map(|(i, s)| (name(i), s)).collect()));
        }
        match (get("value"), get("values"), get("vector")) {
            (Some(v), ..) => Ok(Answer::Number(number(v)?)),
            (_, Some(v), _) => Ok(Answer::Numbers(pairs(v)?)),
            (.., Some(_)) => Ok(Answer::Vector),
            _ => Err(Refusal::Unfit("the adapter gives answers that this dialect has no words for".into())),
        }
    }
}

/// What to want of an adapter of which labels or scores are asked; `raw` for numbers before any activation.
pub(super) fn want(resident: &Resident, raw: bool) -> Want {
    if raw && resident.objective() == Some("classification") { Want::Scores } else { Want::Answer }
}

/// Between 0 and 1.
pub(super) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// A vector of length 1; of zeros where it was.
pub(super) fn normalised(mut v: Vec<f32>) -> Vec<f32> {
    let length = v.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    if length > 0.0 {
        v.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
    }
    v
}

/// The first `dimensions` of a vector, of length 1 again; all of it where none are asked for.
///
/// # Errors
/// When there are not so many.
pub(super) fn shortened(vector: Vec<f32>, dimensions: Option<usize>) -> Result<Vec<f32>, Refusal> {
    match dimensions {
        None => Ok(vector),
        Some(n) if (1..=vector.len()).contains(&n) => {
            let mut vector = vector;
            vector.truncate(n);
            Ok(normalised(vector))
        }
        Some(n) => {
            let all = vector.len();
            Err(Refusal::Invalid(format!("`dimensions` is {n}; it can be 1 to {all}")))
        }
    }
}

/// Refuses pairs that take more room than their parts: a query is copied for each text.
pub(super) fn paired(engine: &Engine, query: &str, texts: Vec<String>) -> Result<Vec<Text>, Refusal> {
    const MOST: usize = 64 << 20;
    if texts.len() > engine.limits.texts || query.len().saturating_mul(texts.len()) > MOST {
        let (n, most) = (texts.len(), engine.limits.texts);
        return Err(Refusal::Invalid(format!(
            "{n} texts for one query of {} bytes; at most {most} are taken, and {MOST} bytes in all",
            query.len()
        )));
    }
    Ok(texts.into_iter().map(|t| Text::Pair(query.to_owned(), t)).collect())
}
