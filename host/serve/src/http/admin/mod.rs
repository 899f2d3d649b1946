//! What changes the adapters, behind the administrator's key, and the numbers.

mod upload;

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::call::{Call, param, signed};
use super::openai::{self, error, told};
use super::openapi::{Operation, body, shapes};
use crate::access::Key;
use crate::app::App;
use crate::ask::Refusal;
use crate::background;
use crate::inside::without;
use crate::store::{Named, Previous, Resident, StoreError, check_name};

/// What these routes take, for the OpenAPI document.
pub(super) const OPERATIONS: [Operation; 7] = [
    Operation::get("/admin/adapters", "The adapters and their revisions").gives(shapes::adapters),
    Operation::get("/admin/adapters/{name}", "An adapter and its revisions").gives(shapes::adapter),
    Operation::new("put", "/admin/adapters/{name}", "Uploads an adapter: a tar of its folder")
        .archive()
        .gives(shapes::adapter),
    Operation::new("delete", "/admin/adapters/{name}", "Removes an adapter"),
    Operation::post("/admin/adapters/{name}/rollback", "Goes back to the revision before")
        .gives(shapes::adapter),
    Operation::post("/admin/adapters/{name}/pin", "Keeps an adapter in memory")
        .may_take(body::<Pin>)
        .gives(shapes::adapter),
    Operation::get("/metrics", "Numbers for Prometheus").gives_text(),
];

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/admin/adapters", get(list))
        .route("/admin/adapters/{name}", get(state).put(put).delete(remove))
        .route("/admin/adapters/{name}/rollback", post(roll_back))
        .route("/admin/adapters/{name}/pin", post(pin))
        .route("/metrics", get(metrics))
}

async fn metrics(State(app): State<App>, request: Request) -> Response {
    match app.access().watch(Key::of(request.headers())) {
        Ok(()) => {
            let store = &app.engine().store;
            store.metrics.holds(store.memory.used(), store.memory.most());
            let text = store.metrics.text(app.engine().waiting());
            ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
        }
        Err(why) => openai::refused(&why),
    }
}

/// The name in the address, if the key may change what it names.
async fn allowed(app: &App, request: Request) -> Result<(String, Request), Refusal> {
    app.access().administer(Key::of(request.headers()))?;
    let (mut parts, body) = request.into_parts();
    let name = param(&mut parts, "name").await.unwrap_or_default();
    check_name(&name).map_err(|e| Refusal::Invalid(e.to_string()))?;
    Ok((name, Request::from_parts(parts, body)))
}

/// What went wrong with an adapter, with paths relative to the folder of the adapters.
fn failed(app: &App, e: &StoreError) -> Response {
    let (status, kind) = match e {
        StoreError::Unknown(_) => (StatusCode::NOT_FOUND, "not_found_error"),
        StoreError::Exists(_) | StoreError::NoPrevious(_) | StoreError::Replaced(_) => {
            (StatusCode::CONFLICT, "conflict_error")
        }
        StoreError::Memory { .. } => (StatusCode::INSUFFICIENT_STORAGE, "out_of_memory"),
        StoreError::Io { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "server_error"),
        StoreError::Name(_) | StoreError::Task(_) => (StatusCode::UNPROCESSABLE_ENTITY, "invalid_adapter"),
    };
    let message = e.to_string();
    let message = match app.settings().adapters.as_deref() {
        Some(root) => without(root, &message),
        None => message,
    };
    error(status, kind, &message, Value::Null, Value::Null)
}

async fn list(State(app): State<App>, request: Request) -> Response {
    if let Err(why) = app.access().administer(Key::of(request.headers())) {
        return openai::refused(&why);
    }
    let all: Vec<Value> = app.engine().store.all().iter().map(|n| about(&app, n)).collect();
    Json(json!({ "adapters": all })).into_response()
}

async fn state(State(app): State<App>, request: Request) -> Response {
    let answer = async {
        let (name, _) = allowed(&app, request).await?;
        let named = app.engine().store.named(&name).ok_or(Refusal::UnknownAdapter { name })?;
        let response = Json(about(&app, &named)).into_response();
        Ok(match &named.by {
            Some(by) => signed(&app, by, response),
            None => response,
        })
    };
    told(answer.await)
}

