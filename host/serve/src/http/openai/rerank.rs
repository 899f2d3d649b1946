//! vLLM's `/rerank`, which is Jina's and Cohere's.

use axum::Json;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{id, may_cut, usage};
use crate::app::App;
use crate::ask::Refusal;
use crate::http::call::{Call, Parameters, signed_answer};
use crate::http::openapi::all_that_fits;
use crate::http::tei::rerank::scores;

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "RankDocumentsRequest")]
pub(in crate::http) struct Request {
    query: String,
    #[schemars(length(min = 1))]
    documents: Vec<Document>,
    #[serde(default)]
    top_n: usize,
    #[serde(alias = "activation")]
    use_activation: Option<bool>,
    #[serde(default)]
    #[schemars(schema_with = "all_that_fits")]
    truncate_prompt_tokens: Option<i64>,
    model: Option<String>,
    parameters: Option<Parameters>,
}

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "Document")]
#[serde(untagged, expecting = "a document is a string or {\"text\": string}")]
enum Document {
    Text(String),
    Object { text: String },
}

pub(in crate::http) async fn answer(app: &App, call: &Call) -> Result<Response, Refusal> {
    let request: Request = call.read()?;
    let resident = call.resident(call.adapter(&request.model, request.parameters.as_ref())).await?;
    let of = |d| match d {
        Document::Text(text) | Document::Object { text } => text,
    };
    let texts: Vec<String> = request.documents.into_iter().map(of).collect();
    let (truncate, raw) = (may_cut(request.truncate_prompt_tokens)?, request.use_activation == Some(false));
    let (scores, answered) = scores(call, &resident, &request.query, texts.clone(), truncate, raw).await?;
    let mut ranked: Vec<(usize, f64)> = scores.into_iter().enumerate().collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    if request.top_n > 0 {
        ranked.truncate(request.top_n);
    }
    let result = |(i, score): (usize, f64)| json!({ "index": i, "document": { "text": texts.get(i) }, "relevance_score": score });
    let body = json!({
        "id": id("rerank"),
        "model": app.name_of(&resident),
        "usage": usage(&answered),
        "results": ranked.into_iter().map(result).collect::<Vec<Value>>(),
    });
    Ok(signed_answer(app, &answered, Json(body).into_response()))
}
