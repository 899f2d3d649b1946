//! What each installed method would train.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::Result;
use graft_plugins::api::Course;
use graft_plugins::api::manifest::{Example, Item};
use graft_plugins::{Found, Method, Plugin, adapt, find};
use graft_tasks::Base;
use serde::Serialize;
use serde_json::Value as Json;

use super::training::{self, Batch, StepGraph};

/// A method with one of its examples, written into the base.
#[derive(Serialize)]
pub struct Training {
    pub method: String,
    pub example: String,
    pub config: Json,
    /// Trainable parameters; none where the method could not be applied.
    pub parameters: Option<u64>,
    /// Sites that the method took.
    pub sites: usize,
    pub error: Option<String>,
    /// The training step, where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<StepGraph>,
}

impl Training {
    /// The settings that differ from the defaults.
    pub fn settings_text(&self) -> String {
        let pairs = self.config.as_object().into_iter().flatten();
        let pairs = pairs.map(|(k, v)| match v {
            Json::String(s) => format!("{k}={s}"),
            other => format!("{k}={other}"),
        });
        let text = pairs.collect::<Vec<_>>().join(" ");
        if text.is_empty() { "defaults".into() } else { text }
    }
}

/// Applies every installed method to the base, once for each of its examples. For a `batch`, the training step is
/// derived, too.
pub fn of(base: &Base, plugin_dirs: &[PathBuf], batch: Option<Batch>) -> Result<Vec<Training>> {
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    for Found { path, manifest } in find::list(plugin_dirs)? {
        let Ok(manifest) = manifest else { continue };
        for item in manifest.methods.iter().filter(|m| seen.insert(m.id.clone())) {
            let plugin = Plugin::load(&path);
            for example in examples(item) {
                let counted = plugin.as_ref().map_err(ToString::to_string);
                let counted =
                    counted.and_then(|p| trained(base, p, item, &example, batch).map_err(|e| e.to_string()));
                let (parameters, sites, step, error) = match counted {
                    Ok((n, sites, step)) => (Some(n), sites, step, None),
                    Err(e) => (None, 0, None, Some(e)),
                };
                let Example { title, config } = example;
                let method = item.id.clone();
                all.push(Training { method, example: title, config, parameters, sites, error, step });
            }
        }
    }
    Ok(all)
}

/// The method's own examples; without any, its defaults.
fn examples(item: &Item) -> Vec<Example> {
    match item.examples.as_slice() {
        [] => vec![Example { title: item.summary.clone(), config: Json::Object(Default::default()) }],
        own => own.to_vec(),
    }
}

fn trained(
    base: &Base,
    plugin: &Plugin,
    item: &Item,
    example: &Example,
    batch: Option<Batch>,
) -> graft_plugins::Result<(u64, usize, Option<StepGraph>)> {
    let method = Method::new(plugin, &item.id, &example.config)?;
    let adapted = adapt(&base.graph, &base.model, Some(&method), None, false)?;
    let size = |shape: &[usize]| shape.iter().fold(1u64, |n, d| n.saturating_mul(*d as u64));
    let trained = adapted.params.iter().filter(|p| p.course == Course::Trained);
    let parameters = trained.fold(0u64, |n, p| n.saturating_add(size(&p.shape)));
    let sites: BTreeSet<&String> = adapted.matched.iter().flat_map(|m| &m.matched).collect();
    Ok((parameters, sites.len(), batch.map(|b| training::step(base, &adapted, b))))
}
