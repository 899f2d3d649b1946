//! A call over HTTP: a JSON object, and behind it the bytes of those tensors that came as bytes.

use std::time::Duration;

use axum::http::HeaderMap;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::elements::Elements;
use crate::v2::models::{INPUTS, OUTPUTS};
use crate::v2::parameters::{check_tensor, timeout};
use crate::v2::{Data, DataType, Fault, Input, Kind, Request};

/// The header that says how long the JSON in front of the bytes is.
pub const HEADER_LENGTH: &str = "inference-header-content-length";

type Parameters = Map<String, Value>;

/// The JSON of a call. Unknown fields are left alone, as other servers do.
#[derive(Deserialize)]
struct Head {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    parameters: Option<Parameters>,
    inputs: Vec<HeadInput>,
    #[serde(default)]
    outputs: Option<Vec<HeadOutput>>,
}

#[derive(Deserialize)]
struct HeadInput {
    name: String,
    shape: Vec<i64>,
    datatype: String,
    #[serde(default)]
    parameters: Option<Parameters>,
    #[serde(default)]
    data: Option<Elements>,
}

#[derive(Deserialize)]
struct HeadOutput {
    name: String,
    #[serde(default)]
    parameters: Option<Parameters>,
}

/// A call as it came.
#[derive(Debug, PartialEq)]
pub struct Call {
    inputs: Vec<Input>,
    outputs: Vec<(String, Option<bool>)>,
    timeout: Option<Duration>,
    binary: bool,
    id: Option<String>,
}

/// What the answer is to look like.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shape {
    /// The caller's name for the call.
    pub id: Option<String>,
    outputs: Vec<(String, Option<bool>)>,
    binary: bool,
}

impl Shape {
    /// Whether an output goes as bytes.
    pub fn binary(&self, output: &str) -> bool {
        let own = self.outputs.iter().find(|(name, _)| name == output).and_then(|(_, binary)| *binary);
        own.unwrap_or(self.binary)
    }
}

impl Call {
    /// What is asked of a model, and how it is to be answered.
    pub fn into_request(self, model: String) -> (Request, Shape) {
        let outputs = self.outputs.iter().map(|(name, _)| name.clone()).collect();
        let request = Request { model, inputs: self.inputs, outputs, timeout: self.timeout };
        (request, Shape { id: self.id, outputs: self.outputs, binary: self.binary })
    }
}

/// The length of the JSON, if the caller says it.
///
/// # Errors
/// A header that is no number.
pub fn header_length(headers: &HeaderMap) -> Result<Option<usize>, Fault> {
    let Some(length) = headers.get(HEADER_LENGTH) else { return Ok(None) };
    let length = length.to_str().ok().and_then(|l| l.trim().parse().ok());
    length.map(Some).ok_or_else(|| Fault::invalid("Inference-Header-Content-Length is no number"))
}

/// The schema of a call's JSON.
pub fn schema(_: &mut SchemaGenerator) -> Schema {
    let inputs = INPUTS.map(|i| i.name);
    let outputs = OUTPUTS.map(|o| o.name);
    let input = json!({
        "type": "object",
        "required": ["name", "shape", "datatype"],
        "properties": {
            "name": { "enum": inputs },
            "shape": { "type": "array", "items": { "type": "integer", "minimum": 0 } },
            "datatype": { "enum": ["BYTES", "INT64", "INT32"] },
            "parameters": { "type": ["object", "null"] },
            "data": { "type": ["array", "null"] },
        },
    });
    // The most usual calls by themselves: tools that make requests of this hardly find shapes and data that fit.
    let fixed = |name: &str, datatype: &str, shape: Value, item: Value| {
        let rows = shape[0].clone();
        let data = json!({ "type": "array", "minItems": rows, "maxItems": rows, "items": item });
        let properties = json!({
            "name": { "const": name }, "shape": { "const": shape }, "datatype": { "const": datatype }, "data": data,
        });
        json!({ "type": "object", "required": ["name", "shape", "datatype", "data"], "properties": properties })
    };
    let text = || fixed("text", "BYTES", json!([2]), json!({ "type": "string", "pattern": "\\S" }));
    let adapter = fixed("adapter", "BYTES", json!([2]), json!({ "const": "" }));
    let row = json!({
        "type": "array", "minItems": 3, "maxItems": 3, "items": { "type": "integer", "minimum": 0, "maximum": 9 },
    });
    let ids = fixed("input_ids", "INT64", json!([2, 3]), row);
    let exactly = |all: Vec<Value>| {
        let count = all.len();
        json!({ "type": "array", "prefixItems": all, "minItems": count, "maxItems": count })
    };
    json_schema!({
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": { "type": ["string", "null"] },
            "parameters": { "type": ["object", "null"] },
            "inputs": {
                "anyOf": [
                    exactly(vec![text()]),
                    exactly(vec![text(), adapter]),
                    exactly(vec![ids]),
                    { "type": "array", "minItems": 1, "items": input },
                ],
            },
            "outputs": {
                "type": ["array", "null"],
                "items": {
                    "type": "object",
                    "required": ["name"],
                    "properties": { "name": { "enum": outputs }, "parameters": { "type": ["object", "null"] } },
                },
            },
        },
    })
}

