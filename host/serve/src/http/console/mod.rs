//! `/console`: a page that shows what is served, how busy it is, and tries texts; the numbers that it reads.
//!
//! The page itself is the same for everybody and tells nothing. What it shows comes from `/console/state`, which gives a key
//! what `/v1/models` and `/metrics` give it, and texts are tried over the routes of the dialects.

use axum::Json;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};

use super::openai::told;
use super::openapi::Operation;
use crate::access::Key;
use crate::app::App;
use crate::ask::{Refusal, Want};
use crate::form::Way;
use crate::store::Resident;

/// Nothing from elsewhere, and nothing that stands in the page is run: what comes from outside can only be text.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// What these routes take, for the OpenAPI document.
pub(super) const OPERATIONS: [Operation; 1] =
    [Operation::get("/console/state", "What the console shows: adapters and numbers that the key opens")
        .gives(shape)];

fn shape() -> Value {
    json!({ "type": "object" })
}

pub(super) fn routes() -> Router<App> {
    let file = |kind: &'static str, text: &'static str| get(async move || page(kind, text));
    Router::new()
        .route("/console", file("text/html; charset=utf-8", include_str!("page.html")))
        .route(
            "/console/",
            get(async || (StatusCode::PERMANENT_REDIRECT, [(header::LOCATION, "../console")])),
        )
        .route("/console/app.js", file("text/javascript; charset=utf-8", include_str!("app.js")))
        .route("/console/style.css", file("text/css; charset=utf-8", include_str!("style.css")))
        .route("/console/state", get(state))
}

fn page(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, text).into_response()
}

/// What the key opens: the adapters, and the numbers of the whole server. `?part=numbers` leaves the adapters out.
async fn state(State(app): State<App>, request: Request) -> Response {
    let key = Key::of(request.headers());
    let whole = request.uri().query() != Some("part=numbers");
    told(
        seen(&app, key, whole)
            .map(|seen| ([(header::CACHE_CONTROL, "no-store")], Json(seen)).into_response()),
    )
}

fn seen(app: &App, key: Option<Key>, whole: bool) -> Result<Value, Refusal> {
    let watched = app.access().watch(key).is_ok();
    let open = match app.residents(key) {
        Ok(open) => open,
        Err(why) if !watched => return Err(why),
        Err(_) => Vec::new(),
    };
    let engine = app.engine();
    let mut seen = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "base": engine.store.base_name,
        "ready": app.ready().is_ok(),
        "started": app.started(),
        "memory": watched.then(|| json!({ "used": engine.store.memory.used(), "most": engine.store.memory.most() })),
        "numbers": watched.then(|| engine.store.metrics.snapshot(engine.waiting())),
    });
    if whole {
        seen["adapters"] = open.iter().map(|r| card(app, r)).collect();
    }
    Ok(seen)
}

fn card(app: &App, resident: &Resident) -> Value {
    let (info, tally) = (resident.info.as_ref(), &resident.tally);
    let (counts, times) = (tally.counts(), tally.latency());
    let shared = match resident.form(&app.engine().store, Want::Answer) {
        Ok(Some(form)) => matches!(form.way, Way::Shared(..)),
        _ => true,
    };
    json!({
        "name": app.name_of(resident),
        "base": resident.by.adapter.is_none(),
        "revision": resident.by.revision,
        "digest": resident.by.digest,
        "method": info.map(|i| &i.method),
        "objective": resident.objective(),
        "bytes": info.map(|i| i.bytes),
        "pinned": app.engine().store.is_pinned(resident),
        "shared": shared,
        "answered": counts.success.count,
        "failed": counts.fail.count,
        "rows": counts.rows,
        "p50": times.quantile(0.5),
        "p99": times.quantile(0.99),
        "last": counts.last,
    })
}
