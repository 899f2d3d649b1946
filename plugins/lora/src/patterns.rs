//! Numbers for some of the modules, and numbers of layers, by PEFT's rules (`get_pattern_key`,
//! `check_target_module_exists`).

use graft_plugin_api::*;

/// Pattern → number, in the order in which they are tried.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(crate = "graft_plugin_api::serde", transparent)]
#[schemars(crate = "graft_plugin_api::schemars")]
pub struct Patterns(serde_json::Map<String, Json>);

impl Patterns {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Refuses what is no pattern, and numbers that are not `good`.
    pub fn check(&self, option: &str, good: impl Fn(f64) -> bool, what: &str) -> Result<()> {
        for (pattern, value) in &self.0 {
            if !value.as_f64().is_some_and(&good) {
                return fail!(CONFIG, "option `{option}`, `{pattern}`: {value} is not {what}");
            }
            matches_end("", pattern)?;
        }
        Ok(())
    }

    /// The number of the first pattern that the end of this path matches.
    pub fn number(&self, path: &str) -> Result<Option<f64>> {
        for (pattern, value) in &self.0 {
            if matches_end(path, pattern)? {
                return Ok(value.as_f64());
            }
        }
        Ok(None)
    }
}

/// Number of the layer that a path lies in: that behind the list `within`, or else the innermost.
pub fn layer(path: &str, within: Option<&str>) -> Result<Option<u64>> {
    let segments: Vec<&str> = path.split('.').collect();
    for place in (1..segments.len().saturating_sub(1)).rev() {
        let Ok(number) = segments[place].parse() else { continue };
        let list = segments[..place].join(".");
        if within.map_or(Ok(true), |pattern| matches_end(&list, pattern))? {
            return Ok(Some(number));
        }
    }
    Ok(None)
}
