//! `/v1/embeddings`.

use axum::Json;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{may_cut, usage};
use crate::app::App;
use crate::ask::{Ask, Refusal, Want};
use crate::http::call::{Call, Parameters, signed_answer};
use crate::http::openapi::all_that_fits;
use crate::http::tei::{Inputs, vectors};

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "EmbeddingsRequest")]
pub(in crate::http) struct Request {
    input: Inputs,
    model: Option<String>,
    #[serde(default)]
    encoding_format: Format,
    #[schemars(range(min = 1))]
    dimensions: Option<usize>,
    #[serde(default)]
    #[schemars(schema_with = "all_that_fits")]
    truncate_prompt_tokens: Option<i64>,
    parameters: Option<Parameters>,
}

#[derive(Deserialize, Default, Clone, Copy, JsonSchema)]
#[schemars(rename = "EncodingFormat")]
#[serde(rename_all = "lowercase")]
enum Format {
    #[default]
    Float,
    Base64,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Vector {
    Float(Vec<f32>),
    Base64(String),
}

#[derive(Serialize)]
struct Embedding {
    object: &'static str,
    index: usize,
    embedding: Vector,
}

#[derive(Serialize)]
struct Body<'a> {
    object: &'static str,
    data: Vec<Embedding>,
    model: &'a str,
    usage: Value,
}

pub(super) async fn answer(app: &App, call: &Call) -> Result<Response, Refusal> {
    let request: Request = call.read()?;
    let resident = call.resident(call.adapter(&request.model, request.parameters.as_ref())).await?;
    let truncate = may_cut(request.truncate_prompt_tokens)?;
    let ask = Ask { truncate, ..Ask::new(None, request.input.texts(), Want::Vector) };
    let answered = call.ask(&resident, ask).await?;
    let vectors = vectors(&answered, request.dimensions)?;
    let encoded = |v: Vec<f32>| match request.encoding_format {
        Format::Float => Vector::Float(v),
        Format::Base64 => {
            let bytes: Vec<u8> = v.iter().flat_map(|x| x.to_le_bytes()).collect();
            Vector::Base64(BASE64_STANDARD.encode(bytes))
        }
    };
    let one = |(index, v)| Embedding { object: "embedding", index, embedding: encoded(v) };
    let body = Body {
        object: "list",
        data: vectors.into_iter().enumerate().map(one).collect(),
        model: app.name_of(&resident),
        usage: usage(&answered),
    };
    Ok(signed_answer(app, &answered, Json(body).into_response()))
}
