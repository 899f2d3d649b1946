//! The Open Inference Protocol (V2) over HTTP, with tensors as JSON or as bytes behind it, and the model repository.

mod body;
mod elements;
mod encoding;
mod metadata;
mod reply;

use std::convert::Infallible;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequest, Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde_json::Value;

use super::call::bytes;
use super::openapi::{Operation, shapes};
use crate::app::{App, Caller};
use crate::v2::{Fault, Kind, infer, models, repository};

/// The path of a model.
pub(super) const MODEL: &str = "/v2/models/{model}";

/// What these routes take, for the OpenAPI document; those of a model stand below its versions too.
pub(super) const OPERATIONS: [Operation; 12] = [
    Operation::get("/v2", "What the server is").gives(shapes::v2_server),
    Operation::get("/v2/health/live", "Whether the server runs"),
    Operation::get("/v2/health/ready", "Whether the server takes requests"),
    Operation::get(MODEL, "A model and its tensors").gives(shapes::v2_model),
    Operation::get("/v2/models/{model}/ready", "Whether a model is there"),
    Operation::get("/v2/models/{model}/config", "A model in the words of Triton's configurations")
        .gives(shapes::v2_config),
    Operation::get("/v2/models/{model}/stats", "What a model answered").gives(shapes::v2_statistics),
    Operation::post("/v2/models/{model}/infer", "Answers to rows of texts or token ids")
        .tensors(body::schema, shapes::v2_answer),
    Operation::get("/v2/models/stats", "What all models answered").gives(shapes::v2_statistics),
    Operation::post("/v2/repository/index", "What is loaded, and what could be")
        .may_take(index_schema)
        .gives(shapes::v2_index),
    Operation::post("/v2/repository/models/{model}/load", "Loads an adapter").may_take(any_object),
    Operation::post("/v2/repository/models/{model}/unload", "Takes an adapter away").may_take(any_object),
];

fn index_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "properties": { "ready": { "type": "boolean" } } })
}

fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object" })
}

/// The routes below `/v2`.
pub fn routes() -> Router<App> {
    let mut routes = Router::new()
        .route("/v2", get(metadata::server))
        .route("/v2/health/live", get(async || StatusCode::OK))
        .route("/v2/health/ready", get(server_ready))
        .route("/v2/models/stats", get(metadata::all_statistics))
        .route("/v2/repository/index", post(index))
        .route("/v2/repository/models/{model}/load", post(load))
        .route("/v2/repository/models/{model}/unload", post(unload))
        .route("/v2/{*rest}", any(unknown));
    for model in [MODEL, "/v2/models/{model}/versions/{version}"] {
        routes = routes
            .route(model, get(metadata::model))
            .route(&format!("{model}/ready"), get(ready))
            .route(&format!("{model}/config"), get(metadata::config))
            .route(&format!("{model}/stats"), get(metadata::statistics))
            .route(&format!("{model}/infer"), post(answer));
    }
    let method = async || fault(StatusCode::METHOD_NOT_ALLOWED, "this path is not for that method");
    routes.method_not_allowed_fallback(method)
}

/// The model in a path.
#[derive(Deserialize)]
struct Model {
    model: String,
    #[serde(default)]
    version: String,
}

/// A path with a model; `Err` where it is no text.
type ModelPath = Result<Path<Model>, PathRejection>;
/// A body; `Err` where it is too large, too slow or was cut off.
struct Body(Result<Bytes, Fault>);

impl FromRequest<App> for Body {
    type Rejection = Infallible;

    async fn from_request(request: Request, app: &App) -> Result<Body, Infallible> {
        Ok(Body(bytes(app, request.into_body()).await.map_err(Fault::from)))
    }
}

impl From<PathRejection> for Fault {
    fn from(e: PathRejection) -> Fault {
        Fault::invalid(e.body_text())
    }
}

fn fault(status: StatusCode, message: &str) -> Response {
    (status, axum::Json(serde_json::json!({ "error": message }))).into_response()
}

impl IntoResponse for Fault {
    /// The protocol's body with the status that Triton gives; too much work is 429, so that clients know to come back.
    fn into_response(self) -> Response {
        let status = match self.kind {
            Kind::NotFound => StatusCode::NOT_FOUND,
            Kind::Invalid => StatusCode::BAD_REQUEST,
            Kind::Unsupported => StatusCode::NOT_IMPLEMENTED,
            Kind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Kind::Slow => StatusCode::REQUEST_TIMEOUT,
            Kind::NoKey => StatusCode::UNAUTHORIZED,
            Kind::Forbidden => StatusCode::FORBIDDEN,
            Kind::Busy => StatusCode::TOO_MANY_REQUESTS,
            Kind::Late | Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let mut response = fault(status, &self.message);
        if let Some(after) = self.retry_after {
            response.headers_mut().insert("retry-after", after.into());
        }
        response
    }
}

async fn unknown() -> Response {
    fault(StatusCode::NOT_FOUND, "there is no such path")
}

async fn server_ready(State(app): State<App>) -> Result<StatusCode, Fault> {
    app.ready()?;
    Ok(StatusCode::OK)
}

async fn ready(caller: Caller, path: ModelPath) -> Result<StatusCode, Fault> {
    let Path(path) = path?;
    models::find(&caller, &path.model, &path.version).await?;
    Ok(StatusCode::OK)
}

async fn answer(
    caller: Caller,
    path: ModelPath,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Response, Fault> {
    let Path(path) = path?;
    // Before anything is read: whoever asks for a model that is not there is told that, whatever else is wrong.
    let model = models::find(&caller, &path.model, &path.version).await?;
    let body = encoding::unpacked(&headers, body?, caller.app.settings().body_bytes)?;
    let call = body::read(body::header_length(&headers)?, &body)?;
    let (request, shape) = call.into_request(path.model);
    let base = &caller.app.engine().store.base_name;
    reply::write(&infer(&caller, &model, request).await?, &shape, base)
}

/// The JSON object of a body that may be empty.
fn object(body: &Bytes) -> Result<Value, Fault> {
    if body.is_empty() {
        return Ok(Value::Null);
    }
    let value: Value = serde_json::from_slice(body).map_err(|e| Fault::invalid(format!("the body: {e}")))?;
    if value.is_object() { Ok(value) } else { Err(Fault::invalid("the body is no JSON object")) }
}

async fn index(caller: Caller, Body(body): Body) -> Result<Response, Fault> {
    let ready = match object(&body?)?.get("ready") {
        None => false,
        Some(Value::Bool(ready)) => *ready,
        Some(_) => return Err(Fault::invalid("'ready' is true or false")),
    };
    Ok(metadata::index(&repository::index(&caller, ready).await?))
}

async fn load(caller: Caller, path: ModelPath, Body(body): Body) -> Result<StatusCode, Fault> {
    let store = caller.administer()?;
    let Path(path) = path?;
    let given = object(&body?)?;
    if given.get("parameters").and_then(Value::as_object).is_some_and(|p| !p.is_empty()) {
        return Err(Fault::new(Kind::Unsupported, repository::NO_PARAMETERS));
    }
    repository::load(store, &path.model).await?;
    Ok(StatusCode::OK)
}

async fn unload(caller: Caller, path: ModelPath, Body(body): Body) -> Result<StatusCode, Fault> {
    let store = caller.administer()?;
    let Path(path) = path?;
    object(&body?)?;
    repository::unload(store, &path.model)?;
    Ok(StatusCode::OK)
}
