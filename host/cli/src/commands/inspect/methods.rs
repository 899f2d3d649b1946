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

use super::sites::patterns;
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
    /// How it chose them, and their paths with a pattern for those that differ in numbers alone; one for each selection.
    pub takes: Vec<Taken>,
    pub error: Option<String>,
    /// The training step, where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<StepGraph>,
}

/// What one selection of a method takes.
#[derive(Serialize)]
pub struct Taken {
    pub rule: String,
    pub paths: Vec<String>,
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
                let Example { title, config } = example;
                let one = Training {
                    method: item.id.clone(),
                    example: title,
                    config,
                    parameters: None,
                    sites: 0,
                    takes: Vec::new(),
                    error: None,
                    step: None,
                };
                all.push(match counted {
                    Ok(Counted { parameters, sites, takes, step }) => {
                        Training { parameters: Some(parameters), sites, takes, step, ..one }
                    }
                    Err(e) => Training { error: Some(e), ..one },
                });
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

/// What one example comes to.
struct Counted {
    parameters: u64,
    sites: usize,
    takes: Vec<Taken>,
    step: Option<StepGraph>,
}

fn trained(
    base: &Base,
    plugin: &Plugin,
    item: &Item,
    example: &Example,
    batch: Option<Batch>,
) -> graft_plugins::Result<Counted> {
    let method = Method::new(plugin, &item.id, &example.config)?;
    let adapted = adapt(&base.graph, &base.model, Some(&method), None, false)?;
    let size = |shape: &[usize]| shape.iter().fold(1u64, |n, d| n.saturating_mul(*d as u64));
    let trained = adapted.params.iter().filter(|p| p.course == Course::Trained);
    let parameters = trained.fold(0u64, |n, p| n.saturating_add(size(&p.shape)));
    let sites: BTreeSet<&String> = adapted.matched.iter().flat_map(|m| &m.matched).collect();
    let takes = adapted.matched.iter().map(|m| {
        let paths: Vec<&str> = m.matched.iter().map(String::as_str).collect();
        Taken { rule: m.pattern.clone(), paths: patterns(&paths) }
    });
    Ok(Counted {
        parameters,
        sites: sites.len(),
        takes: takes.collect(),
        step: batch.map(|b| training::step(base, &adapted, b)),
    })
}
