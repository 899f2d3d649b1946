//! What the settings of several PEFT types have in common.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::error::Result;

/// A choice of modules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Targets {
    /// A regular expression that must match the whole path, or `all-linear`.
    Pattern(String),
    /// Names: the whole path or its end, in whole segments.
    List(Vec<String>),
}

impl Targets {
    /// Whether a list names this path; `None` for patterns, which are not evaluated here.
    pub fn names(&self, path: &str) -> Option<bool> {
        let Targets::List(list) = self else { return None };
        let end = |t: &String| path == t || path.strip_suffix(t.as_str()).is_some_and(|p| p.ends_with('.'));
        Some(list.iter().any(end))
    }

    /// True for a list that names all of `paths` and none of `others`.
    pub(super) fn exactly(&self, paths: &[String], others: &[String]) -> bool {
        let all = |list: &[String], is| list.iter().all(|p| self.names(p) == Some(is));
        all(paths, true) && all(others, false)
    }
}

/// For settings that some versions of PEFT write as `null`.
pub(super) fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    d: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(d)?.unwrap_or_default())
}

/// The setting of biases that are not trained.
pub(super) fn none() -> String {
    "none".into()
}

/// PEFT declares alphas as integers, and so they are written where they are.
pub(super) fn whole<S: Serializer>(v: &f64, s: S) -> Result<S::Ok, S::Error> {
    if v.fract() == 0.0 && v.abs() < 1e15 { s.serialize_i64(*v as i64) } else { s.serialize_f64(*v) }
}

/// Whether a setting that is not known here is switched off.
pub(crate) fn is_default(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
        Value::Number(_) => false,
    }
}

/// A value for a message, cut where it is long.
pub(crate) fn short(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() > 60 { text.chars().take(60).chain("…".chars()).collect() } else { text }
}
