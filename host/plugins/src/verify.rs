//! Checks a plugin library as far as it can be checked without a base.

use std::path::Path;

use serde_json::Value as Json;

use crate::{Kind, Method, Objective, Plugin, Result, read_manifest};

/// Something that was checked and held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What, in words.
    pub what: String,
}

/// Reads the manifest, loads the library and makes an instance of each of its methods and objectives, with the defaults
/// and with every example. Runs the plugin's code.
///
/// # Errors
/// The first thing that does not hold.
pub fn verify(path: &Path) -> Result<Vec<Check>> {
    let mut held = Vec::new();
    let mut hold = |what: String| held.push(Check { what });
    let manifest = read_manifest(path)?;
    hold(format!("manifest of `{}` {}, plugin API {}", manifest.id, manifest.version, manifest.api));
    let plugin = Plugin::load(path)?;
    hold("version and layout of the boundary".to_owned());
    for kind in [Kind::Method, Kind::Objective] {
        for item in kind.items(&manifest) {
            let make = |config: &Json| match kind {
                Kind::Method => Method::new(&plugin, &item.id, config).map(drop),
                Kind::Objective => Objective::new(&plugin, &item.id, config)?.fields().map(drop),
            };
            make(&Json::Null)?;
            hold(format!("{} `{}` with its defaults", kind.name(), item.id));
            for example in &item.examples {
                make(&example.config)?;
                hold(format!("{} `{}`, example: {}", kind.name(), item.id, example.title));
            }
        }
    }
    Ok(held)
}
