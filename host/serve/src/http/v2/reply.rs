//! The answer to a call: a JSON object, and behind it the bytes of those outputs that were asked for as bytes.

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response as HttpResponse};
use serde::Serialize;

use super::body::{HEADER_LENGTH, Shape};
use crate::http::call::set;
use crate::v2::{Fault, Kind, Output, Outputs, Response};

#[derive(Serialize)]
struct Head<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    model_name: &'a str,
    model_version: String,
    outputs: Vec<HeadOutput<'a>>,
}

#[derive(Serialize)]
struct HeadOutput<'a> {
    name: &'a str,
    datatype: &'a str,
    shape: [usize; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<Sized>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Elements<'a>>,
}

#[derive(Serialize)]
struct Sized {
    binary_data_size: usize,
}

/// JSON has no NaN: a score that is no number is null.
#[derive(Serialize)]
#[serde(untagged)]
enum Elements<'a> {
    Texts(&'a [String]),
    Floats(&'a [f32]),
}

/// The response to a call, with the weights that made it in its headers; `base` is the base's name.
///
/// # Errors
/// An output that can't be written.
pub fn write(response: &Response, shape: &Shape, base: &str) -> Result<HttpResponse, Fault> {
    let internal = |e: &dyn std::fmt::Display| Fault::new(Kind::Internal, e.to_string());
    let mut bytes = Vec::new();
    let mut outputs = Vec::new();
    for output in &response.outputs {
        let mut head = HeadOutput {
            name: output.name,
            datatype: output.datatype,
            shape: [output.rows()],
            parameters: None,
            data: None,
        };
        if shape.binary(output.name) {
            let raw = output.to_raw().map_err(|e| internal(&e))?;
            head.parameters = Some(Sized { binary_data_size: raw.len() });
            bytes.extend_from_slice(&raw);
        } else {
            head.data = Some(elements(output));
        }
        outputs.push(head);
    }
    let binary = outputs.iter().any(|o| o.parameters.is_some());
    let head = Head {
        id: shape.id.as_deref(),
        model_name: &response.model,
        model_version: response.version.to_string(),
        outputs,
    };
    let mut body = serde_json::to_vec(&head).map_err(|e| internal(&e))?;
    let mut headers = HeaderMap::new();
    let kind = if binary { "application/octet-stream" } else { "application/json" };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if binary {
        headers.insert(HEADER_LENGTH, body.len().into());
    }
    body.extend_from_slice(&bytes);
    let by = response.by.iter().flat_map(|by| by.headers(base));
    for (name, value) in by.chain([response.times.header()]) {
        set(&mut headers, name, &value);
    }
    Ok((headers, body).into_response())
}

fn elements(output: &Output) -> Elements<'_> {
    match &output.data {
        Outputs::Bytes(all) => Elements::Texts(all),
        Outputs::Floats(all) => Elements::Floats(all),
    }
}