/// Reads a call of which the first `header` bytes are JSON; all of them where the caller did not say.
///
/// # Errors
/// JSON that is no call; tensors and bytes that do not fit each other.
pub fn read(header: Option<usize>, body: &[u8]) -> Result<Call, Fault> {
    if header == Some(0) {
        let message = "a call without its JSON is not served: a model has several inputs";
        return Err(Fault::new(Kind::Unsupported, message));
    }
    let (json, mut bytes) = body.split_at_checked(header.unwrap_or(body.len())).ok_or_else(|| {
        Fault::invalid(format!("a body of {} bytes is shorter than its JSON is said to be", body.len()))
    })?;
    let head: Head = serde_json::from_slice(json).map_err(|e| Fault::invalid(format!("the JSON: {e}")))?;
    let mut inputs = Vec::new();
    for input in head.inputs {
        inputs.push(self::input(input, &mut bytes)?);
    }
    if !bytes.is_empty() {
        return Err(Fault::invalid(format!("{} bytes are left behind the last tensor", bytes.len())));
    }
    let mut outputs = Vec::new();
    for output in head.outputs.unwrap_or_default() {
        let parameters = output.parameters.unwrap_or_default();
        check_tensor(&output.name, |p| parameters.contains_key(p))?;
        outputs.push((output.name, flag(&parameters, "binary_data")?));
    }
    let parameters = head.parameters.unwrap_or_default();
    Ok(Call {
        inputs,
        outputs,
        timeout: timeout(parameters.get("timeout").map(Value::as_u64))?,
        binary: flag(&parameters, "binary_data_output")?.unwrap_or(false),
        id: head.id,
    })
}

/// An input, of which the bytes, if it came as such, are the next of `bytes`.
fn input(input: HeadInput, bytes: &mut &[u8]) -> Result<Input, Fault> {
    let HeadInput { name, shape, datatype, parameters, data } = input;
    let parameters = parameters.unwrap_or_default();
    check_tensor(&name, |p| parameters.contains_key(p))?;
    let Some(size) = parameters.get("binary_data_size") else {
        let wanted = DataType::of(&datatype, &name)?;
        let data = data.ok_or_else(|| Fault::invalid(format!("input '{name}' has no data")))?.into_data();
        let data = match (wanted, data) {
            (DataType::Bytes, None) => Data::Bytes(Vec::new()),
            (_, None) => Data::Ints(Vec::new()),
            (DataType::Bytes, Some(data @ Data::Bytes(_)))
            | (DataType::Int64 | DataType::Int32, Some(data @ Data::Ints(_))) => data,
            _ => return Err(Fault::invalid(format!("the data of input '{name}' are not {datatype}"))),
        };
        return Input::new(&name, &shape, data);
    };
    if data.is_some() {
        return Err(Fault::invalid(format!("input '{name}' has data both as JSON and as bytes")));
    }
    let taken = size.as_u64().and_then(|n| usize::try_from(n).ok());
    let taken = taken.and_then(|n| bytes.split_at_checked(n)).ok_or_else(|| {
        let left = bytes.len();
        Fault::invalid(format!("input '{name}' says {size} bytes of data, but {left} are left"))
    })?;
    *bytes = taken.1;
    Input::of_raw(&name, &datatype, &shape, taken.0)
}