async fn put(State(app): State<App>, request: Request) -> Response {
    let answer = async {
        let (name, request) = allowed(&app, request).await?;
        let Some(root) = app.settings().adapters.clone() else {
            return Err(Refusal::Forbidden("the server has no folder of adapters to put it in".into()));
        };
        let (most, pause) = (app.settings().upload_bytes, app.settings().patience.body);
        let upload = upload::Upload::receive(&root, &name, request.into_body(), most, pause).await?;
        let store = Arc::clone(&app.engine().store);
        let work = background::spawn(move || upload.install(&store));
        let done = work.await.map_err(|_| Refusal::Internal("reading the adapter failed".into()))?;
        Ok(match done? {
            Ok(made) => shown(&app, &made),
            Err(e) => failed(&app, &e),
        })
    };
    told(answer.await)
}

async fn remove(State(app): State<App>, request: Request) -> Response {
    let answer = async {
        let (name, _) = allowed(&app, request).await?;
        let (store, root) = (Arc::clone(&app.engine().store), app.settings().adapters.clone());
        let work = background::spawn(move || store.remove(&name, root.as_deref()));
        let gone = work.await.map_err(|_| Refusal::Internal("removing the adapter failed".into()))?;
        Ok(match gone {
            Ok(Some(gone)) => signed(&app, &gone.by, StatusCode::NO_CONTENT.into_response()),
            Ok(None) => StatusCode::NO_CONTENT.into_response(),
            Err(e) => failed(&app, &e),
        })
    };
    told(answer.await)
}

async fn roll_back(State(app): State<App>, request: Request) -> Response {
    let answer = async {
        let (name, _) = allowed(&app, request).await?;
        let store = Arc::clone(&app.engine().store);
        let work = background::spawn(move || store.roll_back(&name));
        let back = work.await.map_err(|_| Refusal::Internal("going back failed".into()))?;
        Ok(match back {
            Ok(current) => shown(&app, &current),
            Err(e) => failed(&app, &e),
        })
    };
    told(answer.await)
}

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "PinRequest")]
struct Pin {
    #[serde(default = "yes")]
    pinned: bool,
}

impl Default for Pin {
    fn default() -> Pin {
        Pin { pinned: true }
    }
}

fn yes() -> bool {
    true
}

async fn pin(State(app): State<App>, request: Request) -> Response {
    let answer = async {
        let (name, request) = allowed(&app, request).await?;
        let pin: Pin = Call::take(&app, request).await?.read_or_default()?;
        // What is to stay in memory has to be there.
        let resident = app.engine().store.get(&name).await?;
        Ok(match app.engine().store.pin(&name, pin.pinned) {
            Ok(()) => shown(&app, &resident),
            Err(e) => failed(&app, &e),
        })
    };
    told(answer.await)
}

fn shown(app: &App, resident: &Resident) -> Response {
    let name = resident.by.adapter.as_deref().unwrap_or_default();
    let body = app.engine().store.named(name).map_or(Value::Null, |n| about(app, &n));
    signed(app, &resident.by, Json(body).into_response())
}

fn about(app: &App, named: &Named) -> Value {
    let resident = named.current.as_deref();
    let info = resident.and_then(|r| r.info.as_ref());
    let revision = |p: &Previous| json!({ "revision": p.revision, "digest": p.digest });
    json!({
        "name": named.name,
        "revision": named.by.as_ref().map(|b| b.revision),
        "digest": named.by.as_ref().map(|b| &b.digest),
        "previous": named.previous.as_ref().map(revision),
        "loaded": resident.is_some(),
        "pinned": named.pinned,
        "path": openai::place(app, &named.dir, &named.name),
        "method": info.map(|i| &i.method),
        "objective": resident.and_then(Resident::objective),
        "labels": resident.map(|r| &r.labels),
        "parameters": info.map(|i| i.parameters + i.head_parameters),
        "bytes": info.map(|i| i.bytes),
        "max_length": resident.and_then(|r| r.max_length),
    })
}
