//! `/predict`.

use std::time::Instant;

use axum::response::Response;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{characters, done, only_right};
use crate::app::App;
use crate::ask::{Ask, Refusal, Text};
use crate::http::answers::{Answer, sigmoid, want};
use crate::http::call::{Call, Parameters};
use crate::http::openapi::{batch, right, text, text_or_pair};
use crate::store::Resident;

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "PredictRequest")]
pub(in crate::http) struct Request {
    inputs: Inputs,
    truncate: Option<bool>,
    #[serde(default)]
    #[schemars(schema_with = "right")]
    truncation_direction: Option<String>,
    #[serde(default)]
    raw_scores: bool,
    model: Option<String>,
    parameters: Option<Parameters>,
}

/// A text; a pair of texts, or one in a list; a batch of these lists.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "Texts")]
#[serde(
    untagged,
    expecting = "`inputs` is a string, a pair of strings [string, string], or a batch [[string], [string, string], …]"
)]
pub(super) enum Inputs {
    #[schemars(schema_with = "text")]
    One(String),
    #[schemars(schema_with = "text_or_pair")]
    Flat(Vec<String>),
    #[schemars(schema_with = "batch")]
    Batch(Vec<Vec<String>>),
}

impl Inputs {
    /// The texts, and whether they are a batch.
    pub(super) fn texts(self) -> Result<(Vec<Text>, bool), Refusal> {
        match self {
            Inputs::One(text) => Ok((vec![Text::One(text)], false)),
            Inputs::Flat(list) => Ok((vec![sequence(list)?], false)),
            Inputs::Batch(lists) => {
                let texts = lists.into_iter().map(sequence).collect::<Result<Vec<_>, _>>()?;
                Ok((texts, true))
            }
        }
    }
}

fn sequence(list: Vec<String>) -> Result<Text, Refusal> {
    let n = list.len();
    let mut list = list.into_iter();
    match (list.next(), list.next(), list.next()) {
        (None, ..) => Err(Refusal::Empty("`inputs` has an empty list".into())),
        (Some(one), None, _) => Ok(Text::One(one)),
        (Some(first), Some(second), None) => Ok(Text::Pair(first, second)),
        _ => Err(Refusal::Invalid(format!(
            "a list of {n} strings is neither a text nor a pair; a batch is a list of lists: [[\"a\"], [\"b\"], [\"c\"]]"
        ))),
    }
}

#[derive(Serialize)]
struct Prediction {
    score: f64,
    label: String,
}

pub(in crate::http) async fn answer(app: &App, call: &Call) -> Result<Response, Refusal> {
    let began = Instant::now();
    let request: Request = call.read()?;
    only_right(request.truncation_direction.as_deref())?;
    let resident = call.resident(call.adapter(&request.model, request.parameters.as_ref())).await?;
    let (texts, batch) = request.inputs.texts()?;
    let (chars, raw) = (characters(&texts), request.raw_scores);
    let truncate = request.truncate.unwrap_or(app.settings().truncate);
    let ask = Ask { truncate, ..Ask::new(None, texts, want(&resident, raw)) };
    let answered = call.ask(&resident, ask).await?;
    let mut all = Vec::with_capacity(answered.answers.len());
    for answer in &answered.answers {
        all.push(predictions(answer, &resident, raw)?);
    }
    let body = if batch { Value::Array(all) } else { all.pop().unwrap_or_default() };
    Ok(done(app, &answered, chars, began, body))
}

/// The best label first. A single number is seen as this dialect sees it: through a sigmoid, unless it is asked for raw.
pub(super) fn predictions(answer: &Value, resident: &Resident, raw: bool) -> Result<Value, Refusal> {
    let mut scored = match Answer::of(answer, resident)? {
        Answer::Labels(all) | Answer::Numbers(all) => all,
        Answer::Number(x) => {
            let label = resident.labels.first().cloned().unwrap_or_else(|| "LABEL_0".into());
            vec![(label, if raw { x } else { sigmoid(x) })]
        }
        Answer::Spans(spans) => return Ok(json!(spans)),
        Answer::Vector => {
            return Err(Refusal::Unfit("the adapter gives vectors, not labels: ask /embed".into()));
        }
    };
    scored.sort_by(|a, b| b.1.total_cmp(&a.1));
    let all: Vec<Prediction> = scored.into_iter().map(|(label, score)| Prediction { score, label }).collect();
    Ok(json!(all))
}
