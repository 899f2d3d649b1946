//! BERT encoders (Devlin et al., 2019, arXiv:1810.04805), as `BertModel` of transformers computes them.
//!
//! Inputs `input_ids`, `attention_mask` (1 for tokens, 0 for padding) and `token_type_ids`, all i64
//! `[batch, sequence]`. Outputs `last_hidden_state [batch, sequence, hidden]` and, where the checkpoint has a pooler,
//! `pooler_output [batch, hidden]`.

use graft_graph::{Attr, Graph, ValueId};
use serde::Deserialize;

use super::{MAX_LAYERS, MAX_ROWS, MAX_WIDTH};
use crate::config::Config;
use crate::error::Result;
use crate::recipe::{Activation, Heads, Recipe};
use crate::weights::Weights;

/// The settings of `config.json` that change the forward pass; defaults are those of transformers.
#[derive(Deserialize)]
#[serde(default)]
struct Settings {
    vocab_size: u64,
    hidden_size: u64,
    num_hidden_layers: u64,
    num_attention_heads: u64,
    intermediate_size: u64,
    max_position_embeddings: u64,
    type_vocab_size: u64,
    hidden_act: String,
    layer_norm_eps: f64,
    position_embedding_type: Option<String>,
    is_decoder: bool,
    add_cross_attention: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            vocab_size: 30522,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            max_position_embeddings: 512,
            type_vocab_size: 2,
            hidden_act: "gelu".into(),
            layer_norm_eps: 1e-12,
            position_embedding_type: None,
            is_decoder: false,
            add_cross_attention: false,
        }
    }
}

/// Settings after all checks.
pub(super) struct Sizes {
    pub(super) vocabulary: usize,
    pub(super) hidden: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) intermediate: usize,
    pub(super) positions: usize,
    pub(super) types: usize,
    pub(super) activation: Activation,
    pub(super) epsilon: f32,
}

impl Sizes {
    /// Reads and checks the settings of a BERT-like encoder.
    pub(super) fn read(config: &Config) -> Result<Sizes> {
        let s: Settings = config.settings()?;
        let hidden = config.size("hidden_size", s.hidden_size, MAX_WIDTH)?;
        let position = s.position_embedding_type.as_deref().unwrap_or("absolute");
        if position != "absolute" {
            return Err(config.bad(
                "position_embedding_type",
                position,
                "absolute: no other kind is supported",
            ));
        }
        for (field, on) in [("is_decoder", s.is_decoder), ("add_cross_attention", s.add_cross_attention)] {
            if on {
                return Err(config.bad(field, true, "false: only encoders are supported"));
            }
        }
        let epsilon = s.layer_norm_eps;
        if !(0.0..=1.0).contains(&epsilon) {
            return Err(config.bad("layer_norm_eps", epsilon, "between 0 and 1"));
        }
        Ok(Sizes {
            vocabulary: config.size("vocab_size", s.vocab_size, MAX_ROWS)?,
            hidden,
            layers: config.size("num_hidden_layers", s.num_hidden_layers, MAX_LAYERS)?,
            heads: super::heads(config, "num_attention_heads", s.num_attention_heads, hidden)?,
            intermediate: config.size("intermediate_size", s.intermediate_size, MAX_WIDTH)?,
            positions: config.size("max_position_embeddings", s.max_position_embeddings, MAX_ROWS)?,
            types: config.size("type_vocab_size", s.type_vocab_size, MAX_ROWS)?,
            activation: super::activation(config, "hidden_act", &s.hidden_act)?,
            epsilon: epsilon as f32,
        })
    }
}

