//! `/tokenize` as this dialect has it.

use std::sync::Arc;

use axum::Json;
use axum::response::{IntoResponse, Response};
use graft_data::{EncodeOptions, Encoding};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::no_prompt;
use crate::app::App;
use crate::ask::{Refusal, Text};
use crate::http::call::{Call, Parameters, signed};
use crate::http::openapi::{no_name, text, texts};

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "TokenizeRequest")]
pub(in crate::http) struct Request {
    inputs: Inputs,
    add_special_tokens: Option<bool>,
    #[serde(default)]
    #[schemars(schema_with = "no_name")]
    prompt_name: Option<String>,
    model: Option<String>,
    parameters: Option<Parameters>,
}

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "OneOrManyTexts")]
#[serde(untagged, expecting = "`inputs` is a string or a list of strings")]
enum Inputs {
    #[schemars(schema_with = "text")]
    One(String),
    #[schemars(schema_with = "texts")]
    Many(Vec<String>),
}

#[derive(Serialize)]
struct Token {
    id: i64,
    text: String,
    special: bool,
    start: Option<usize>,
    stop: Option<usize>,
}

/// The tokens of texts, uncut, made off the threads that serve.
pub(crate) async fn encoded(
    app: &App,
    texts: Vec<String>,
    special: bool,
) -> Result<(Vec<String>, Vec<Encoding>), Refusal> {
    let engine = Arc::clone(app.engine());
    let texts: Vec<Text> = texts.into_iter().map(Text::One).collect();
    engine.check(&texts)?;
    let made = tokio::task::spawn_blocking(move || {
        let texts: Vec<String> =
            texts.into_iter().filter_map(|t| if let Text::One(t) = t { Some(t) } else { None }).collect();
        let options = EncodeOptions { offsets: true, plain: !special, ..EncodeOptions::default() };
        let made = engine.tokenizer().encode_batch(&texts, None, &options);
        made.map(|m| (texts, m.rows)).map_err(|e| Refusal::Invalid(e.to_string()))
    });
    made.await.map_err(|_| Refusal::Internal("the tokenizer failed".into()))?
}

pub(crate) async fn answer(app: &App, call: &Call) -> Result<Response, Refusal> {
    let request: Request = call.read()?;
    no_prompt(request.prompt_name.as_deref())?;
    let resident = call.resident(call.adapter(&request.model, request.parameters.as_ref())).await?;
    let texts = match request.inputs {
        Inputs::One(text) => vec![text],
        Inputs::Many(texts) => texts,
    };
    let (texts, rows) = encoded(app, texts, request.add_special_tokens.unwrap_or(true)).await?;
    let body: Vec<Vec<Token>> = texts.iter().zip(&rows).map(|(t, e)| tokens(app, t, e)).collect();
    Ok(signed(app, &resident.by, Json(body).into_response()))
}

fn tokens(app: &App, text: &str, encoding: &Encoding) -> Vec<Token> {
    let each = encoding.ids.iter().zip(&encoding.offsets).zip(&encoding.words);
    each.map(|((id, &(start, stop)), word)| {
        let special = word.is_none() && (start, stop) == (0, 0);
        // Tokens of single bytes may end within a character.
        let piece =
            || String::from_utf8_lossy(text.as_bytes().get(start..stop).unwrap_or_default()).into_owned();
        let text = if special { app.engine().tokenizer().token(*id).unwrap_or_default() } else { piece() };
        Token { id: *id, text, special, start: (!special).then_some(start), stop: (!special).then_some(stop) }
    })
    .collect()
}
