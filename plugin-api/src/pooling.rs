//! How objectives make one vector of a row's hidden states.

use crate::{Code, DType, Error, Graph, Result, Tensor, Value};

/// How a row's hidden states become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// Mean over the tokens that are not padding.
    Mean,
    /// The first token.
    Cls,
    /// The last token that is not padding.
    Last,
    /// The base's own pooled output.
    Pooled,
    /// None, and no head: the base's own logits.
    Logits,
}

impl Graph<'_> {
    /// One vector for each row, f32: `[batch, hidden]`.
    ///
    /// # Errors
    /// `REFUSED` where the base has no pooled output or no hidden states; `CONFIG` for [`Pooling::Logits`], which pools
    /// nothing.
    #[track_caller]
    pub fn pool(&self, pooling: Pooling) -> Result<Value> {
        if pooling == Pooling::Logits {
            return crate::fail!(
                CONFIG,
                "option `pooling`: `logits` gives no vector; choose another pooling"
            );
        }
        if pooling == Pooling::Pooled {
            let none =
                || Error::new(Code::REFUSED, "the base has no pooled output").help("choose another pooling");
            return self.pooled()?.ok_or_else(none);
        }
        let hidden = self.hidden()?;
        let mask = self.model_input("mask")?;
        match (pooling, mask) {
            (Pooling::Mean, None) => self.reduce_mean(hidden, &[1], false),
            (Pooling::Mean, Some(mask)) => {
                let mask = self.cast(mask, DType::F32)?;
                let count = self.max(self.reduce_sum(mask, &[1], true)?, self.scalar(1e-9)?)?;
                self.div(self.weighted_sum(mask, hidden)?, count)
            }
            (Pooling::Last, Some(mask)) => {
                // The last 1 of the mask is where its running sum reaches its sum; right whether padding is left or
                // right.
                let mask = self.cast(mask, DType::F32)?;
                let axis = self.constant(Tensor::i64s("", &[], &[1]))?;
                let running = self.emit("CumSum", &[mask, axis], &[])?;
                let reached = self.equal(running, self.reduce_sum(mask, &[1], true)?)?;
                self.weighted_sum(self.mul(self.cast(reached, DType::F32)?, mask)?, hidden)
            }
            (Pooling::Last, None) => self.token_at(hidden, -1),
            _ => self.token_at(hidden, 0),
        }
    }

    /// The base's own logits `[batch, count]`, of which there must be `count`, one for each of `what`.
    ///
    /// # Errors
    /// `REFUSED` where the base has none or another number of them.
    #[track_caller]
    pub fn own_logits(&self, count: u64, what: &str) -> Result<Value> {
        let none =
            || Error::new(Code::REFUSED, "the base has no logits of its own").help("choose another pooling");
        let logits = self.logits()?.ok_or_else(none)?;
        let width = self.width(logits)?;
        if width == Some(count) {
            return Ok(logits);
        }
        let found = width.map_or("an unknown number of".to_owned(), |n| n.to_string());
        let e =
            Error::new(Code::REFUSED, format!("the base has {found} logits, and there are {count} {what}"));
        Err(e.help(format!(
            "name all of them in the order of the logits with the option `{what}`, or choose another pooling"
        )))
    }

    /// A value's extent along its last axis, if it is known.
    ///
    /// # Errors
    /// As [`Graph::fact`].
    #[track_caller]
    pub fn width(&self, x: Value) -> Result<Option<u64>> {
        Ok(self.fact(x)?.shape.and_then(|s| s.last().and_then(crate::Dim::known)))
    }

    /// `[batch, seq]` weights and `[batch, seq, hidden]` → `[batch, hidden]`.
    #[track_caller]
    fn weighted_sum(&self, weights: Value, hidden: Value) -> Result<Value> {
        self.squeeze(self.matmul(self.unsqueeze(weights, &[1])?, hidden)?, &[1])
    }

    /// The token at a position: `[batch, hidden]`.
    #[track_caller]
    fn token_at(&self, hidden: Value, position: i64) -> Result<Value> {
        self.gather(hidden, self.constant(Tensor::i64s("", &[], &[position]))?, 1)
    }
}
