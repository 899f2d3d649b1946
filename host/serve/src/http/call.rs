//! A request: its key, which adapter it means, its body. The headers of an answer.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts, RawPathParams, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::app::{App, Caller};
use crate::ask::{Answered, Ask, Provenance, Refusal};
use crate::patience::in_time;
use crate::store::Resident;

/// A request.
pub(super) struct Call {
    /// Who sent it.
    pub(super) caller: Caller,
    prefix: Option<String>,
    body: Bytes,
}

impl FromRequestParts<App> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Caller, Infallible> {
        Ok(Caller::of(app, &parts.headers, &parts.extensions))
    }
}

/// Where clients of Hugging Face's say which adapter they mean.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[schemars(rename = "Parameters")]
pub(super) struct Parameters {
    pub(super) adapter_id: Option<String>,
    pub(super) top_k: Option<usize>,
    pub(super) truncate: Option<bool>,
    pub(super) normalize: Option<bool>,
}

impl Call {
    /// Reads a request.
    pub(super) async fn take(app: &App, request: Request) -> Result<Call, Refusal> {
        let (mut parts, body) = request.into_parts();
        let prefix = param(&mut parts, "adapter").await;
        let caller = Caller::of(app, &parts.headers, &parts.extensions);
        let body = bytes(app, body).await?;
        Ok(Call { caller, prefix, body })
    }

    /// The adapter of that name, if the key opens it; see [`App::resident`].
    pub(super) async fn resident(&self, name: Option<&str>) -> Result<Arc<Resident>, Refusal> {
        self.caller.app.resident(self.caller.key, name).await
    }

    /// Answers; see [`Caller::ask`].
    pub(super) async fn ask(&self, resident: &Arc<Resident>, ask: Ask) -> Result<Answered, Refusal> {
        self.caller.ask(resident, ask).await
    }

    /// The body as JSON.
    pub(super) fn read<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Refusal> {
        serde_json::from_slice(&self.body)
            .map_err(|e| Refusal::Invalid(format!("the body can't be read: {e}")))
    }

    /// The body as JSON, where there is one.
    pub(super) fn read_or_default<T: DeserializeOwned + Default>(&self) -> Result<T, Refusal> {
        if self.body.is_empty() { Ok(T::default()) } else { self.read() }
    }

    /// The name of the adapter that is meant: by the address, else as the model, else as a parameter.
    pub(super) fn adapter<'a>(
        &'a self,
        model: &'a Option<String>,
        parameters: Option<&'a Parameters>,
    ) -> Option<&'a str> {
        let of_body = model.as_deref().or_else(|| parameters.and_then(|p| p.adapter_id.as_deref()));
        self.prefix.as_deref().or(of_body)
    }
}

/// What stands in the place of `{name}` in the address.
pub(super) async fn param(parts: &mut Parts, name: &str) -> Option<String> {
    let params = RawPathParams::from_request_parts(parts, &()).await.ok()?;
    params.iter().find(|(k, _)| *k == name).map(|(_, v)| v.to_owned())
}

/// A body, within the limits of size and time.
pub(super) async fn bytes(app: &App, body: Body) -> Result<Bytes, Refusal> {
    let most = app.settings().body_bytes;
    let body = Limited::new(body, most).collect();
    match in_time(app.settings().patience.body, body).await? {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(e) if e.downcast_ref::<LengthLimitError>().is_some() => Err(Refusal::TooLarge { most }),
        Err(_) => Err(Refusal::Invalid("the body broke off".into())),
    }
}

/// Says in the headers whose answer it is.
pub(super) fn signed(app: &App, by: &Provenance, mut response: Response) -> Response {
    for (name, value) in by.headers(&app.engine().store.base_name) {
        set(response.headers_mut(), name, &value);
    }
    response
}

/// As [`signed`], and where the time went.
pub(super) fn signed_answer(app: &App, answered: &Answered, response: Response) -> Response {
    let mut response = signed(app, &answered.by, response);
    let (name, value) = answered.times.header();
    set(response.headers_mut(), name, &value);
    response
}

/// Sets a header; a value that none can have is left out.
pub(super) fn set(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
        headers.insert(HeaderName::from_static(name), value);
    }
}

/// Says when to try again, where that makes sense.
pub(super) fn retried(why: &Refusal, mut response: Response) -> Response {
    if let Some(seconds) = why.retry_after() {
        set(response.headers_mut(), "retry-after", &seconds.to_string());
    }
    response
}
