//! Paths that two dialects own. The body says which is spoken: `texts` and `inputs` are Text Embeddings Inference's,
//! `documents`, `prompt` and `input` vLLM's.

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::post;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::call::Call;
use super::openapi::{Operation, body, shapes};
use super::{openai, tei};
use crate::app::App;
use crate::ask::Refusal;

/// What these routes take, for the OpenAPI document.
pub(super) const OPERATIONS: [Operation; 3] = [
    Operation::post("/rerank", "Texts by how well they fit a query")
        .takes(body::<tei::rerank::Request>)
        .or(body::<openai::rerank::Request>)
        .gives(shapes::either_ranks),
    Operation::post("/tokenize", "The tokens of texts")
        .takes(body::<tei::tokenize::Request>)
        .or(body::<openai::tokenize::Request>)
        .gives(shapes::either_tokens),
    Operation::post("/classify", "Labels and probabilities of texts")
        .takes(body::<openai::classify::Request>)
        .or(body::<tei::predict::Request>)
        .gives(shapes::either_classes),
];

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/rerank", post(rerank))
        .route("/tokenize", post(tokenize))
        .route("/classify", post(classify))
}

/// The fields that tell dialects apart.
#[derive(Deserialize, Default)]
struct Marks {
    inputs: Option<IgnoredAny>,
    documents: Option<IgnoredAny>,
    prompt: Option<IgnoredAny>,
    input: Option<IgnoredAny>,
}

/// The request, and what tells its dialect: nothing where the body can't be read, of which the dialect then speaks.
async fn taken(app: &App, request: Request) -> Result<(Call, Marks), Refusal> {
    let call = Call::take(app, request).await?;
    let marks = call.read().unwrap_or_default();
    Ok((call, marks))
}

async fn rerank(State(app): State<App>, request: Request) -> Response {
    match taken(&app, request).await {
        Ok((call, marks)) if marks.documents.is_some() => {
            openai::told(openai::rerank::answer(&app, &call).await)
        }
        Ok((call, _)) => tei::told(tei::rerank::answer(&app, &call).await),
        Err(why) => tei::refused(&why),
    }
}

async fn tokenize(State(app): State<App>, request: Request) -> Response {
    match taken(&app, request).await {
        Ok((call, marks)) if marks.prompt.is_some() => {
            openai::told(openai::tokenize::answer(&app, &call).await)
        }
        Ok((call, _)) => tei::told(tei::tokenize::answer(&app, &call).await),
        Err(why) => tei::refused(&why),
    }
}

async fn classify(State(app): State<App>, request: Request) -> Response {
    match taken(&app, request).await {
        Ok((call, marks)) if marks.inputs.is_some() && marks.input.is_none() => {
            tei::told(tei::predict::answer(&app, &call).await)
        }
        Ok((call, _)) => openai::told(openai::classify::answer(&app, &call).await),
        Err(why) => openai::refused(&why),
    }
}
