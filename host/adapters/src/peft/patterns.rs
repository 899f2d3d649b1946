//! Numbers for some of the modules: regular expressions for the ends of paths, of which the first that matches counts
//! (PEFT's `get_pattern_key`).

use regex::{Regex, RegexBuilder};
use serde_json::{Map, Value};

/// Largest number that is believed.
const MAX: f64 = 1e9;
/// Most patterns of a setting, and most bytes of one once it is compiled.
const MAX_PATTERNS: usize = 4096;
const MAX_COMPILED: usize = 1 << 17;

/// The patterns of a setting.
pub(super) struct Patterns(Vec<(Regex, f64)>);

impl Patterns {
    /// `None` where one is no expression that is known here, or has no finite number.
    pub(super) fn new(setting: &Map<String, Value>) -> Option<Patterns> {
        let one = |(key, value): (&String, &Value)| {
            let whole = format!(r"\A(?:.*\.)?(?:{key})\z");
            let number = value.as_f64().filter(|n| n.abs() <= MAX)?;
            Some((RegexBuilder::new(&whole).size_limit(MAX_COMPILED).build().ok()?, number))
        };
        if setting.len() > MAX_PATTERNS {
            return None;
        }
        setting.iter().map(one).collect::<Option<_>>().map(Patterns)
    }

    /// The number of the first pattern that the end of `path` matches.
    pub(super) fn number(&self, path: &str) -> Option<f64> {
        self.0.iter().find(|(pattern, _)| pattern.is_match(path)).map(|(_, number)| *number)
    }
}

/// The same numbers by whole paths: for each of these modules, which may have a name of another prefix, the number that it
/// has now, where that is not `usual`. Then no pattern means another module.
pub(super) fn fixed(
    setting: &Map<String, Value>,
    usual: f64,
    paths: &[(String, String)],
) -> Map<String, Value> {
    let patterns = Patterns::new(setting);
    let number = |path: &str| patterns.as_ref().and_then(|p| p.number(path)).filter(|n| *n != usual);
    paths.iter().filter_map(|(path, name)| Some((regex::escape(name), json_number(number(path)?)))).collect()
}

/// A whole number where it is one: ranks, and alphas as PEFT writes them.
fn json_number(n: f64) -> Value {
    if n.fract() == 0.0 { Value::from(n as i64) } else { Value::from(n) }
}
