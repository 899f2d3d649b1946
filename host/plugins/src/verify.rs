//! Checks a plugin library as far as it can be checked without a user's base and without running graphs.

use std::path::Path;

use graft_plugin_api::Code;
use serde_json::Value as Json;

use crate::dry_run::Dry;
use crate::{Kind, Method, Objective, Plugin, Result, dry_run, read_manifest};

/// Something that was checked and held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What, in words.
    pub what: String,
}

/// Reads the manifest, loads the library and makes an instance of each of its methods and objectives, with the defaults
/// and with every example. With its defaults each is written into a tiny base, and gradients are derived. Runs the plugin's
/// code.
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
            let named = format!("{} `{}`", kind.name(), item.id);
            let dry = one(&plugin, kind, &item.id, &Json::Null, true)?;
            hold(format!("{named} with its defaults"));
            dry.into_iter().for_each(|d| hold(format!("{named} on a tiny base: {d}")));
            for example in &item.examples {
                one(&plugin, kind, &item.id, &example.config, false)?;
                hold(format!("{named}, example: {}", example.title));
            }
        }
    }
    Ok(held)
}

/// Makes an instance and, where asked for, tries it on a tiny base; gives what that came to.
fn one(plugin: &Plugin, kind: Kind, id: &str, config: &Json, dry: bool) -> Result<Option<String>> {
    let tried = match kind {
        Kind::Method => {
            let method = Method::new(plugin, id, config)?;
            if dry { Some(dry_run::method(&method)) } else { None }
        }
        Kind::Objective => {
            let objective = Objective::new(plugin, id, config)?;
            objective.fields()?;
            if dry { dry_run::objective(&objective).transpose() } else { None }
        }
    };
    match tried {
        None => Ok(None),
        Some(Ok(Dry { parameters: 0, .. })) => Ok(Some("it has no parameters of its own".into())),
        Some(Ok(d)) => {
            Ok(Some(format!("{} parameters, and gradients of them in {} nodes", d.parameters, d.nodes)))
        }
        // A plugin for bases of another kind is sound all the same.
        Some(Err(e)) if [Code::REFUSED, Code::CONFIG].contains(&e.code) => {
            Ok(Some(format!("not tried, it refuses that base: {}", e.message)))
        }
        Some(Err(e)) => Err(e),
    }
}