/// The graph of a checkpoint of `BertModel`, or of a model with a head that has one under `bert.`.
pub(super) fn build(config: &Config, weights: &mut Weights) -> Result<Graph> {
    let sizes = Sizes::read(config)?;
    weights.find_prefix(&["", "bert."], "embeddings.word_embeddings.weight");
    let mut r = Recipe::new("bert", weights);
    let ids = r.tokens_input("input_ids");
    let mask = r.tokens_input("attention_mask");
    let types = r.tokens_input("token_type_ids");
    let embedded = embeddings(&mut r, ids, types, &sizes)?;
    let hidden = encoder(&mut r, embedded, mask, &sizes)?;
    r.output("last_hidden_state", hidden);
    if r.has("pooler.dense.weight") {
        let pooled = pooler(&mut r, hidden, &sizes)?;
        r.output("pooler_output", pooled);
    }
    Ok(r.finish())
}

fn embeddings(r: &mut Recipe<'_>, ids: ValueId, types: ValueId, sizes: &Sizes) -> Result<ValueId> {
    let at = "embeddings";
    let words = r.embedding("embeddings.word_embeddings", ids, sizes.vocabulary, sizes.hidden)?;
    let kinds = r.embedding("embeddings.token_type_embeddings", types, sizes.types, sizes.hidden)?;
    let sum = r.op(at, "Add", &[words, kinds], &[]);
    let places = r.positions(at, ids);
    let places = r.embedding("embeddings.position_embeddings", places, sizes.positions, sizes.hidden)?;
    let sum = r.op(at, "Add", &[sum, places], &[]);
    r.layer_norm("embeddings.LayerNorm", sum, sizes.hidden, sizes.epsilon)
}

/// All layers: `x [batch, sequence, hidden]`, `mask [batch, sequence]` → `[batch, sequence, hidden]`.
pub(super) fn encoder(r: &mut Recipe<'_>, mut x: ValueId, mask: ValueId, sizes: &Sizes) -> Result<ValueId> {
    let mask = r.additive_mask(mask);
    for i in 0..sizes.layers {
        x = layer(r, &format!("encoder.layer.{i}"), x, mask, sizes)?;
    }
    Ok(x)
}

fn layer(r: &mut Recipe<'_>, at: &str, x: ValueId, mask: ValueId, sizes: &Sizes) -> Result<ValueId> {
    let (hidden, wide) = (sizes.hidden, sizes.intermediate);
    let inner = format!("{at}.attention.self");
    let q = r.linear(&format!("{inner}.query"), x, hidden, hidden)?;
    let k = r.linear(&format!("{inner}.key"), x, hidden, hidden)?;
    let v = r.linear(&format!("{inner}.value"), x, hidden, hidden)?;
    let mixed = r.attention(&inner, [q, k, v], mask, Heads { count: sizes.heads, hidden });
    let x = after(r, &format!("{at}.attention.output"), mixed, hidden, x, sizes)?;
    let up = r.linear(&format!("{at}.intermediate.dense"), x, hidden, wide)?;
    let up = r.activation(&format!("{at}.intermediate.intermediate_act_fn"), up, sizes.activation);
    after(r, &format!("{at}.output"), up, wide, x, sizes)
}

/// `norm(dense(y) + x)`: how both halves of a layer end.
fn after(
    r: &mut Recipe<'_>,
    at: &str,
    y: ValueId,
    width: usize,
    x: ValueId,
    sizes: &Sizes,
) -> Result<ValueId> {
    let y = r.linear(&format!("{at}.dense"), y, width, sizes.hidden)?;
    let sum = r.op(at, "Add", &[y, x], &[]);
    r.layer_norm(&format!("{at}.LayerNorm"), sum, sizes.hidden, sizes.epsilon)
}

/// `tanh(dense(first token))`: `[batch, sequence, hidden]` → `[batch, hidden]`.
pub(super) fn pooler(r: &mut Recipe<'_>, hidden: ValueId, sizes: &Sizes) -> Result<ValueId> {
    let first = r.int(0);
    let first = r.op("pooler", "Gather", &[hidden, first], &[("axis", Attr::Int(1))]);
    let dense = r.linear("pooler.dense", first, sizes.hidden, sizes.hidden)?;
    Ok(r.op("pooler.activation", "Tanh", &[dense], &[]))
}
