//! The table of architectures: one file and one row each.

mod bert;
mod distilbert;
mod roberta;

use graft_graph::Graph;

use crate::config::Config;
use crate::error::{ImportError, Result};
use crate::recipe::Activation;
use crate::weights::Weights;

/// Largest numbers that are believed of a config; real encoders stay far below them.
const MAX_LAYERS: usize = 1024;
const MAX_WIDTH: usize = 1 << 17;
const MAX_ROWS: usize = 1 << 24;

/// One family of models.
pub(crate) struct Architecture {
    /// Values of `model_type` in `config.json`.
    model_types: &'static [&'static str],
    /// Reads the settings and writes the forward graph.
    pub(crate) build: fn(&Config, &mut Weights) -> Result<Graph>,
}

const TABLE: &[Architecture] = &[
    Architecture { model_types: &["bert"], build: bert::build },
    Architecture { model_types: &["roberta", "xlm-roberta", "camembert"], build: roberta::build },
    Architecture { model_types: &["distilbert"], build: distilbert::build },
];

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

/// A number of heads that divides the width of the hidden states.
fn heads(config: &Config, field: &'static str, value: u64, hidden: usize) -> Result<usize> {
    let heads = config.size(field, value, hidden)?;
    match hidden % heads {
        0 => Ok(heads),
        _ => Err(config.bad(field, heads, format!("a divisor of the hidden size ({hidden})"))),
    }
}

/// The activation function of that name.
fn activation(config: &Config, field: &'static str, name: &str) -> Result<Activation> {
    Activation::find(name).ok_or_else(|| config.bad(field, name, format!("one of {}", Activation::names())))
}
