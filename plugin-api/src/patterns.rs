//! Numbers for some of the modules, and numbers of layers, by PEFT's rules (`get_pattern_key`,
//! `check_target_module_exists`).

use std::collections::HashSet;

use serde_json::Value as Json;

use crate::sites::{Selection, Site, choose, matches_end};
use crate::{Code, Error, Graph, Result, fail};

/// An option that gives numbers to some modules: a regular expression for the end of the path → the number. The first that
/// matches counts.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(crate = "graft_plugin_api::serde", transparent)]
#[schemars(crate = "graft_plugin_api::schemars")]
pub struct Patterns(serde_json::Map<String, Json>);

impl Patterns {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Refuses what is no pattern, and numbers that are not `good`, in the words of `what`.
    ///
    /// # Errors
    /// `CONFIG` naming the option and the pattern.
    pub fn check(&self, option: &str, good: impl Fn(f64) -> bool, what: &str) -> Result<()> {
        for (pattern, value) in &self.0 {
            if !value.as_f64().is_some_and(&good) {
                return fail!(CONFIG, "option `{option}`, `{pattern}`: {value} is not {what}");
            }
            matches_end("", pattern)?;
        }
        Ok(())
    }

    /// Refuses what are no ranks, as [`Patterns::check`] does.
    ///
    /// # Errors
    /// As there.
    pub fn check_ranks(&self, option: &str) -> Result<()> {
        self.check(option, |rank| rank >= 1.0 && rank.fract() == 0.0, "a rank")
    }

    /// The number of the first pattern that the end of this path matches.
    ///
    /// # Errors
    /// `CONFIG` for what is no pattern.
    pub fn number(&self, path: &str) -> Result<Option<f64>> {
        for (pattern, value) in &self.0 {
            if matches_end(path, pattern)? {
                return Ok(value.as_f64());
            }
        }
        Ok(None)
    }
}

impl Graph<'_> {
    /// As [`Graph::select`], of which only the modules in these layers are taken, counted from 0; all without `layers`.
    /// `pattern` is the name of the list whose layers are counted; without it the innermost one.
    ///
    /// # Errors
    /// As [`Graph::select`]; `CONFIG` for a pattern without layers; `NO_SITE` where no module that matches is in these layers.
    #[track_caller]
    pub fn select_in_layers(
        &self,
        selection: &Selection<'_>,
        layers: Option<&[u64]>,
        pattern: Option<&str>,
    ) -> Result<Vec<Site>> {
        let Some(layers) = layers else {
            return match pattern {
                Some(_) => fail!(CONFIG, "option `layers_pattern`: it needs `layers_to_transform`"),
                None => self.select(selection),
            };
        };
        let all = self.sites()?;
        let taken = choose(&all, selection)?;
        let wanted: HashSet<u64> = layers.iter().copied().collect();
        let mut sites = Vec::new();
        for (site, _) in all.into_iter().zip(taken).filter(|(_, taken)| *taken) {
            if layer(&site.path, pattern)?.is_some_and(|n| wanted.contains(&n)) {
                sites.push(site);
            }
        }
        if sites.is_empty() {
            let what = format!("none of the chosen modules is in a layer of {layers:?}");
            return Err(Error::new(Code::NO_SITE, what).help("layers are counted from 0"));
        }
        self.report(&sites, &format!("the chosen modules of layers {layers:?}"))?;
        Ok(sites)
    }
}

/// Number of the layer that a path lies in: that behind the list `within`, or else the innermost.
fn layer(path: &str, within: Option<&str>) -> Result<Option<u64>> {
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
