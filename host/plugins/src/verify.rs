//! Checks a plugin library as far as it can be checked without a user's base and without running graphs.

use std::path::Path;

use graft_plugin_api::Code;
use serde_json::Value as Json;

use crate::dry_run::Trial;
use crate::{Kind, Method, Objective, Plugin, Result, dry_run, read_manifest};

/// Something that was checked and held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What, in words.
    pub what: String,
}

/// What became of a method or an objective on the tiny base.
#[derive(Debug)]
pub enum Tried {
    /// It was written into it, and has gradients.
    Written(Box<Trial>),
    /// It is for other bases or other data, and says why.
    Refused(String),
}

/// What was checked and held, and what was tried: the defaults and each example, in words.
#[derive(Debug, Default)]
pub struct Verified {
    /// The checks.
    pub held: Vec<Check>,
    /// The trials.
    pub trials: Vec<(String, Tried)>,
}

/// Reads the manifest, loads the library and makes an instance of each of its methods and objectives, with the defaults
/// and with every example. Each is written into a tiny base, and gradients are derived. Runs the plugin's code.
///
/// # Errors
/// The first thing that does not hold.
pub fn verify(path: &Path) -> Result<Verified> {
    let mut verified = Verified::default();
    let manifest = read_manifest(path)?;
    let mut hold = |what: String| verified.held.push(Check { what });
    hold(format!("manifest of `{}` {}, plugin API {}", manifest.id, manifest.version, manifest.api));
    let plugin = Plugin::load(path)?;
    hold("version and layout of the boundary".to_owned());
    for kind in [Kind::Method, Kind::Objective] {
        for item in kind.items(&manifest) {
            let named = format!("{} `{}`", kind.name(), item.id);
            let defaults = [(format!("{named} with its defaults"), &Json::Null)];
            let examples =
                item.examples.iter().map(|e| (format!("{named}, example: {}", e.title), &e.config));
            for (what, config) in defaults.into_iter().chain(examples) {
                verified.trials.push((what.clone(), one(&plugin, kind, &item.id, config)?));
                verified.held.push(Check { what });
            }
        }
    }
    Ok(verified)
}

/// Makes an instance and tries it on the tiny base.
fn one(plugin: &Plugin, kind: Kind, id: &str, config: &Json) -> Result<Tried> {
    let tried = match kind {
        Kind::Method => dry_run::method(&Method::new(plugin, id, config)?).map(Some),
        Kind::Objective => dry_run::objective(&Objective::new(plugin, id, config)?),
    };
    match tried {
        Ok(Some(trial)) => Ok(Tried::Written(Box::new(trial))),
        Ok(None) => {
            Ok(Tried::Refused("it reads fields of a kind that no data can be made up for".to_owned()))
        }
        // A plugin for bases or data of another kind is sound all the same.
        Err(e) if !e.mistake && [Code::REFUSED, Code::CONFIG, Code::DATA].contains(&e.code) => {
            Ok(Tried::Refused(e.message.clone()))
        }
        Err(e) => Err(e),
    }
}
