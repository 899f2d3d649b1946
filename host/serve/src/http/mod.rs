//! The dialects: routes, and what they have in common.
//!
//! | module | what |
//! |---|---|
//! | [`app`] | what every handler has at hand: the engine, the keys, the limits |
//! | `call` | a request: its key, which adapter it means, its body; the headers of an answer |
//! | `tei` | Text Embeddings Inference |
//! | `openai` | OpenAI, and what vLLM adds to it |
//! | [`v2`] | the Open Inference Protocol |
//! | `both` | paths that two dialects own: the body decides |
//! | `openapi` | the document that tells of all this, generated |
//! | `admin` | uploading, removing and rolling back adapters; `/metrics` |
//!
//! A dialect is a module with `routes()`. Its paths exist below `/a/{adapter}` as well, where that adapter answers whatever
//! the body says; those of [`v2`] do not, as they name a model anyway.

mod admin;
mod answers;
pub mod app;
mod both;
mod call;
mod inside;
mod openai;
mod openapi;
mod tei;
pub mod v2;

use std::future::Future;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

pub use admin::clear_leftovers;
pub use app::{App, Settings};

/// All routes.
pub fn router(app: impl Into<App>) -> Router {
    let app = app.into();
    let dialects = || Router::new().merge(tei::routes()).merge(openai::routes()).merge(both::routes());
    Router::new()
        .merge(dialects())
        .nest("/a/{adapter}", dialects())
        .merge(admin::routes())
        .merge(v2::routes().layer(from_fn_with_state(app.clone(), guarded)))
        .route("/openapi.json", get(async || axum::Json(openapi::document())))
        .layer(from_fn_with_state(app.clone(), counted))
        .with_state(app)
}

/// Rows of one call may name adapters each, so that a call needs a key that opens all of them; changes need the
/// administrator's where there is one.
async fn guarded(State(app): State<App>, request: Request, next: Next) -> Response {
    let key = call::key_of(request.headers());
    let path = request.uri().path();
    let changes = path.ends_with("/load") || path.ends_with("/unload");
    let allowed = match (changes, path.starts_with("/v2/health/")) {
        (true, _) => app.access().may_change(key),
        (_, true) => Ok(()),
        (false, false) => app.access().ask_all(key),
    };
    match allowed {
        Ok(()) => next.run(request).await,
        Err(why) => crate::v2::Fault::from(why).into_response(),
    }
}

async fn counted(State(app): State<App>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    app.engine().store.metrics.responded(response.status().as_u16());
    response
}

/// Serves until `until` is done, then answers what was taken.
///
/// # Errors
/// What the listener says.
pub async fn serve(
    listener: tokio::net::TcpListener,
    app: impl Into<App>,
    until: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    axum::serve(listener, router(app)).with_graceful_shutdown(until).await
}
