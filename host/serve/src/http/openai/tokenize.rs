//! vLLM's `/tokenize`.

use axum::Json;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use crate::app::App;
use crate::ask::Refusal;
use crate::http::call::{Call, Parameters, signed};
use crate::http::openapi::text;
use crate::http::tei::tokenize::encoded;

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "TokenizePromptRequest")]
pub(in crate::http) struct Request {
    #[schemars(schema_with = "text")]
    prompt: String,
    add_special_tokens: Option<bool>,
    return_token_strs: Option<bool>,
    model: Option<String>,
    parameters: Option<Parameters>,
}

pub(in crate::http) async fn answer(app: &App, call: &Call) -> Result<Response, Refusal> {
    let request: Request = call.read()?;
    let resident = call.resident(call.adapter(&request.model, request.parameters.as_ref())).await?;
    let (_, rows) = encoded(app, vec![request.prompt], request.add_special_tokens.unwrap_or(true)).await?;
    let ids = rows.into_iter().next().unwrap_or_default().ids;
    let name = |id: &i64| app.engine().tokenizer().token(*id).unwrap_or_default();
    let names: Option<Vec<String>> =
        (request.return_token_strs == Some(true)).then(|| ids.iter().map(name).collect());
    let body = json!({
        "count": ids.len(),
        "max_model_len": resident.max_length,
        "tokens": ids,
        "token_strs": names,
    });
    Ok(signed(app, &resident.by, Json(body).into_response()))
}