fn flag(parameters: &Parameters, name: &str) -> Result<Option<bool>, Fault> {
    match parameters.get(name) {
        None => Ok(None),
        Some(Value::Bool(flag)) => Ok(Some(*flag)),
        Some(_) => Err(Fault::invalid(format!("parameter '{name}' is true or false"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A body of a JSON object and bytes, and the length of the first.
    fn body(head: &Value, bytes: &[u8]) -> (Option<usize>, Vec<u8>) {
        let mut body = head.to_string().into_bytes();
        let length = body.len();
        body.extend_from_slice(bytes);
        (Some(length), body)
    }

    fn tensor(name: &str, datatype: &str, shape: Value, size: Value) -> Value {
        let parameters = json!({ "binary_data_size": size });
        json!({ "name": name, "datatype": datatype, "shape": shape, "parameters": parameters })
    }

    #[test]
    fn tensors_come_as_json_or_as_bytes() {
        let mask =
            json!({ "name": "attention_mask", "datatype": "INT64", "shape": [1, 2], "data": [[1, 1]] });
        let outputs =
            json!([{ "name": "score", "parameters": { "binary_data": false } }, { "name": "json" }]);
        let inputs = json!([tensor("input_ids", "INT64", json!([1, 2]), json!(16)), mask]);
        let parameters = json!({ "binary_data_output": true, "timeout": 5 });
        let head = json!({ "id": "7", "inputs": inputs, "outputs": outputs, "parameters": parameters });
        let (length, body) = body(&head, &[&7i64.to_le_bytes()[..], &9i64.to_le_bytes()].concat());
        let (request, shape) = read(length, &body).unwrap().into_request("m".into());
        assert_eq!(request.inputs[0].data, Data::Ints(vec![7, 9]));
        assert_eq!(request.inputs[1].data, Data::Ints(vec![1, 1]));
        assert_eq!(
            (request.outputs, request.timeout),
            (vec!["score".into(), "json".into()], Some(Duration::from_micros(5)))
        );
        assert_eq!(shape.id.as_deref(), Some("7"));
        assert!(!shape.binary("score") && shape.binary("json"));
    }

    #[test]
    fn bytes_that_no_tensor_has_are_refused() {
        let why = |inputs: Value, bytes: &[u8]| {
            let (length, body) = body(&json!({ "inputs": inputs }), bytes);
            read(length, &body).unwrap_err().message
        };
        let ids = |size: Value| json!([tensor("input_ids", "INT64", json!([1, 1]), size)]);
        assert!(why(ids(json!(8)), &[0; 9]).contains("1 bytes are left"));
        assert!(why(ids(json!(8)), &[0; 7]).contains("7 are left"));
        for size in [json!(-8), json!(8.5), json!("8"), json!(u64::MAX)] {
            assert!(why(ids(size), &[0; 8]).contains("says"));
        }
        assert!(read(Some(9), b"{}").unwrap_err().message.contains("shorter"));
        assert_eq!(read(Some(0), &[0; 4]).unwrap_err().kind, Kind::Unsupported);
        assert!(read(None, b"{").unwrap_err().message.contains("the JSON"));
    }

    proptest! {
        #[test]
        fn any_body_is_a_call_or_refused(header in prop::option::of(0usize..80), body in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = read(header, &body);
        }

        #[test]
        fn any_sizes_and_bytes_are_a_call_or_refused(
            tensors in prop::collection::vec((
                prop_oneof![Just("BYTES"), Just("INT64"), Just("INT32"), Just("FP32")],
                prop::collection::vec(prop_oneof![0i64..4, any::<i64>()], 0..4),
                prop_oneof![0u64..40, any::<u64>()],
            ), 0..4),
            bytes in prop::collection::vec(prop_oneof![3 => Just(0u8), 1 => any::<u8>()], 0..80),
            off in -3i64..4,
        ) {
            let inputs: Vec<Value> = tensors.iter().map(|(t, shape, size)| tensor("x", t, json!(shape), json!(size))).collect();
            let (length, body) = body(&json!({ "inputs": inputs }), &bytes);
            if let Ok(call) = read(length, &body) {
                let taken: u64 = tensors.iter().map(|t| t.2).sum();
                prop_assert_eq!((call.inputs.len(), taken), (tensors.len(), bytes.len() as u64));
            }
            let _ = read(length.map(|l| l.saturating_add_signed(off as isize)), &body);
        }
    }
}
