//! `/embed` and `/similarity`.

use std::time::Instant;

use axum::response::Response;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{characters, done, no_prompt, only_right};
use crate::app::App;
use crate::ask::{Answered, Ask, Refusal, Text, Want};
use crate::http::answers::{normalised, shortened, vector};
use crate::http::call::{Call, Parameters};
use crate::http::openapi::{ids, no_name, right, text, texts};

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "EmbedRequest")]
pub(in crate::http) struct Request {
    inputs: Inputs,
    truncate: Option<bool>,
    #[serde(default)]
    #[schemars(schema_with = "right")]
    truncation_direction: Option<String>,
    #[serde(default)]
    #[schemars(schema_with = "no_name")]
    prompt_name: Option<String>,
    normalize: Option<bool>,
    #[schemars(range(min = 1))]
    dimensions: Option<usize>,
    model: Option<String>,
    parameters: Option<Parameters>,
}

/// A text or its token ids, or a list of them.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "TextsOrTokens")]
#[serde(
    untagged,
    expecting = "expected a string, a list of strings, a list of token ids, or a list of lists of token ids"
)]
pub(crate) enum Inputs {
    #[schemars(schema_with = "text")]
    One(String),
    #[schemars(schema_with = "ids")]
    Ids(Vec<i64>),
    Many(#[schemars(length(min = 1))] Vec<Item>),
}

/// One of a list.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "TextOrTokens")]
#[serde(untagged, expecting = "expected a string or a list of token ids")]
pub(crate) enum Item {
    #[schemars(schema_with = "text")]
    Text(String),
    #[schemars(schema_with = "ids")]
    Ids(Vec<i64>),
}

impl Inputs {
    pub(crate) fn texts(self) -> Vec<Text> {
        match self {
            Inputs::One(text) => vec![Text::One(text)],
            Inputs::Ids(ids) if ids.is_empty() => Vec::new(),
            Inputs::Ids(ids) => vec![Text::Tokens(ids)],
            Inputs::Many(items) => items
                .into_iter()
                .map(|i| match i {
                    Item::Text(text) => Text::One(text),
                    Item::Ids(ids) => Text::Tokens(ids),
                })
                .collect(),
        }
    }
}

/// The vectors of an answer.
pub(crate) fn vectors(answered: &Answered, dimensions: Option<usize>) -> Result<Vec<Vec<f32>>, Refusal> {
    answered.answers.iter().map(|a| shortened(vector(&a["vector"])?, dimensions)).collect()
}

pub(super) async fn answer(app: &App, call: &Call) -> Result<Response, Refusal> {
    let began = Instant::now();
    let request: Request = call.read()?;
    only_right(request.truncation_direction.as_deref())?;
    no_prompt(request.prompt_name.as_deref())?;
    let parameters = request.parameters.as_ref();
    let resident = call.resident(call.adapter(&request.model, parameters)).await?;
    let texts = request.inputs.texts();
    let chars = characters(&texts);
    let asked = request.truncate.or_else(|| parameters.and_then(|p| p.truncate));
    let truncate = asked.unwrap_or(app.settings().truncate);
    let answered = call.ask(&resident, Ask { truncate, ..Ask::new(None, texts, Want::Vector) }).await?;
    let mut all = vectors(&answered, request.dimensions)?;
    if request.normalize.or_else(|| parameters.and_then(|p| p.normalize)).unwrap_or(true) {
        all = all.into_iter().map(normalised).collect();
    } else if resident.objective() != Some("embedding") {
        let why = "vectors of length 1 are all that there is without an adapter that is trained for vectors";
        return Err(Refusal::Invalid(why.into()));
    }
    Ok(done(app, &answered, chars, began, all))
}

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "SimilarityRequest")]
pub(in crate::http) struct Similarity {
    inputs: Compared,
    model: Option<String>,
    parameters: Option<Parameters>,
}

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "Sentences")]
pub(super) struct Compared {
    #[schemars(schema_with = "text")]
    source_sentence: String,
    #[schemars(schema_with = "texts")]
    sentences: Vec<String>,
}

pub(super) async fn similarity(app: &App, call: &Call) -> Result<Response, Refusal> {
    let began = Instant::now();
    let request: Similarity = call.read()?;
    let parameters = request.parameters.as_ref();
    let resident = call.resident(call.adapter(&request.model, parameters)).await?;
    if request.inputs.sentences.is_empty() {
        return Err(Refusal::Empty("`inputs.sentences` is empty".into()));
    }
    let all = std::iter::once(request.inputs.source_sentence).chain(request.inputs.sentences);
    let texts: Vec<Text> = all.map(Text::One).collect();
    let chars = characters(&texts);
    let truncate = parameters.and_then(|p| p.truncate).unwrap_or(app.settings().truncate);
    let answered = call.ask(&resident, Ask { truncate, ..Ask::new(None, texts, Want::Vector) }).await?;
    let mut vectors = vectors(&answered, None)?.into_iter().map(normalised);
    let source = vectors.next().unwrap_or_default();
    let cosine = |v: Vec<f32>| source.iter().zip(&v).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let body: Vec<f64> = vectors.map(cosine).collect();
    Ok(done(app, &answered, chars, began, body))
}
