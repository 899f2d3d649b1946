//! Vectors and losses in the graph.

use graft_plugin_api::*;

use crate::{Embedding, Loss};

/// Squared length below which a vector is not made longer.
const LEAST: f32 = 1e-24;

/// `[rows, width]` → the same with rows of length 1.
pub fn normalised(g: &Graph<'_>, x: Value) -> Result<Value> {
    let square = g.reduce_sum(g.mul(x, x)?, &[1], true)?;
    g.div(x, g.emit("Sqrt", &[g.max(square, g.scalar(LEAST)?)?], &[])?)
}

/// The loss of a batch, a scalar, from vectors `[texts · batch, width]`: those of the first texts, then those of their
/// pairs, then those of the negatives, if there are any.
pub fn build(c: &Embedding, g: &Graph<'_>, vectors: Value) -> Result<Value> {
    let texts = if c.negatives == Some(true) { 3 } else { 2 };
    let Some(width) = g.width(vectors)? else {
        return fail!(REFUSED, "the width of the base's hidden states is not known");
    };
    let stacked = g.reshape(vectors, &[texts, -1, width as i64])?;
    let of = |k: i64| g.gather(stacked, g.constant(Tensor::i64s("", &[], &[k]))?, 0);
    let (first, pair) = (of(0)?, of(1)?);
    match c.loss {
        Loss::Cosine => cosine(g, first, pair),
        Loss::InfoNce => {
            let negative = if texts == 3 { Some(of(2)?) } else { None };
            info_nce(c, g, first, pair, negative)
        }
    }
}

fn batch() -> [Dim; 1] {
    [Dim::Symbol("examples".to_owned())]
}

/// Mean of (cosine − score)² with the input `scores` `[batch]` f32.
fn cosine(g: &Graph<'_>, first: Value, pair: Value) -> Result<Value> {
    let scores = g.input("scores", DType::F32, &batch())?;
    let error = g.sub(g.reduce_sum(g.mul(first, pair)?, &[1], false)?, scores)?;
    g.reduce_mean(g.mul(error, error)?, &[], false)
}

/// The cross-entropy of each text's own pair among all pairs and negatives of the batch; the input `example` `[batch]` i64
/// counts the examples.
fn info_nce(
    c: &Embedding,
    g: &Graph<'_>,
    first: Value,
    pair: Value,
    negative: Option<Value>,
) -> Result<Value> {
    let example = g.input("example", DType::I64, &batch())?;
    let own = g.equal(g.unsqueeze(example, &[1])?, g.unsqueeze(example, &[0])?)?;
    let own = g.cast(own, DType::F32)?;
    let likeness = |others: Value| {
        g.div(g.matmul(first, g.transpose(others, &[1, 0])?)?, g.scalar(c.temperature as f32)?)
    };
    let pairs = likeness(pair)?;
    let (mut all, mut right) = (pairs, own);
    if let Some(negative) = negative {
        let beside = [attr("axis", 1i64)];
        all = g.emit("Concat", &[pairs, likeness(negative)?], &beside)?;
        right = g.emit("Concat", &[own, g.mul(own, g.scalar(0.0)?)?], &beside)?;
    }
    let mean = |logits: Value, right: Value, axis: i64| {
        let rows = g.reduce_sum(g.mul(right, g.log_softmax(logits, axis)?)?, &[axis], false)?;
        g.neg(g.reduce_mean(rows, &[], false)?)
    };
    let loss = mean(all, right, 1)?;
    if !c.symmetric {
        return Ok(loss);
    }
    g.mul(g.add(loss, mean(pairs, own, 0)?)?, g.scalar(0.5)?)
}
