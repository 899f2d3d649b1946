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
    /// What may stand there and the default, in words.
    pub kind: String,
    /// What it does.
    pub description: String,
}

/// The keys that `schema` describes, in its order.
pub fn keys(schema: &Json) -> Vec<Key> {
    let properties = schema.get("properties").and_then(Json::as_object);
    let key = |(name, property): (&String, &Json)| {
        let kind = Words { root: schema, left: Cell::new(MAX_PARTS) }.kind(property);
        let default = match property.get("default") {
            None => String::new(),
            Some(Json::Null) => ", optional".into(),
            Some(d) => format!(", default {}", text(d)),
        };
        Key {
            name: name.clone(),
            kind: kind + &default,
            description: property.get("description").and_then(Json::as_str).unwrap_or_default().to_string(),
        }
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
            return alternatives(values.iter().map(|v| Some(format!("`{}`", text(v)))));
        }
        if let Some(choices) = list("anyOf").or_else(|| list("oneOf")) {
            return alternatives(choices.iter().take(MAX_PARTS).map(|c| self.unless_null(c)));
        }
        match schema.get("type") {
            Some(Json::Array(types)) => {
                let types = types.iter().filter_map(Json::as_str);
                alternatives(types.map(|t| (t != "null").then(|| self.simple(t, schema))))
            }
            Some(Json::String(t)) => self.simple(t, schema),
            _ => "anything".into(),
        }
    }

    /// That nothing may stand there, too, shows in the default.
    fn unless_null(&self, choice: &Json) -> Option<String> {
        (choice.get("type").and_then(Json::as_str) != Some("null")).then(|| self.kind(choice))
    }

    fn simple(&self, name: &str, schema: &Json) -> String {
        match (name, schema.get("items")) {
            ("array", Some(items)) => match self.kind(items) {
                kind if kind.ends_with(char::is_alphabetic) => format!("list of {kind}s"),
                kind => format!("list of {kind}"),
            },
            ("boolean", _) => "true or false".into(),
            _ => name.to_string(),
        }
    }
}

/// `a, b or c`.
fn alternatives(choices: impl Iterator<Item = Option<String>>) -> String {
    let mut known: Vec<String> = Vec::new();
    for choice in choices.flatten() {
        if !known.contains(&choice) {
            known.push(choice);
        }
    }
    match known.pop() {
        None => "anything".into(),
        Some(only) if known.is_empty() => only,
        Some(last) => format!("{} or {last}", known.join(", ")),
    }
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
                "weights": { "type": ["array", "null"], "items": { "type": "number" } },
                "free": {},
            },
            "$defs": {
                "Names": { "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }] },
                "Bias": { "oneOf": [{ "const": "none" }, { "const": "some" }, { "const": "all" }] },
            },
        });
        let kinds: Vec<String> = keys(&schema).into_iter().map(|k| k.kind).collect();
        let wanted = [
            "integer, default 8",
            "string or list of strings, optional",
            "`none`, `some` or `all`",
            "list of numbers",
            "anything",
        ];
        assert_eq!(kinds, wanted);
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
