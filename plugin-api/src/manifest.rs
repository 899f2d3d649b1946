//! The manifest: what a plugin is, readable without running it.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::abi::{API_VERSION, METHOD_EXTENSION, OBJECTIVE_EXTENSION};
use crate::export::Plugin;

/// Version of the manifest's own format.
pub const FORMAT: u32 = 1;

/// Set to 1, the manifest test writes `plugin.json` instead of comparing it.
pub const UPDATE_ENV: &str = "GRAFT_UPDATE_MANIFEST";

/// What a plugin says of itself. Unknown keys are skipped, so the format may grow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this format, [`FORMAT`].
    pub format: u32,
    /// The plugin's id.
    pub id: String,
    /// The plugin's version.
    pub version: String,
    /// Version of the plugin API that it was built against, `MAJOR.MINOR`.
    pub api: String,
    /// Licence, as an SPDX expression.
    pub licence: String,
    /// Its methods.
    #[serde(default)]
    pub methods: Vec<Item>,
    /// Its objectives.
    #[serde(default)]
    pub objectives: Vec<Item>,
}

/// A method or objective in the manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// Id.
    pub id: String,
    /// One line.
    pub summary: String,
    /// JSON Schema of the config, with defaults and descriptions.
    pub config: Json,
    /// Configs worth showing.
    #[serde(default)]
    pub examples: Vec<Example>,
}

/// A config worth showing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Example {
    /// What it is for.
    pub title: String,
    /// The config: only what differs from the defaults.
    pub config: Json,
}

impl Manifest {
    /// The API version as numbers, if it can be read.
    pub fn api_version(&self) -> Option<(u32, u32)> {
        let (major, minor) = self.api.split_once('.')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    }
}

/// The manifest of a plugin, made from its code.
pub fn generate(plugin: &Plugin) -> Manifest {
    let items = |extension: &str| {
        let entries = plugin.entries.iter().filter(move |e| e.extension == extension);
        entries
            .map(|e| Item {
                id: e.id.to_owned(),
                summary: e.summary.to_owned(),
                config: (e.schema)(),
                examples: (e.examples)()
                    .into_iter()
                    .map(|(title, config)| Example {
                        title: title.to_owned(),
                        config: without_defaults(config, e),
                    })
                    .collect(),
            })
            .collect()
    };
    Manifest {
        format: FORMAT,
        id: plugin.id.to_owned(),
        version: plugin.version.to_owned(),
        api: format!("{}.{}", API_VERSION.0, API_VERSION.1),
        licence: plugin.licence.to_owned(),
        methods: items(METHOD_EXTENSION),
        objectives: items(OBJECTIVE_EXTENSION),
    }
}

fn without_defaults(config: Json, entry: &crate::export::Entry) -> Json {
    let defaults =
        entry.check("").ok().and_then(|d| serde_json::from_str::<Json>(&d).ok()).unwrap_or_default();
    match config {
        Json::Object(o) => Json::Object(o.into_iter().filter(|(k, v)| defaults.get(k) != Some(v)).collect()),
        other => other,
    }
}

/// The text of `plugin.json` for a plugin.
pub fn text(plugin: &Plugin) -> String {
    let mut text = serde_json::to_string_pretty(&generate(plugin)).unwrap_or_default();
    text.push('\n');
    text
}

/// For the test that `export_plugin!` writes: the file is what the code says, and every example is a config that is
/// accepted. With [`UPDATE_ENV`] set the file is written first.
///
/// # Panics
/// When it is stale or cannot be read.
pub fn check_file(plugin: &Plugin, path: &Path) {
    for entry in plugin.entries {
        for (title, config) in (entry.examples)() {
            if let Err(e) = entry.check(&config.to_string()) {
                panic!("example `{title}` of `{}` is refused: {e}", entry.id);
            }
        }
    }
    let wanted = text(plugin);
    if std::env::var_os(UPDATE_ENV).is_some_and(|v| v == "1")
        && let Err(e) = std::fs::write(path, &wanted)
    {
        panic!("{} cannot be written: {e}", path.display());
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        found == wanted,
        "{} is stale: run the tests of this plugin once with {UPDATE_ENV}=1, then build again",
        path.display()
    );
}
