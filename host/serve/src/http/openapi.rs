//! The OpenAPI document. Schemas are those of the types that bodies are read into; each dialect lists its operations.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use super::{admin, both, console, openai, tei, v2};

pub(super) mod shapes;

/// What makes the schema of a body.
type Body = fn(&mut SchemaGenerator) -> Schema;
/// What makes the schema of an answer.
type Shape = fn() -> Value;

/// The schema of a type.
pub(super) fn body<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// Texts can be cut on the right alone.
pub(super) fn right(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "enum": ["right", "Right", null] })
}

/// There are no named prompts.
pub(super) fn no_name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "null" })
}

/// As many tokens as fit.
pub(super) fn all_that_fits(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "enum": [-1, null] })
}

/// A text that is not blank.
pub(super) fn text(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": "\\S" })
}

/// One such text or more.
pub(super) fn texts(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "minItems": 1, "items": text(generator) })
}

/// A text, or two that are read together.
pub(super) fn text_or_pair(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "minItems": 1, "maxItems": 2, "items": text(generator) })
}

/// A list of these.
pub(super) fn batch(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "minItems": 1, "items": text_or_pair(generator) })
}

/// Token ids.
pub(super) fn ids(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "minItems": 1, "items": { "type": "integer", "minimum": 0 } })
}

/// What an operation answers.
#[derive(Clone, Copy)]
enum Gives {
    /// A status alone.
    Nothing,
    Json(Shape),
    /// JSON, or tensors as bytes behind JSON.
    Tensors(Shape),
    Text,
}

/// One method of one path.
#[derive(Clone, Copy)]
pub(super) struct Operation {
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    takes: Option<Body>,
    or: Option<Body>,
    /// Whether the body may be left out.
    optional: bool,
    archive: bool,
    tensors: bool,
    gives: Gives,
}

impl Operation {
    pub(super) const fn new(method: &'static str, path: &'static str, summary: &'static str) -> Operation {
        Operation {
            method,
            path,
            summary,
            takes: None,
            or: None,
            optional: false,
            archive: false,
            tensors: false,
            gives: Gives::Nothing,
        }
    }

    pub(super) const fn get(path: &'static str, summary: &'static str) -> Operation {
        Operation::new("get", path, summary)
    }

    pub(super) const fn post(path: &'static str, summary: &'static str) -> Operation {
        Operation::new("post", path, summary)
    }

    /// The body that it takes.
    pub(super) const fn takes(self, body: Body) -> Operation {
        Operation { takes: Some(body), ..self }
    }

    /// Another body that it takes.
    pub(super) const fn or(self, body: Body) -> Operation {
        Operation { or: Some(body), ..self }
    }

    /// The body that it takes where there is one.
    pub(super) const fn may_take(self, body: Body) -> Operation {
        Operation { takes: Some(body), optional: true, ..self }
    }

    /// It takes a tar.
    pub(super) const fn archive(self) -> Operation {
        Operation { archive: true, ..self }
    }

    /// It takes and gives tensors, as JSON or as bytes.
    pub(super) const fn tensors(self, body: Body, answer: Shape) -> Operation {
        Operation { takes: Some(body), tensors: true, gives: Gives::Tensors(answer), ..self }
    }

    /// What it answers, as JSON; a status alone where this is not said.
    pub(super) const fn gives(self, answer: Shape) -> Operation {
        Operation { gives: Gives::Json(answer), ..self }
    }

    /// It answers plain text.
    pub(super) const fn gives_text(self) -> Operation {
        Operation { gives: Gives::Text, ..self }
    }

    fn content(&self, generator: &mut SchemaGenerator) -> Option<Value> {
        let bytes = json!({ "schema": { "type": "string", "format": "binary" } });
        if self.archive {
            return Some(json!({ "application/x-tar": bytes, "application/octet-stream": bytes }));
        }
        let schema = match (self.takes, self.or) {
            (Some(one), Some(other)) => json!({ "anyOf": [one(generator), other(generator)] }),
            (Some(one), None) => json!(one(generator)),
            _ => return None,
        };
        let mut content = json!({ "application/json": { "schema": schema } });
        if self.tensors {
            content["application/octet-stream"] = bytes;
        }
        Some(content)
    }

