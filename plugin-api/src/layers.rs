//! Layers with parameters of their own, which begin as those that people know.

use crate::{Graph, Init, ParamSpec, Result, Value, fail};

/// An objective's linear head.
#[derive(Debug, Clone, Copy)]
pub struct LinearHead {
    /// What it reads, `[…, hidden]`.
    pub input: Value,
    /// `[outputs, hidden]`.
    pub weight: Value,
    /// `[outputs]`.
    pub bias: Value,
    /// `[…, outputs]`.
    pub logits: Value,
}

impl Graph<'_> {
    /// The head `classifier` over `x` `[…, hidden]`, starting as the heads of Hugging Face's models do (normal of deviation
    /// 0.02, no bias). `paddable` says whether further outputs that are all zero change nothing.
    ///
    /// # Errors
    /// `REFUSED` where the last extent of `x` is not known.
    #[track_caller]
    pub fn linear_head(&self, x: Value, outputs: u64, paddable: bool) -> Result<LinearHead> {
        let Some(width) = self.width(x)? else {
            return fail!(REFUSED, "the width of the base's hidden states is not known");
        };
        let padded = |spec: ParamSpec| if paddable { spec.paddable(0) } else { spec };
        let weight = ParamSpec::new("classifier.weight", &[outputs, width]).init(Init::Normal(0.02));
        let bias = ParamSpec::new("classifier.bias", &[outputs]).no_decay();
        let (weight, bias) = (self.param(padded(weight.head()))?, self.param(padded(bias.head()))?);
        Ok(LinearHead { input: x, weight, bias, logits: self.linear(x, weight, Some(bias))? })
    }

    /// A linear layer of a method, `[…, from]` → `[…, to]`, with the parameters `NAME.weight` and `NAME.bias`, starting as
    /// `torch.nn.Linear` does.
    ///
    /// # Errors
    /// As [`Graph::param`].
    #[track_caller]
    pub fn torch_linear(&self, name: &str, x: Value, [from, to]: [u64; 2]) -> Result<Value> {
        let weight = ParamSpec::new(&format!("{name}.weight"), &[to, from]);
        let bias = ParamSpec::new(&format!("{name}.bias"), &[to]);
        let weight = self.param(weight.init(Init::KaimingUniform(5f64.sqrt())))?;
        let bias = self.param(bias.init(Init::Uniform((from as f64).sqrt().recip())))?;
        self.linear(x, weight, Some(bias))
    }
}
