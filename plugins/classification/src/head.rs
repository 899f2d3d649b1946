//! The head.

use graft_plugin_api::*;

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
    let Some(width) = g.width(x)? else {
        return fail!(REFUSED, "the width of the base's hidden states is not known");
    };
    let weight = ParamSpec::new("classifier.weight", &[labels, width]).init(Init::Normal(0.02));
    let bias = ParamSpec::new("classifier.bias", &[labels]).no_decay();
    let (weight, bias) = (g.param(weight.head().paddable(0))?, g.param(bias.head().paddable(0))?);
    Ok(Linear { input: x, weight, bias, logits: g.linear(x, weight, Some(bias))? })
}