    fn answer(&self) -> Value {
        let mut answer = json!({ "description": "The answer" });
        match self.gives {
            Gives::Nothing => {}
            Gives::Text => {
                answer["content"] = json!({ "text/plain": { "schema": { "type": "string" } } });
            }
            Gives::Json(shape) => {
                answer["content"] = json!({ "application/json": { "schema": shape() } });
            }
            Gives::Tensors(shape) => {
                let bytes = json!({ "schema": { "type": "string", "format": "binary" } });
                answer["content"] =
                    json!({ "application/json": { "schema": shape() }, "application/octet-stream": bytes });
            }
        }
        answer
    }

    fn described(&self, path: &str, dialect: &Dialect, generator: &mut SchemaGenerator) -> Value {
        let names = path.split('/').filter_map(|p| p.strip_prefix('{')?.strip_suffix('}'));
        let schema = json!({ "type": "string", "minLength": 1 });
        let parameters: Vec<Value> =
            names.map(|n| json!({ "name": n, "in": "path", "required": true, "schema": schema })).collect();
        let failure = json!({
            "description": "It is refused; the body says why",
            "content": { "application/json": { "schema": (dialect.error)() } },
        });
        let mut described = json!({
            "tags": [dialect.tag],
            "summary": self.summary,
            "parameters": parameters,
            "responses": { "2XX": self.answer(), "4XX": failure, "5XX": failure },
        });
        if let Some(content) = self.content(generator) {
            described["requestBody"] = json!({ "required": !self.optional, "content": content });
        }
        described
    }
}

/// Operations with errors of one shape.
struct Dialect {
    tag: &'static str,
    operations: &'static [Operation],
    error: Shape,
}

/// Those that stand below `/a/{adapter}` as well.
const DIALECTS: [Dialect; 3] = [
    Dialect { tag: "Text Embeddings Inference", operations: &tei::OPERATIONS, error: shapes::tei_error },
    Dialect { tag: "OpenAI and vLLM", operations: &openai::OPERATIONS, error: shapes::openai_error },
    Dialect { tag: "both", operations: &both::OPERATIONS, error: shapes::either_error },
];
const ADMINISTRATION: Dialect =
    Dialect { tag: "administration", operations: &admin::OPERATIONS, error: shapes::openai_error };
const CONSOLE: Dialect =
    Dialect { tag: "console", operations: &console::OPERATIONS, error: shapes::openai_error };
const V2: Dialect = Dialect { tag: "KServe V2", operations: &v2::OPERATIONS, error: shapes::v2_error };

/// The document.
pub(super) fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|s| {
        s.definitions_path = "/components/schemas".into();
        s.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let mut paths: Map<String, Value> = Map::new();
    let mut add = |path: String, dialect: &Dialect, o: &Operation| {
        let described = o.described(&path, dialect, &mut generator);
        let methods = paths.entry(path).or_insert_with(|| json!({}));
        methods[o.method] = described;
    };
    for dialect in DIALECTS.iter().chain([&ADMINISTRATION, &CONSOLE, &V2]) {
        dialect.operations.iter().for_each(|o| add(o.path.to_owned(), dialect, o));
    }
    for dialect in &DIALECTS {
        let below = |o: &Operation| format!("/a/{{adapter}}{}", o.path.trim_end_matches('/'));
        dialect.operations.iter().for_each(|o| add(below(o), dialect, o));
    }
    for o in V2.operations {
        if let Some(rest) = o.path.strip_prefix(v2::MODEL) {
            add(format!("{}/versions/{{version}}{rest}", v2::MODEL), &V2, o);
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": { "title": "Graft", "version": env!("CARGO_PKG_VERSION") },
        "paths": paths,
        "components": {
            "schemas": generator.take_definitions(true),
            "securitySchemes": { "key": { "type": "http", "scheme": "bearer" } },
        },
        "security": [{}, { "key": [] }],
    })
}
