//! RoBERTa and its kin (Liu et al., 2019, arXiv:1907.11692), as `RobertaModel` of transformers computes them: BERT
//! whose positions are counted from the first token on, after the number of the padding token, and which need not
//! know segments.
//!
//! Inputs `input_ids` and `attention_mask`, i64 `[batch, sequence]`; `token_type_ids` only where the checkpoint knows
//! more than one segment. Outputs as for BERT.

use graft_graph::{Attr, DType, Graph, ValueId};
use serde::Deserialize;

use super::bert::{Sizes, encoder, pooler};
use crate::config::Config;
use crate::error::Result;
use crate::recipe::Recipe;
use crate::weights::Weights;

/// What BERT does not have.
#[derive(Deserialize)]
struct Settings {
    /// Token for which positions are not counted, and after whose number they begin.
    #[serde(default = "default_padding")]
    pad_token_id: u64,
}

fn default_padding() -> u64 {
    1
}

/// The graph of a checkpoint of `RobertaModel`, or of a model with a head that has one under `roberta.`.
pub(super) fn build(config: &Config, weights: &mut Weights) -> Result<Graph> {
    let sizes = Sizes::read(config)?;
    let settings: Settings = config.settings()?;
    let padding = usize::try_from(settings.pad_token_id).ok().filter(|p| *p < sizes.vocabulary);
    let padding = padding.ok_or_else(|| {
        config.bad("pad_token_id", settings.pad_token_id, format!("below vocab_size ({})", sizes.vocabulary))
    })?;
    weights.find_prefix(&["", "roberta."], "embeddings.word_embeddings.weight");
    let mut r = Recipe::new("roberta", weights);
    let ids = r.tokens_input("input_ids");
    let mask = r.tokens_input("attention_mask");
    let types = (sizes.types > 1).then(|| r.tokens_input("token_type_ids"));
    let embedded = embeddings(&mut r, ids, types, padding, &sizes)?;
    let hidden = encoder(&mut r, embedded, mask, &sizes)?;
    r.output("last_hidden_state", hidden);
    if r.has("pooler.dense.weight") {
        let pooled = pooler(&mut r, hidden, &sizes)?;
        r.output("pooler_output", pooled);
    }
    Ok(r.finish())
}

fn embeddings(
    r: &mut Recipe<'_>,
    ids: ValueId,
    types: Option<ValueId>,
    padding: usize,
    sizes: &Sizes,
) -> Result<ValueId> {
    let at = "embeddings";
    let words = r.embedding("embeddings.word_embeddings", ids, sizes.vocabulary, sizes.hidden)?;
    let kinds = match types {
        Some(types) => r.embedding("embeddings.token_type_embeddings", types, sizes.types, sizes.hidden)?,
        // One row for all tokens: it broadcasts as it is.
        None => r.weight("embeddings.token_type_embeddings.weight", &[sizes.types, sizes.hidden])?,
    };
    let sum = r.op(at, "Add", &[words, kinds], &[]);
    let places = positions(r, at, ids, padding);
    let places = r.embedding("embeddings.position_embeddings", places, sizes.positions, sizes.hidden)?;
    let sum = r.op(at, "Add", &[sum, places], &[]);
    r.layer_norm("embeddings.LayerNorm", sum, sizes.hidden, sizes.epsilon)
}

/// `padding + n` for the n-th token of a row that is not padding, counted from 1; `padding` for the others.
fn positions(r: &mut Recipe<'_>, at: &str, ids: ValueId, padding: usize) -> ValueId {
    let (padding, axis) = (r.int(padding as i64), r.int(1));
    let is_padding = r.op(at, "Equal", &[ids, padding], &[]);
    let is_token = r.op(at, "Not", &[is_padding], &[]);
    let ones = r.op(at, "Cast", &[is_token], &[("to", Attr::Int(i64::from(DType::I64.onnx())))]);
    let count = r.op(at, "CumSum", &[ones, axis], &[]);
    let count = r.op(at, "Mul", &[count, ones], &[]);
    r.op(at, "Add", &[count, padding], &[])
}
