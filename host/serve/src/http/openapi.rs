//! The OpenAPI document. Schemas are those of the types that bodies are read into; each dialect lists its operations.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::{admin, both, console, openai, tei};

/// What makes the schema of a body.
type Body = fn(&mut SchemaGenerator) -> Schema;

/// The schema of a type.
pub(super) fn body<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// One method of one path.
#[derive(Clone, Copy)]
pub(super) struct Operation {
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    takes: Option<Body>,
    or: Option<Body>,
    archive: bool,
}

impl Operation {
    pub(super) const fn new(method: &'static str, path: &'static str, summary: &'static str) -> Operation {
        Operation { method, path, summary, takes: None, or: None, archive: false }
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

    /// It takes a tar.
    pub(super) const fn archive(self) -> Operation {
        Operation { archive: true, ..self }
    }

    fn content(&self, generator: &mut SchemaGenerator) -> Option<Value> {
        if self.archive {
            return Some(
                json!({ "application/x-tar": { "schema": { "type": "string", "format": "binary" } } }),
            );
        }
        let schema = match (self.takes, self.or) {
            (Some(one), Some(other)) => json!({ "anyOf": [one(generator), other(generator)] }),
            (Some(one), None) => json!(one(generator)),
            _ => return None,
        };
        Some(json!({ "application/json": { "schema": schema } }))
    }

    fn described(&self, path: &str, tag: &str, generator: &mut SchemaGenerator) -> Value {
        let names = path.split('/').filter_map(|p| p.strip_prefix('{')?.strip_suffix('}'));
        let parameters: Vec<Value> = names
            .map(|n| json!({ "name": n, "in": "path", "required": true, "schema": { "type": "string" } }))
            .collect();
        let failure = json!({
            "description": "It is refused; the body says why",
            "content": { "application/json": { "schema": { "type": "object" } } },
        });
        let mut described = json!({
            "tags": [tag],
            "summary": self.summary,
            "parameters": parameters,
            "responses": { "2XX": { "description": "The answer" }, "4XX": failure, "5XX": failure },
        });
        if let Some(content) = self.content(generator) {
            let needed = !path.ends_with("/pin");
            described["requestBody"] = json!({ "required": needed, "content": content });
        }
        described
    }
}

/// The document.
pub(super) fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|s| {
        s.definitions_path = "/components/schemas".into();
        s.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let mut paths: Map<String, Value> = Map::new();
    let mut add = |path: String, tag: &str, o: &Operation| {
        let described = o.described(&path, tag, &mut generator);
        let methods = paths.entry(path).or_insert_with(|| json!({}));
        methods[o.method] = described;
    };
    let dialects: [(&str, &[Operation]); 3] = [
        ("Text Embeddings Inference", &tei::OPERATIONS),
        ("OpenAI and vLLM", &openai::OPERATIONS),
        ("both", &both::OPERATIONS),
    ];
    for (tag, operations) in dialects {
        operations.iter().for_each(|o| add(o.path.to_owned(), tag, o));
    }
    for o in admin::OPERATIONS.iter().chain(&console::OPERATIONS) {
        add(o.path.to_owned(), "administration", o);
    }
    for (tag, operations) in dialects {
        operations
            .iter()
            .for_each(|o| add(format!("/a/{{adapter}}{}", o.path.trim_end_matches('/')), tag, o));
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
