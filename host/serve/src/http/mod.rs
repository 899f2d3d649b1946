//! The dialects: routes, and what they have in common.
//!
//! | module | what |
//! |---|---|
//! | `listen` | connections |
//! | `call` | a request: its key, which adapter it means, its body; the headers of an answer |
//! | `tei` | Text Embeddings Inference |
//! | `openai` | OpenAI, and what vLLM adds to it |
//! | [`v2`] | the Open Inference Protocol |
//! | `both` | paths that two dialects own: the body decides |
//! | `openapi` | the document that tells of all this, generated |
//! | `console` | a page that shows all this, and tries texts |
//! | `admin` | uploading, removing and rolling back adapters; `/metrics` |
//!
//! A dialect is a module with `routes()`. Its paths exist below `/a/{adapter}` as well, where that adapter answers whatever
//! the body says; those of [`v2`] do not, as they name a model anyway.

mod admin;
mod answers;
mod both;
mod call;
mod console;
mod listen;
mod openai;
mod openapi;
mod tei;
pub mod v2;

use std::sync::Arc;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::get;

pub use crate::app::{App, Settings};
use crate::patience::Clock;
use crate::trail::{Line, REQUEST_ID, Trail};
pub use listen::serve;

/// All routes.
pub fn router(app: impl Into<App>) -> Router {
    let app = app.into();
    let dialects = || Router::new().merge(tei::routes()).merge(openai::routes()).merge(both::routes());
    Router::new()
        .merge(dialects())
        .nest("/a/{adapter}", dialects())
        .merge(admin::routes())
        .merge(console::routes())
        .merge(v2::routes())
        .route("/openapi.json", get(async || axum::Json(openapi::document())))
        .layer(from_fn_with_state(app.clone(), followed))
        .with_state(app)
}

/// Counts a request, writes its line, and gives its id back.
async fn followed(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let trail = Trail::of(request.headers());
    let clock = Clock::start(request.headers());
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let line = Line::begin(&trail, "http", verb(request.method()), route);
    request.extensions_mut().insert(clock);
    request.extensions_mut().insert(Arc::clone(&trail));
    let mut response = next.run(request).await;
    response.headers_mut().insert(REQUEST_ID, trail.id().clone());
    let status = response.status().as_u16();
    app.engine().store.metrics.responded(status);
    line.end(status);
    response
}

/// The method, of which anybody can make up others.
fn verb(method: &Method) -> &'static str {
    let known = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"];
    known.into_iter().find(|k| *k == method.as_str()).unwrap_or("other")
}
