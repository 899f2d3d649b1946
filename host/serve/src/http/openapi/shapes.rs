//! Schemas of answers, which are put together as JSON and have no types of their own.

use serde_json::{Map, Value, json};

fn text() -> Value {
    json!({ "type": "string" })
}

fn number() -> Value {
    json!({ "type": "number" })
}

fn whole() -> Value {
    json!({ "type": "integer", "minimum": 0 })
}

fn flag() -> Value {
    json!({ "type": "boolean" })
}

fn any_object() -> Value {
    json!({ "type": "object" })
}

fn list(of: Value) -> Value {
    json!({ "type": "array", "items": of })
}

fn or_null(of: Value) -> Value {
    json!({ "anyOf": [of, { "type": "null" }] })
}

fn either<const N: usize>(all: [Value; N]) -> Value {
    json!({ "anyOf": all.to_vec() })
}

/// An object that has all of these.
fn object<const N: usize>(fields: [(&str, Value); N]) -> Value {
    let required: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
    let required = json!(required);
    let properties: Map<String, Value> = fields.into_iter().map(|(n, v)| (n.to_owned(), v)).collect();
    json!({ "type": "object", "required": required, "properties": properties })
}

/// Errors of Text Embeddings Inference.
pub fn tei_error() -> Value {
    object([("error", text()), ("error_type", text())])
}

/// Errors of OpenAI, vLLM and the administration.
pub fn openai_error() -> Value {
    let code = either([text(), whole(), json!({ "type": "null" })]);
    let inner = [("message", text()), ("type", text()), ("param", or_null(text())), ("code", code)];
    object([("error", object(inner))])
}

/// Errors where the body decides whose they are.
pub fn either_error() -> Value {
    either([tei_error(), openai_error()])
}

/// Errors of the Open Inference Protocol.
pub fn v2_error() -> Value {
    object([("error", text())])
}

pub fn vectors() -> Value {
    list(list(number()))
}

pub fn numbers() -> Value {
    list(number())
}

fn labels() -> Value {
    let label = object([("label", text()), ("score", number())]);
    let span = [
        ("entity_group", text()),
        ("score", number()),
        ("word", text()),
        ("start", whole()),
        ("end", whole()),
    ];
    list(either([label, object(span)]))
}

pub fn predictions() -> Value {
    either([labels(), list(labels())])
}

/// What `POST /` gives: labels, vectors or cosines.
pub fn pipeline() -> Value {
    either([predictions(), vectors(), numbers()])
}

pub fn info() -> Value {
    object([
        ("model_id", text()),
        ("model_sha", text()),
        ("model_dtype", text()),
        ("model_type", any_object()),
        ("max_concurrent_requests", whole()),
        ("max_input_length", or_null(whole())),
        ("max_batch_tokens", whole()),
        ("max_client_batch_size", whole()),
        ("auto_truncate", flag()),
        ("version", text()),
    ])
}

fn tei_ranks() -> Value {
    list(object([("index", whole()), ("score", number())]))
}

fn usage() -> Value {
    object([("prompt_tokens", whole()), ("total_tokens", whole())])
}

pub fn ranked() -> Value {
    let document = object([("text", text())]);
    let result = [("index", whole()), ("document", document), ("relevance_score", number())];
    object([("id", text()), ("model", text()), ("usage", usage()), ("results", list(object(result)))])
}

pub fn either_ranks() -> Value {
    either([tei_ranks(), ranked()])
}

pub fn either_tokens() -> Value {
    let token = [
        ("id", whole()),
        ("text", text()),
        ("special", flag()),
        ("start", or_null(whole())),
        ("stop", or_null(whole())),
    ];
    let of_vllm =
        object([("count", whole()), ("max_model_len", or_null(whole())), ("tokens", list(whole()))]);
    either([list(list(object(token))), of_vllm])
}

pub fn either_classes() -> Value {
    let one = object([
        ("index", whole()),
        ("label", or_null(text())),
        ("probs", numbers()),
        ("num_classes", whole()),
    ]);
    let of_vllm = object([
        ("id", text()),
        ("object", text()),
        ("created", whole()),
        ("model", text()),
        ("data", list(one)),
        ("usage", usage()),
    ]);
    either([of_vllm, predictions()])
}

pub fn model_card() -> Value {
    object([
        ("id", text()),
        ("object", text()),
        ("created", whole()),
        ("owned_by", text()),
        ("root", text()),
        ("parent", or_null(text())),
    ])
}

pub fn model_cards() -> Value {
    object([("object", text()), ("data", list(model_card()))])
}

pub fn embeddings() -> Value {
    let embedding = either([numbers(), text()]);
    let one = object([("object", text()), ("index", whole()), ("embedding", embedding)]);
    object([("object", text()), ("data", list(one)), ("model", text()), ("usage", usage())])
}

pub fn adapter() -> Value {
    object([
        ("name", text()),
        ("revision", whole()),
        ("digest", text()),
        ("previous", or_null(any_object())),
        ("pinned", flag()),
        ("path", text()),
        ("labels", list(text())),
    ])
}

pub fn adapters() -> Value {
    object([("adapters", list(adapter()))])
}

pub fn v2_server() -> Value {
    object([("name", text()), ("version", text()), ("extensions", list(text()))])
}

pub fn v2_model() -> Value {
    let tensor =
        object([("name", text()), ("datatype", text()), ("shape", list(json!({ "type": "integer" })))]);
    object([
        ("name", text()),
        ("versions", list(text())),
        ("platform", text()),
        ("inputs", list(tensor.clone())),
        ("outputs", list(tensor)),
    ])
}

pub fn v2_config() -> Value {
    let tensor =
        object([("name", text()), ("data_type", text()), ("dims", list(json!({ "type": "integer" })))]);
    object([
        ("name", text()),
        ("platform", text()),
        ("backend", text()),
        ("input", list(tensor.clone())),
        ("output", list(tensor)),
    ])
}

pub fn v2_statistics() -> Value {
    let one = [
        ("name", text()),
        ("version", text()),
        ("inference_count", whole()),
        ("inference_stats", any_object()),
    ];
    object([("model_stats", list(object(one)))])
}

pub fn v2_index() -> Value {
    list(object([("name", text()), ("version", text()), ("state", text()), ("reason", text())]))
}

pub fn v2_answer() -> Value {
    let output = object([("name", text()), ("datatype", text()), ("shape", list(whole()))]);
    object([("model_name", text()), ("model_version", text()), ("outputs", list(output))])
}
