//! What the attention operators share: heads, masks, the product itself.

use super::Lower;
use crate::ir::{Attr, ValueId};
use crate::raise::attention::repeat;

/// Scaled dot-product attention (Vaswani et al. 2017) over `[batch, heads, sequence, width]`.
pub(super) struct Attend {
    pub(super) q: ValueId,
    pub(super) k: ValueId,
    pub(super) v: ValueId,
    /// Factor of the scores; 0 for one over the root of a head's width.
    pub(super) scale: f32,
    /// Bound that scores are squashed to; 0 for none.
    pub(super) softcap: f32,
    /// Added to the scores.
    pub(super) biases: Vec<ValueId>,
    /// Which keys a query sees.
    pub(super) seen: Option<Seen>,
}

/// Which keys a query sees: a boolean, broadcast to the scores, and what becomes of a query that sees none.
#[derive(Clone, Copy)]
pub(super) enum Seen {
    /// There is no such query.
    Some(ValueId),
    /// It gets the mean of all values.
    OrMean(ValueId),
    /// It gets zeros.
    OrZeros(ValueId),
}

impl Lower<'_, '_> {
    /// The attribute that counts heads.
    pub(super) fn head_count(&self, name: &str) -> Result<i64, String> {
        let n = self.node.int(name, 0);
        if n < 1 { Err(format!("attribute {name} must say how many heads there are")) } else { Ok(n) }
    }

    /// `[batch, sequence, heads·width]` → `[batch, heads, sequence, width]`.
    pub(super) fn heads(&mut self, x: ValueId, n: i64) -> Result<ValueId, String> {
        let width = self.width(x, -1)?;
        if self.rank(x)? != 3 || width % n != 0 {
            return Err(format!("'{}' can't be cut into {n} heads", self.b.graph.name_of(x)));
        }
        let cut = self.reshape(x, &[0, 0, n, width / n]);
        Ok(self.transpose(cut, &[0, 2, 1, 3]))
    }

    /// `[batch, heads, sequence, width]` → `[batch, sequence, heads·width]`.
    pub(super) fn merged(&mut self, x: ValueId) -> Result<ValueId, String> {
        let (n, width) = (self.width(x, 1)?, self.width(x, -1)?);
        let all = n.checked_mul(width).ok_or("heads are too wide")?;
        let back = self.transpose(x, &[0, 2, 1, 3]);
        Ok(self.reshape(back, &[0, 0, all]))
    }

    /// Each head of keys or values as often as there are query heads to it, one after the other.
    pub(super) fn repeated(&mut self, x: ValueId, n: i64) -> Result<ValueId, String> {
        let own = self.width(x, 1)?;
        let uneven = || format!("{n} query heads do not share {own} heads of keys evenly");
        repeat(self.b, x, n).ok_or_else(uneven)
    }

    /// Which keys a query sees that looks back only; it sees the first key at least.
    pub(super) fn looking_back(&mut self, q: ValueId, k: ValueId) -> ValueId {
        let (rows, columns) = (self.count(q, 2), self.count(k, 2));
        let (rows, columns) = (self.unsqueeze(rows, &[1]), self.unsqueeze(columns, &[0]));
        self.op("GreaterOrEqual", &[rows, columns])
    }

    /// What ONNX Runtime's operators add to scores for a mask of integers: `filter` where a key is not seen. A mask
    /// is `[batch]` (lengths), `[batch, keys]` or `[batch, queries, keys]`.
    pub(super) fn padding(&mut self, mask: ValueId, k: ValueId, like: ValueId) -> Result<ValueId, String> {
        let shape = self.shape(mask)?;
        let dtype = self.b.graph.dtype(mask).ok_or("the type of the mask is not known")?;
        let zero = self.b.scalar(0i32);
        let zero = self.b.cast(zero, dtype);
        let seen = match shape.as_slice() {
            [n] if self.shape(k)?.first().is_some_and(|b| b == n) => {
                let (columns, lengths) = (self.count(k, 2), self.b.cast(mask, crate::DType::I64));
                let (columns, lengths) = (self.unsqueeze(columns, &[0]), self.unsqueeze(lengths, &[1]));
                let seen = self.op("Less", &[columns, lengths]);
                self.unsqueeze(seen, &[1, 2])
            }
            [_, _] => {
                let seen = self.op("Greater", &[mask, zero]);
                self.unsqueeze(seen, &[1, 2])
            }
            [_, _, _] => {
                let seen = self.op("Greater", &[mask, zero]);
                self.unsqueeze(seen, &[1])
            }
            _ => {
                return Err(format!(
                    "gradients with a mask of shape {} are not derived; export with a mask [batch, sequence]",
                    crate::dim::show(&shape)
                ));
            }
        };
        let filter = f64::from(self.node.float("mask_filter_value", -10_000.0));
        let (none, filter) = (self.c(0.0, like), self.c(filter, like));
        Ok(self.op("Where", &[seen, none, filter]))
    }

    /// The attention itself: `[batch, heads, queries, width of values]`.
    pub(super) fn attend(&mut self, a: Attend) -> Result<ValueId, String> {
        let heads = self.width(a.q, 1)?;
        let (k, v) = (self.repeated(a.k, heads)?, self.repeated(a.v, heads)?);
        let scale = match a.scale {
            0.0 => 1.0 / (self.width(a.q, -1)? as f64).sqrt(),
            s => f64::from(s),
        };
        let scale = self.c(scale, a.q);
        let (q, k) = (self.op("Mul", &[a.q, scale]), self.transpose(k, &[0, 1, 3, 2]));
        let mut scores = self.op("MatMul", &[q, k]);
        if a.softcap > 0.0 {
            let cap = self.c(f64::from(a.softcap), scores);
            let small = self.op("Div", &[scores, cap]);
            let squashed = self.op("Tanh", &[small]);
            scores = self.op("Mul", &[squashed, cap]);
        }
        for bias in a.biases {
            scores = self.op("Add", &[scores, bias]);
        }
        scores = match a.seen {
            Some(Seen::OrMean(seen)) => {
                let lowest = self.c(f64::from(f32::MIN), scores);
                self.op("Where", &[seen, scores, lowest])
            }
            Some(Seen::Some(seen) | Seen::OrZeros(seen)) => {
                let (zero, infinite) = (self.c(0.0, scores), self.c(f64::NEG_INFINITY, scores));
                let bias = self.op("Where", &[seen, zero, infinite]);
                self.op("Add", &[scores, bias])
            }
            None => scores,
        };
        let mut weights = self.op_with("Softmax", &[scores], &[("axis", Attr::Int(-1))]);
        if let Some(Seen::OrZeros(_)) = a.seen {
            let (none, zero) = (self.op("IsNaN", &[weights]), self.c(0.0, weights));
            weights = self.op("Where", &[none, zero, weights]);
        }
        Ok(self.op("MatMul", &[weights, v]))
    }
}
