//! `/info` and `/health`.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::told;
use crate::app::App;
use crate::http::call::{Call, signed};
use crate::store::Resident;

pub(super) async fn health(State(app): State<App>) -> Response {
    told(app.ready().map(|()| StatusCode::OK.into_response()))
}

pub(super) async fn info(State(app): State<App>, request: Request) -> Response {
    let answer = async {
        let call = Call::take(&app, request).await?;
        let resident = call.resident(call.adapter(&None, None)).await?;
        let limits = &app.engine().limits;
        let body = json!({
            "model_id": app.engine().store.base_name,
            "model_sha": resident.by.digest,
            "model_dtype": "float32",
            "served_model_name": app.name_of(&resident),
            "model_type": model_type(&resident),
            "max_concurrent_requests": limits.queue_rows,
            "max_input_length": resident.max_length,
            "max_batch_tokens": limits.batch_tokens,
            "max_batch_requests": limits.batch_rows,
            "max_client_batch_size": limits.texts,
            "auto_truncate": app.settings().truncate,
            "tokenization_workers": std::thread::available_parallelism().map_or(1, usize::from),
            "version": env!("CARGO_PKG_VERSION"),
            "sha": null,
            "docker_label": null,
        });
        Ok(signed(&app, &resident.by, Json(body).into_response()))
    };
    told(answer.await)
}

fn model_type(resident: &Resident) -> Value {
    let labels = || {
        let one = || vec!["LABEL_0".to_owned()];
        let names = if resident.labels.is_empty() { one() } else { resident.labels.clone() };
        let by_number: serde_json::Map<String, Value> =
            names.iter().enumerate().map(|(i, l)| (i.to_string(), json!(l))).collect();
        let by_name: serde_json::Map<String, Value> =
            names.iter().enumerate().map(|(i, l)| (l.clone(), json!(i))).collect();
        json!({ "id2label": by_number, "label2id": by_name })
    };
    match resident.objective() {
        None | Some("embedding") => json!({ "embedding": { "pooling": "mean" } }),
        Some("regression") if resident.labels.len() <= 1 => json!({ "reranker": labels() }),
        Some(_) => json!({ "classifier": labels() }),
    }
}
