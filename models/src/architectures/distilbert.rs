//! DistilBERT (Sanh et al., 2019, arXiv:1910.01108), as `DistilBertModel` of transformers computes it: BERT without
//! segments and pooler, and with names of its own.
//!
//! Inputs `input_ids` and `attention_mask`, i64 `[batch, sequence]`. Output `last_hidden_state`
//! `[batch, sequence, hidden]`.

use graft_graph::{Graph, ValueId};
use serde::Deserialize;

use super::{MAX_LAYERS, MAX_ROWS, MAX_WIDTH};
use crate::config::Config;
use crate::error::Result;
use crate::recipe::{Activation, Heads, Recipe};
use crate::weights::Weights;

/// What `DistilBertModel` adds to a variance; no setting of the config.
const EPSILON: f32 = 1e-12;

/// The settings of `config.json` that change the forward pass; defaults are those of transformers.
#[derive(Deserialize)]
#[serde(default)]
struct Settings {
    vocab_size: u64,
    dim: u64,
    n_layers: u64,
    n_heads: u64,
    hidden_dim: u64,
    max_position_embeddings: u64,
    activation: String,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            vocab_size: 30522,
            dim: 768,
            n_layers: 6,
            n_heads: 12,
            hidden_dim: 3072,
            max_position_embeddings: 512,
            activation: "gelu".into(),
        }
    }
}

struct Sizes {
    hidden: usize,
    heads: usize,
    inner: usize,
    activation: Activation,
}

/// The graph of a checkpoint of `DistilBertModel`, or of a model with a head that has one under `distilbert.`.
pub(super) fn build(config: &Config, weights: &mut Weights) -> Result<Graph> {
    let s: Settings = config.settings()?;
    let hidden = config.size("dim", s.dim, MAX_WIDTH)?;
    let sizes = Sizes {
        hidden,
        heads: super::heads(config, "n_heads", s.n_heads, hidden)?,
        inner: config.size("hidden_dim", s.hidden_dim, MAX_WIDTH)?,
        activation: super::activation(config, "activation", &s.activation)?,
    };
    let layers = config.size("n_layers", s.n_layers, MAX_LAYERS)?;
    let vocabulary = config.size("vocab_size", s.vocab_size, MAX_ROWS)?;
    let rows = config.size("max_position_embeddings", s.max_position_embeddings, MAX_ROWS)?;
    weights.find_prefix(&["", "distilbert."], "embeddings.word_embeddings.weight");

    let mut r = Recipe::new("distilbert", weights);
    let ids = r.tokens_input("input_ids");
    let mask = r.tokens_input("attention_mask");
    let words = r.embedding("embeddings.word_embeddings", ids, vocabulary, hidden)?;
    let places = r.positions("embeddings", ids);
    let places = r.embedding("embeddings.position_embeddings", places, rows, hidden)?;
    let sum = r.op("embeddings", "Add", &[words, places], &[]);
    let mut x = r.layer_norm("embeddings.LayerNorm", sum, hidden, EPSILON)?;
    let mask = r.additive_mask(mask);
    for i in 0..layers {
        x = layer(&mut r, &format!("transformer.layer.{i}"), x, mask, &sizes)?;
    }
    r.output("last_hidden_state", x);
    Ok(r.finish())
}

fn layer(r: &mut Recipe<'_>, at: &str, x: ValueId, mask: ValueId, sizes: &Sizes) -> Result<ValueId> {
    let (hidden, inner) = (sizes.hidden, sizes.inner);
    let inside = format!("{at}.attention");
    let q = r.linear(&format!("{inside}.q_lin"), x, hidden, hidden)?;
    let k = r.linear(&format!("{inside}.k_lin"), x, hidden, hidden)?;
    let v = r.linear(&format!("{inside}.v_lin"), x, hidden, hidden)?;
    let mixed = r.attention(&inside, [q, k, v], mask, Heads { count: sizes.heads, hidden });
    let mixed = r.linear(&format!("{inside}.out_lin"), mixed, hidden, hidden)?;
    let sum = r.op(at, "Add", &[mixed, x], &[]);
    let x = r.layer_norm(&format!("{at}.sa_layer_norm"), sum, hidden, EPSILON)?;
    let up = r.linear(&format!("{at}.ffn.lin1"), x, hidden, inner)?;
    let up = r.activation(&format!("{at}.ffn.activation"), up, sizes.activation);
    let down = r.linear(&format!("{at}.ffn.lin2"), up, inner, hidden)?;
    let sum = r.op(at, "Add", &[down, x], &[]);
    r.layer_norm(&format!("{at}.output_layer_norm"), sum, hidden, EPSILON)
}
