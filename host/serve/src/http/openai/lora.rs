//! vLLM's loading and unloading of adapters: plain text for what worked, the nested body for what did not.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::{error, told};
use crate::app::App;
use crate::ask::Refusal;
use crate::background;
use crate::http::call::{Call, signed};
use crate::inside::{inside, without};
use crate::store::StoreError;

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "LoadAdapterRequest")]
pub(in crate::http) struct Load {
    #[serde(default)]
    lora_name: String,
    #[serde(default)]
    lora_path: String,
    #[serde(default)]
    load_inplace: bool,
}

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "UnloadAdapterRequest")]
pub(in crate::http) struct Unload {
    #[serde(default)]
    lora_name: String,
}

fn failed(status: StatusCode, kind: &str, message: &str) -> Response {
    error(status, kind, message, Value::Null, status.as_u16().into())
}

fn misused(message: &str) -> Response {
    failed(StatusCode::BAD_REQUEST, "InvalidUserInput", message)
}

pub(super) async fn load(State(app): State<App>, request: Request) -> Response {
    let answer = async {
        let call = Call::take(&app, request).await?;
        app.access().administer(call.caller.key)?;
        let asked: Load = call.read()?;
        if asked.lora_name.is_empty() || asked.lora_path.is_empty() {
            return Ok(misused("both 'lora_name' and 'lora_path' are needed"));
        }
        let none = || {
            let message = format!("adapter '{}': there is none at '{}'", asked.lora_name, asked.lora_path);
            failed(StatusCode::NOT_FOUND, "NotFoundError", &message)
        };
        let Some(root) = app.settings().adapters.as_deref() else { return Ok(none()) };
        let Some(dir) = inside(root, &asked.lora_path) else { return Ok(none()) };
        let (store, name) = (Arc::clone(&app.engine().store), asked.lora_name.clone());
        let loading = background::spawn(move || store.load(&name, &dir, asked.load_inplace));
        let loaded = loading.await.map_err(|_| Refusal::Internal("loading the adapter failed".into()))?;
        Ok(match loaded {
            Ok(made) => {
                let said = format!("Success: LoRA adapter '{}' added successfully.", asked.lora_name);
                signed(&app, &made.by, said.into_response())
            }
            Err(e @ StoreError::Exists(_)) => misused(&format!("{e}; 'load_inplace' replaces it")),
            Err(e @ StoreError::Name(_)) => misused(&e.to_string()),
            Err(e @ StoreError::Memory { .. }) => {
                failed(StatusCode::INSUFFICIENT_STORAGE, "InternalServerError", &e.to_string())
            }
            Err(e) => failed(StatusCode::BAD_REQUEST, "BadRequestError", &without(root, &e.to_string())),
        })
    };
    told(answer.await)
}

pub(super) async fn unload(State(app): State<App>, request: Request) -> Response {
    let answer = async {
        let call = Call::take(&app, request).await?;
        app.access().administer(call.caller.key)?;
        let asked: Unload = call.read()?;
        if asked.lora_name.is_empty() {
            return Ok(misused("'lora_name' is needed"));
        }
        let store = Arc::clone(&app.engine().store);
        let name = asked.lora_name.clone();
        let work = background::spawn(move || store.unload(&name));
        let gone = work.await.map_err(|_| Refusal::Internal("taking the adapter away failed".into()))?;
        Ok(match gone {
            Ok(gone) => {
                let said = format!("Success: LoRA adapter '{}' removed successfully.", asked.lora_name);
                match gone {
                    Some(gone) => signed(&app, &gone.by, said.into_response()),
                    None => said.into_response(),
                }
            }
            Err(e) => failed(StatusCode::NOT_FOUND, "NotFoundError", &e.to_string()),
        })
    };
    told(answer.await)
}
