//! Pooling and head, or the base's own head.

use graft_plugin_api::*;

use crate::Pooling;

/// One vector for each row: `[batch, hidden]`.
pub fn pool(g: &Graph<'_>, pooling: Pooling) -> Result<Value> {
    if pooling == Pooling::Pooled {
        let none =
            || Error::new(Code::REFUSED, "the base has no pooled output").help("choose another pooling");
        return g.pooled()?.ok_or_else(none);
    }
    let hidden = g.hidden()?;
    let mask = g.model_input("mask")?;
    match (pooling, mask) {
        (Pooling::Mean, None) => g.reduce_mean(hidden, &[1], false),
        (Pooling::Mean, Some(mask)) => {
            let mask = g.cast(mask, DType::F32)?;
            let count = g.max(g.reduce_sum(mask, &[1], true)?, g.scalar(1e-9)?)?;
            g.div(weighted_sum(g, mask, hidden)?, count)
        }
        (Pooling::Last, Some(mask)) => {
            // The last 1 of the mask is where its running sum reaches its sum; right whether padding is left or right.
            let mask = g.cast(mask, DType::F32)?;
            let running = g.emit("CumSum", &[mask, g.constant(Tensor::i64s("", &[], &[1]))?], &[])?;
            let reached = g.equal(running, g.reduce_sum(mask, &[1], true)?)?;
            weighted_sum(g, g.mul(g.cast(reached, DType::F32)?, mask)?, hidden)
        }
        (Pooling::Last, None) => at(g, hidden, -1),
        _ => at(g, hidden, 0),
    }
}

/// `[batch, seq]` weights and `[batch, seq, hidden]` → `[batch, hidden]`.
fn weighted_sum(g: &Graph<'_>, weights: Value, hidden: Value) -> Result<Value> {
    g.squeeze(g.matmul(g.unsqueeze(weights, &[1])?, hidden)?, &[1])
}

/// The token at a position: `[batch, hidden]`.
fn at(g: &Graph<'_>, hidden: Value, position: i64) -> Result<Value> {
    g.gather(hidden, g.constant(Tensor::i64s("", &[], &[position]))?, 1)
}

/// The base's own logits, of which there must be one for each label.
pub fn own(g: &Graph<'_>, labels: u64) -> Result<Value> {
    let none =
        || Error::new(Code::REFUSED, "the base has no logits of its own").help("choose another pooling");
    let logits = g.logits()?.ok_or_else(none)?;
    let width = g.fact(logits)?.shape.and_then(|s| s.last().and_then(Dim::known));
    if width == Some(labels) {
        return Ok(logits);
    }
    let found = width.map_or("an unknown number of".to_owned(), |n| n.to_string());
    Err(Error::new(Code::REFUSED, format!("the base has {found} logits, and there are {labels} labels"))
        .help(
            "name all of them in the order of the logits with the option `labels`, or choose another pooling",
        ))
}

/// A linear head: what it reads, its parameters, and its logits `[batch, labels]`.
pub struct Linear {
    /// `[batch, hidden]`.
    pub input: Value,
    /// `[labels, hidden]`.
    pub weight: Value,
    /// `[labels]`.
    pub bias: Value,
    /// `[batch, labels]`.
    pub logits: Value,
}

/// `[batch, hidden]` → `[batch, labels]`, starting as the heads of Hugging Face's models do (normal of deviation 0.02,
/// no bias).
pub fn linear(g: &Graph<'_>, x: Value, labels: u64) -> Result<Linear> {
    let width = g.fact(x)?.shape.and_then(|s| s.last().and_then(Dim::known));
    let Some(width) = width else {
        return fail!(REFUSED, "the width of the base's hidden states is not known");
    };
    let weight = ParamSpec::new("classifier.weight", &[labels, width]).init(Init::Normal(0.02));
    let bias = ParamSpec::new("classifier.bias", &[labels]).no_decay();
    let (weight, bias) = (g.param(weight.head().paddable(0))?, g.param(bias.head().paddable(0))?);
    Ok(Linear { input: x, weight, bias, logits: g.linear(x, weight, Some(bias))? })
}
