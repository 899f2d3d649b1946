//! OpenAI's routes, and what vLLM adds to them: their bodies, and their nested errors.

pub(super) mod classify;
mod embeddings;
mod lora;
mod models;
pub(super) mod rerank;
pub(super) mod tokenize;

use axum::Json;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};

pub(super) use models::place;

use super::call::{Call, retried};
use super::openapi::{Operation, body, shapes};
use crate::app::App;
use crate::ask::{Answered, Refusal};

/// What these routes take, for the OpenAPI document.
pub(super) const OPERATIONS: [Operation; 6] = [
    Operation::get("/v1/models", "The base and the adapters that the key opens").gives(shapes::model_cards),
    Operation::get("/v1/models/{id}", "One of them").gives(shapes::model_card),
    Operation::post("/v1/embeddings", "Vectors of texts or token ids")
        .takes(body::<embeddings::Request>)
        .gives(shapes::embeddings),
    Operation::post("/v1/rerank", "Documents by how well they fit a query")
        .takes(body::<rerank::Request>)
        .gives(shapes::ranked),
    Operation::post("/v1/load_lora_adapter", "Loads an adapter").takes(body::<lora::Load>).gives_text(),
    Operation::post("/v1/unload_lora_adapter", "Takes an adapter away")
        .takes(body::<lora::Unload>)
        .gives_text(),
];

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/v1/models", get(models::list))
        .route("/v1/models/{id}", get(models::one))
        .route("/v1/embeddings", post(embeddings))
        .route("/v1/rerank", post(rerank))
        .route("/v1/load_lora_adapter", post(lora::load))
        .route("/v1/unload_lora_adapter", post(lora::unload))
}

async fn embeddings(State(app): State<App>, request: Request) -> Response {
    told(async { embeddings::answer(&app, &Call::take(&app, request).await?).await }.await)
}

async fn rerank(State(app): State<App>, request: Request) -> Response {
    told(async { rerank::answer(&app, &Call::take(&app, request).await?).await }.await)
}

/// The answer, or the refusal in this dialect.
pub(super) fn told(result: Result<Response, Refusal>) -> Response {
    result.unwrap_or_else(|why| refused(&why))
}

/// A refusal with the body and the status of this dialect.
pub(super) fn refused(why: &Refusal) -> Response {
    const REQUEST: &str = "invalid_request_error";
    let null = Value::Null;
    let (status, kind, param, code) = match why {
        Refusal::UnknownAdapter { .. } => {
            (StatusCode::NOT_FOUND, REQUEST, json!("model"), json!("model_not_found"))
        }
        Refusal::Invalid(_) | Refusal::Empty(_) | Refusal::Unfit(_) => {
            (StatusCode::BAD_REQUEST, REQUEST, null.clone(), null)
        }
        Refusal::TooLong { .. } => {
            (StatusCode::BAD_REQUEST, REQUEST, json!("input"), json!("context_length_exceeded"))
        }
        Refusal::TooLarge { .. } => {
            (StatusCode::PAYLOAD_TOO_LARGE, REQUEST, null, json!("request_too_large"))
        }
        Refusal::Slow { .. } => (StatusCode::REQUEST_TIMEOUT, REQUEST, null, json!("timeout")),
        Refusal::NoKey => (StatusCode::UNAUTHORIZED, REQUEST, null, json!("invalid_api_key")),
        Refusal::Forbidden(_) => (StatusCode::FORBIDDEN, "permission_error", null.clone(), null),
        Refusal::Rate { .. } => {
            (StatusCode::TOO_MANY_REQUESTS, "requests", null, json!("rate_limit_exceeded"))
        }
        Refusal::Busy { .. } => (StatusCode::TOO_MANY_REQUESTS, "server_error", null, json!("overloaded")),
        Refusal::Deadline => (StatusCode::GATEWAY_TIMEOUT, "server_error", null, json!("timeout")),
        Refusal::NotLoaded { .. } | Refusal::Stopping => {
            (StatusCode::SERVICE_UNAVAILABLE, "server_error", null.clone(), null)
        }
        Refusal::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, "server_error", null.clone(), null),
    };
    retried(why, error(status, kind, &why.to_string(), param, code))
}

/// An error with this dialect's body.
pub(super) fn error(status: StatusCode, kind: &str, message: &str, param: Value, code: Value) -> Response {
    let body = json!({ "error": { "message": message, "type": kind, "param": param, "code": code } });
    (status, Json(body)).into_response()
}

/// What was used, as this dialect counts it.
fn usage(answered: &Answered) -> Value {
    let tokens: usize = answered.tokens.iter().sum();
    json!({ "prompt_tokens": tokens, "total_tokens": tokens })
}

/// Whether texts may be cut: vLLM's `truncate_prompt_tokens`, of which -1 means the base's own limit.
fn may_cut(asked: Option<i64>) -> Result<bool, Refusal> {
    match asked {
        None => Ok(false),
        Some(-1) => Ok(true),
        Some(n) => Err(Refusal::Invalid(format!(
            "`truncate_prompt_tokens` is {n}; it can be -1, for the most tokens that fit"
        ))),
    }
}

/// A name for an answer that no other answer has in this process.
fn id(prefix: &str) -> String {
    static COUNT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let n = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("{prefix}-{:016x}{n:08x}", now.as_nanos() as u64)
}

/// Seconds since 1970.
fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs()
}
