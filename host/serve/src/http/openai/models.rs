//! `/v1/models`.

use std::path::Path;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::told;
use crate::access::Key;
use crate::app::App;
use crate::http::call::{Call, param, signed};
use crate::store::Resident;

/// All that the key opens.
pub(super) async fn list(State(app): State<App>, request: Request) -> Response {
    let key = Key::of(request.headers());
    told(app.residents(key).map(|open| {
        let cards: Vec<Value> = open.iter().map(|r| card(&app, r)).collect();
        Json(json!({ "object": "list", "data": cards })).into_response()
    }))
}

/// One of them.
pub(super) async fn one(State(app): State<App>, request: Request) -> Response {
    let answer = async {
        let (mut parts, body) = request.into_parts();
        let id = param(&mut parts, "id").await;
        let call = Call::take(&app, Request::from_parts(parts, body)).await?;
        let resident = call.resident(id.as_deref())?;
        Ok(signed(&app, &resident.by, Json(card(&app, &resident)).into_response()))
    };
    told(answer.await)
}

fn card(app: &App, resident: &Resident) -> Value {
    let base = &app.engine().store.base_name;
    let adapter = resident.by.adapter.as_deref();
    json!({
        "id": adapter.unwrap_or(base),
        "object": "model",
        "created": app.started(),
        "owned_by": "graft",
        "root": adapter.map_or_else(|| base.clone(), |name| place(app, resident, name)),
        "parent": adapter.map(|_| base),
        "max_model_len": resident.max_length,
        "permission": [],
    })
}

/// Where an adapter lies, below the folder of the adapters; its name where that is not known. No other path is shown.
pub(in crate::http) fn place(app: &App, resident: &Resident, name: &str) -> String {
    let relative = || {
        let root = app.settings().adapters.as_deref()?.canonicalize().ok()?;
        let dir: &Path = &resident.dir;
        let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
        Some(dir.strip_prefix(&root).ok()?.to_string_lossy().into_owned())
    };
    relative().filter(|p| !p.is_empty()).unwrap_or_else(|| name.to_owned())
}
