//! The dialects: routes, and what they have in common.

pub mod v2;

use std::future::Future;
use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::Path;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::{get, post};

use crate::engine::Engine;

/// All routes.
pub fn router(engine: Arc<Engine>) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/a/{adapter}/predict", post(predict))
        .merge(v2::routes())
        .with_state(engine)
}

async fn health(State(_): State<Arc<Engine>>) -> impl IntoResponse {
    axum::http::StatusCode::OK
}

async fn predict(
    State(engine): State<Arc<Engine>>,
    Path(adapter): Path<String>,
    Json(body): Json<serde_json::Value>,
) -> impl IntoResponse {
    let text = body["inputs"].as_str().unwrap_or_default().to_owned();
    match engine.ask(crate::Ask::new(Some(&adapter), vec![crate::Text::One(text)], crate::Want::Answer)).await
    {
        Ok(a) => Json(
            serde_json::json!({"answers": a.answers, "digest": &*a.by.digest, "us": a.times.inference.as_micros() as u64}),
        ),
        Err(e) => Json(serde_json::json!({"error": e.to_string()})),
    }
}

/// Serves until `until` is done, then answers what was taken.
///
/// # Errors
/// What the listener says.
pub async fn serve(
    listener: tokio::net::TcpListener,
    engine: Arc<Engine>,
    until: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    axum::serve(listener, router(engine)).with_graceful_shutdown(until).await
}
