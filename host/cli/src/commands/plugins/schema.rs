//! The keys of a configuration, read from its JSON Schema.

use std::cell::Cell;

use serde_json::Value as Json;

/// How many parts of a key's schema are looked at: it may be circular, and is a plugin's.
const MAX_PARTS: usize = 64;

/// A key of a configuration.
#[derive(Debug, PartialEq)]
pub struct Key {
    /// Its name.
    pub name: String,
    /// What may stand there, in words.
    pub kind: String,
    /// The default, if there is one.
    pub default: Option<String>,
    /// What it does.
    pub description: String,
}

/// The keys that `schema` describes, in its order.
pub fn keys(schema: &Json) -> Vec<Key> {
    let properties = schema.get("properties").and_then(Json::as_object);
    let key = |(name, property): (&String, &Json)| Key {
        name: name.clone(),
        kind: Words { root: schema, left: Cell::new(MAX_PARTS) }.kind(property),
        default: property.get("default").map(text),
        description: property.get("description").and_then(Json::as_str).unwrap_or_default().to_string(),
    };
    properties.into_iter().flatten().map(key).collect()
}

/// A value as one would write it behind `--set KEY=`.
pub fn text(value: &Json) -> String {
    match value {
        Json::Null => "none".into(),
        Json::String(s) => s.clone(),
        // A float of 32 bits that was stored as 64 has digits that nobody wrote.
        Json::Number(n) => match n.as_f64() {
            Some(f) if n.is_f64() && f64::from(f as f32) == f => (f as f32).to_string(),
            _ => n.to_string(),
        },
        other => other.to_string(),
    }
}

/// Puts one key's schema in words.
struct Words<'a> {
    root: &'a Json,
    left: Cell<usize>,
}

impl Words<'_> {
    fn kind(&self, schema: &Json) -> String {
        let Some(left) = self.left.get().checked_sub(1) else { return "…".into() };
        self.left.set(left);
        if let Some(name) = schema.get("$ref").and_then(Json::as_str) {
            let target = name.strip_prefix("#/$defs/").and_then(|n| self.root.get("$defs")?.get(n));
            return target.map_or_else(|| name.to_string(), |t| self.kind(t));
        }
        if let Some(value) = schema.get("const") {
            return format!("`{}`", text(value));
        }
        let list = |key: &str| schema.get(key).and_then(Json::as_array).filter(|l| !l.is_empty());
        if let Some(values) = list("enum") {
            return alternatives(values.iter().map(|v| format!("`{}`", text(v))));
        }
        if let Some(choices) = list("anyOf").or_else(|| list("oneOf")) {
            return alternatives(choices.iter().take(MAX_PARTS).map(|c| self.kind(c)));
        }
        match schema.get("type") {
            Some(Json::Array(types)) => {
                alternatives(types.iter().filter_map(Json::as_str).map(|t| self.simple(t, schema)))
            }
            Some(Json::String(t)) => self.simple(t, schema),
            _ => "anything".into(),
        }
    }

    fn simple(&self, name: &str, schema: &Json) -> String {
        match (name, schema.get("items")) {
            ("null", _) => "none".into(),
            ("array", Some(items)) => format!("list of {}", self.kind(items)),
            ("boolean", _) => "true or false".into(),
            _ => name.to_string(),
        }
    }
}

fn alternatives(choices: impl Iterator<Item = String>) -> String {
    let mut known: Vec<String> = Vec::new();
    for choice in choices {
        if !known.contains(&choice) {
            known.push(choice);
        }
    }
    known.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn references_alternatives_and_lists_are_put_in_words() {
        let schema = json!({
            "properties": {
                "r": { "type": "integer", "default": 8, "description": "Rank." },
                "names": { "anyOf": [{ "$ref": "#/$defs/Names" }, { "type": "null" }], "default": null },
                "bias": { "$ref": "#/$defs/Bias" },
                "labels": { "type": ["array", "null"], "items": { "type": "string" } },
                "free": {},
            },
            "$defs": {
                "Names": { "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }] },
                "Bias": { "oneOf": [{ "const": "none" }, { "const": "all" }] },
            },
        });
        let kinds: Vec<String> = keys(&schema).into_iter().map(|k| k.kind).collect();
        let wanted =
            ["integer", "string, list of string, none", "`none`, `all`", "list of string, none", "anything"];
        assert_eq!(kinds, wanted);
        assert_eq!(keys(&schema)[0].default.as_deref(), Some("8"));
        assert_eq!(keys(&schema)[1].default.as_deref(), Some("none"));
    }

    #[test]
    fn a_circular_schema_ends() {
        let schema = json!({
            "properties": { "a": { "$ref": "#/$defs/A" } },
            "$defs": { "A": { "type": "array", "items": { "$ref": "#/$defs/A" } } },
        });
        assert!(keys(&schema)[0].kind.ends_with('…'));
        let many = vec![json!({ "$ref": "#/$defs/A" }); 1000];
        let wide = json!({
            "properties": { "a": { "$ref": "#/$defs/A" } },
            "$defs": { "A": { "anyOf": many } },
        });
        assert_eq!(keys(&wide)[0].kind, "…");
        assert!(keys(&json!("no schema")).is_empty());
    }

    #[test]
    fn numbers_have_the_digits_that_were_meant() {
        assert_eq!(text(&json!(f64::from(0.1f32))), "0.1");
        assert_eq!(text(&json!(16.0)), "16");
        assert_eq!(text(&json!(8)), "8");
        assert_eq!(text(&json!(0.3)), "0.3");
    }
}
