//! The table of architectures: one file and one row each.

mod bert;

use graft_graph::Graph;

use crate::config::Config;
use crate::error::{ImportError, Result};
use crate::weights::Weights;

/// One family of models.
pub(crate) struct Architecture {
    /// Values of `model_type` in `config.json`.
    model_types: &'static [&'static str],
    /// Reads the settings and writes the forward graph.
    pub(crate) build: fn(&Config, &mut Weights) -> Result<Graph>,
}

const TABLE: &[Architecture] = &[Architecture { model_types: &["bert"], build: bert::build }];

/// Values of `model_type` that can be imported.
pub fn supported() -> Vec<&'static str> {
    TABLE.iter().flat_map(|a| a.model_types).copied().collect()
}

/// The architecture that a config asks for.
pub(crate) fn find(config: &Config) -> Result<&'static Architecture> {
    let model_type = config.text("model_type").unwrap_or("(none given)");
    TABLE.iter().find(|a| a.model_types.contains(&model_type)).ok_or_else(|| ImportError::Architecture {
        path: config.path().into(),
        model_type: model_type.into(),
        supported: supported().join(", "),
    })
}
