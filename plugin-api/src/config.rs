//! Configs: the type of a method or objective is its own config.

use std::fmt;

use schemars::JsonSchema;
use serde::de::{DeserializeOwned, Deserializer, Visitor};
use serde::{Serialize, forward_to_deserialize_any};

use crate::{Code, Error, Result};

/// What [`config!`](crate::config) makes a type fit for.
pub trait Config:
    Serialize + DeserializeOwned + JsonSchema + Default + Clone + Send + Sync + 'static
{
}

impl<T: Serialize + DeserializeOwned + JsonSchema + Default + Clone + Send + Sync + 'static> Config for T {}

/// Declares a config: every field has a documentation comment, which becomes its description, and a default.
///
/// ```
/// graft_plugin_api::config! {
///     /// Scales each output.
///     pub struct Scale {
///         /// The factor at the start.
///         factor: f32 = 1.0,
///         /// Which modules.
///         #[serde(alias = "modules")]
///         target_modules: Option<Vec<String>> = None,
///     }
/// }
/// assert_eq!(Scale::default().factor, 1.0);
/// ```
#[macro_export]
macro_rules! config {
    ($(#[$meta:meta])* $vis:vis struct $name:ident {
        $( $(#[$field_meta:meta])* $field:ident : $type:ty = $default:expr ),* $(,)?
    }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, $crate::serde::Serialize, $crate::serde::Deserialize,
                 $crate::schemars::JsonSchema)]
        #[serde(crate = "graft_plugin_api::serde", default, deny_unknown_fields)]
        #[schemars(crate = "graft_plugin_api::schemars")]
        $vis struct $name { $( $(#[$field_meta])* pub $field: $type, )* }

        impl ::std::default::Default for $name {
            fn default() -> Self { Self { $( $field: $default, )* } }
        }
    };
}

/// Reads a config from JSON text; an empty text is all defaults.
///
/// # Errors
/// `CONFIG`: no object, an unknown key (with the nearest known one), a value of the wrong type (with its path).
pub fn parse<C: Config>(text: &str) -> Result<C> {
    if text.trim().is_empty() {
        return Ok(C::default());
    }
    let bad = |m: String| Error::new(Code::CONFIG, m);
    let json: serde_json::Value =
        serde_json::from_str(text).map_err(|e| bad(format!("the config is not JSON: {e}")))?;
    let object = json.as_object().ok_or_else(|| bad("the config is not a JSON object".to_owned()))?;
    let known = keys::<C>();
    if let Some(key) = object.keys().find(|k| !known.contains(&k.as_str())) {
        return Err(bad(format!("there is no option `{key}`")).help(advice(key, known)));
    }
    serde_path_to_error::deserialize(&json).map_err(|e| {
        let path = e.path().to_string();
        bad(format!("option `{path}`: {}", e.into_inner()))
    })
}

fn advice(key: &str, known: &[&str]) -> String {
    match nearest(key, known.iter().copied(), 1).first() {
        Some(near) => format!("did you mean `{near}`? The options are {}", known.join(", ")),
        None => format!("the options are {}", known.join(", ")),
    }
}

/// The `count` names most like `name`, nearest first; none that are not like it at all.
pub fn nearest<'a>(name: &str, names: impl IntoIterator<Item = &'a str>, count: usize) -> Vec<&'a str> {
    let mut scored: Vec<_> = names.into_iter().map(|n| (strsim::jaro_winkler(name, n), n)).collect();
    scored.retain(|(s, _)| *s > 0.6);
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    scored.into_iter().take(count).map(|(_, n)| n).collect()
}

/// The keys that serde takes for `C`, aliases included: asked of the derived `Deserialize` itself.
fn keys<C: DeserializeOwned>() -> &'static [&'static str] {
    let mut keys: &'static [&'static str] = &[];
    // The answer is always the error below; what counts is the list that it wrote.
    let _ = C::deserialize(KeyReader(&mut keys));
    keys
}

struct KeyReader<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for KeyReader<'_> {
    type Error = serde::de::value::Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, Self::Error> {
        *self.0 = fields;
        Err(serde::de::Error::custom("keys were read"))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Self::Error> {
        Err(serde::de::Error::custom("not a struct"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// A list of names or one pattern, as PEFT has it for `target_modules`.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Names {
    /// A regular expression for the whole path, or `all-linear`.
    Pattern(String),
    /// Whole paths or their ends.
    List(Vec<String>),
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Names::Pattern(p) => write!(f, "`{p}`"),
            Names::List(l) => write!(f, "[{}]", l.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::config! {
        /// A config for the tests.
        struct Sample {
            /// Rank.
            r: usize = 8,
            /// Scale.
            #[serde(alias = "lora_alpha")]
            alpha: f32 = 16.0,
            /// Sites.
            target_modules: Option<Names> = None,
        }
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        assert_eq!(parse::<Sample>("").unwrap(), Sample::default());
        assert_eq!(parse::<Sample>(r#"{"r": 4}"#).unwrap(), Sample { r: 4, ..Sample::default() });
        assert_eq!(parse::<Sample>(r#"{"lora_alpha": 2}"#).unwrap().alpha, 2.0);
    }

    #[test]
    fn an_unknown_key_names_the_nearest() {
        let e = parse::<Sample>(r#"{"lora_alhpa": 1}"#).unwrap_err();
        assert_eq!(e.code, Code::CONFIG);
        assert!(e.message.contains("`lora_alhpa`") && e.help.contains("did you mean `lora_alpha`"), "{e}");
    }

    #[test]
    fn a_wrong_type_names_its_option() {
        let e = parse::<Sample>(r#"{"r": "eight"}"#).unwrap_err();
        assert!(e.message.contains("option `r`") && e.message.contains("eight"), "{e}");
        assert!(parse::<Sample>("[1]").is_err() && parse::<Sample>("{").is_err());
    }

    #[test]
    fn names_are_a_list_or_a_pattern() {
        let c = parse::<Sample>(r#"{"target_modules": ["query"]}"#).unwrap();
        assert_eq!(c.target_modules, Some(Names::List(vec!["query".to_owned()])));
        let c = parse::<Sample>(r#"{"target_modules": "all-linear"}"#).unwrap();
        assert_eq!(c.target_modules, Some(Names::Pattern("all-linear".to_owned())));
    }
}
