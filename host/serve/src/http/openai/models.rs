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
use crate::store::Named;

/// All that the key opens.
pub(super) async fn list(State(app): State<App>, request: Request) -> Response {
    let key = Key::of(request.headers());
    told(app.models(key).map(|open| {
        let cards: Vec<Value> = open.iter().map(|named| card(&app, named.as_ref())).collect();
        Json(json!({ "object": "list", "data": cards })).into_response()
    }))
}

/// One of them.
pub(super) async fn one(State(app): State<App>, request: Request) -> Response {
    let answer = async {
        let (mut parts, body) = request.into_parts();
        let id = param(&mut parts, "id").await;
        let call = Call::take(&app, Request::from_parts(parts, body)).await?;
        // Whoever only looks at it has nothing loaded.
        let named = app.known(call.caller.key, id.as_deref())?;
        let response = Json(card(&app, named.as_ref())).into_response();
        let by = named.map_or_else(|| Some(app.engine().store.bare.by.clone()), |n| n.by);
        Ok(match by {
            Some(by) => signed(&app, &by, response),
            None => response,
        })
    };
    told(answer.await)
}

/// An adapter, or the base.
fn card(app: &App, named: Option<&Named>) -> Value {
    let store = &app.engine().store;
    let base = &store.base_name;
    let resident = named.map_or(Some(&store.bare), |n| n.current.as_ref());
    json!({
        "id": named.map_or(base, |n| &n.name),
        "object": "model",
        "created": app.started(),
        "owned_by": "graft",
        "root": named.map_or_else(|| base.clone(), |n| place(app, &n.dir, &n.name)),
        "parent": named.map(|_| base),
        "max_model_len": resident.and_then(|r| r.max_length),
        "permission": [],
    })
}

/// Where an adapter lies, below the folder of the adapters; its name where that is not known. No other path is shown.
pub(in crate::http) fn place(app: &App, dir: &Path, name: &str) -> String {
    let relative = || {
        let root = app.settings().adapters.as_deref()?.canonicalize().ok()?;
        let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
        Some(dir.strip_prefix(&root).ok()?.to_string_lossy().into_owned())
    };
    relative().filter(|p| !p.is_empty()).unwrap_or_else(|| name.to_owned())
}
