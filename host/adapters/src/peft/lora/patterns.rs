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
