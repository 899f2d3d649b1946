//! Text Embeddings Inference: its routes, the shapes of its bodies, its errors.

mod embed;
mod info;
pub(super) mod predict;
pub(super) mod rerank;
mod root;
pub(super) mod tokenize;

use std::time::{Duration, Instant};

use axum::Json;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Serialize;
use serde_json::json;

pub(super) use embed::{Inputs, vectors};

use super::call::{Call, retried, set, signed_answer};
use super::openapi::{Operation, body, shapes};
use crate::app::App;
use crate::ask::{Answered, Refusal, Text};

/// What these routes take, for the OpenAPI document.
pub(super) const OPERATIONS: [Operation; 7] = [
    Operation::post("/", "What the adapter gives, as Hugging Face's pipelines have it")
        .takes(body::<root::Request>)
        .gives(shapes::pipeline),
    Operation::post("/predict", "Labels and scores of texts and pairs")
        .takes(body::<predict::Request>)
        .gives(shapes::predictions),
    Operation::post("/embed", "Vectors of texts").takes(body::<embed::Request>).gives(shapes::vectors),
    Operation::post("/similarity", "How alike sentences are to one")
        .takes(body::<embed::Similarity>)
        .gives(shapes::numbers),
    Operation::get("/info", "What is served").gives(shapes::info),
    Operation::get("/health", "Whether the server answers"),
    Operation::get("/ping", "Whether the server answers"),
];

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/", post(root).get(info::health))
        .route("/predict", post(predict))
        .route("/embed", post(embed))
        .route("/similarity", post(similarity))
        .route("/info", get(info::info))
        .route("/health", get(info::health))
        .route("/ping", get(info::health))
}

async fn root(State(app): State<App>, request: Request) -> Response {
    told(async { root::answer(&app, &Call::take(&app, request).await?).await }.await)
}

async fn predict(State(app): State<App>, request: Request) -> Response {
    told(async { predict::answer(&app, &Call::take(&app, request).await?).await }.await)
}

async fn embed(State(app): State<App>, request: Request) -> Response {
    told(async { embed::answer(&app, &Call::take(&app, request).await?).await }.await)
}

async fn similarity(State(app): State<App>, request: Request) -> Response {
    told(async { embed::similarity(&app, &Call::take(&app, request).await?).await }.await)
}

/// The answer, or the refusal in this dialect.
pub(super) fn told(result: Result<Response, Refusal>) -> Response {
    result.unwrap_or_else(|why| refused(&why))
}

/// A refusal with the body and the status of this dialect.
pub(super) fn refused(why: &Refusal) -> Response {
    let (status, kind) = match why {
        Refusal::Empty(_) => (StatusCode::BAD_REQUEST, "Empty"),
        Refusal::Invalid(_) | Refusal::TooLong { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "Validation"),
        Refusal::UnknownAdapter { .. } => (StatusCode::NOT_FOUND, "Validation"),
        Refusal::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "Validation"),
        Refusal::Slow { .. } => (StatusCode::REQUEST_TIMEOUT, "Validation"),
        Refusal::NoKey => (StatusCode::UNAUTHORIZED, "Validation"),
        Refusal::Forbidden(_) => (StatusCode::FORBIDDEN, "Validation"),
        Refusal::Unfit(_) | Refusal::Internal(_) => (StatusCode::FAILED_DEPENDENCY, "Backend"),
        Refusal::Rate { .. } | Refusal::Busy { .. } => (StatusCode::TOO_MANY_REQUESTS, "Overloaded"),
        Refusal::Deadline => (StatusCode::GATEWAY_TIMEOUT, "Overloaded"),
        Refusal::NotLoaded { .. } | Refusal::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "Unhealthy"),
    };
    let body = json!({ "error": why.to_string(), "error_type": kind });
    retried(why, (status, Json(body)).into_response())
}

/// An answer with the headers of this dialect: what it took.
fn done(app: &App, answered: &Answered, characters: usize, began: Instant, body: impl Serialize) -> Response {
    let mut response = signed_answer(app, answered, Json(body).into_response());
    let headers = response.headers_mut();
    let ms = |d: Duration| d.as_millis().to_string();
    let total = ms(began.elapsed());
    set(headers, "x-compute-type", "onnxruntime");
    set(headers, "x-compute-time", &total);
    set(headers, "x-total-time", &total);
    set(headers, "x-compute-characters", &characters.to_string());
    set(headers, "x-compute-tokens", &answered.tokens.iter().sum::<usize>().to_string());
    set(headers, "x-tokenization-time", &ms(answered.times.tokenization));
    set(headers, "x-queue-time", &ms(answered.times.queue));
    set(headers, "x-inference-time", &ms(answered.times.inference));
    response
}

/// Characters of texts, as this dialect counts them.
fn characters(texts: &[Text]) -> usize {
    let of = |t: &Text| match t {
        Text::One(a) => a.chars().count(),
        Text::Pair(a, b) => a.chars().count() + b.chars().count(),
        Text::Tokens(ids) => ids.len(),
    };
    texts.iter().map(of).sum()
}

/// Texts are cut at their end; a request for the other one would be answered wrongly.
fn only_right(direction: Option<&str>) -> Result<(), Refusal> {
    match direction {
        None => Ok(()),
        Some(d) if d.eq_ignore_ascii_case("right") => Ok(()),
        Some(d) => Err(Refusal::Invalid(format!(
            "`truncation_direction` is '{d}'; texts can be cut on the right alone"
        ))),
    }
}

/// There are no named prompts; a request for one would be answered without it.
fn no_prompt(name: Option<&str>) -> Result<(), Refusal> {
    match name {
        None => Ok(()),
        Some(n) => Err(Refusal::Invalid(format!("there is no prompt '{n}': the base has no named prompts"))),
    }
}
