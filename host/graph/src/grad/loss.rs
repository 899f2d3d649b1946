//! Gradients of losses over class indices.

use super::{Grads, Row, Rule};
use crate::ir::{Attr, ValueId};
use crate::tensor::{DType, Tensor};

pub(super) const RULES: &[Row] = &[
    ("NegativeLogLikelihoodLoss", "zero for ignored targets", |r| {
        let (dy, x) = (r.dy()?, r.x(0)?);
        let x = r.wide(x);
        let t = Targets::new(r, x)?;
        let dx = if r.wants(0) { Some(t.of_log_prob(r, dy)) } else { None };
        let dw = if r.wants(2) { Some(t.of_weights(r, dy, x)?) } else { None };
        Ok(vec![dx, None, dw])
    }),
    ("SoftmaxCrossEntropyLoss", "zero for ignored targets", cross_entropy),
];

fn cross_entropy(r: &mut Rule<'_, '_>) -> Grads {
    let x = r.x(0)?;
    let x = r.wide(x);
    let t = Targets::new(r, x)?;
    let log_prob = r.op_with("LogSoftmax", &[x], &[("axis", Attr::Int(1))]);
    let dx = if r.wants(0) {
        let mut d = r.dy_of(0).map(|dy| t.of_log_prob(r, dy));
        if let Some(direct) = r.dy_of(1) {
            let direct = r.wide(direct);
            d = Some(match d {
                Some(d) => r.op("Add", &[d, direct]),
                None => direct,
            });
        }
        // Through log-softmax: d − softmax·Σd.
        let d = d.ok_or("no gradient reaches the loss")?;
        let axes = r.b.ints(&[1]);
        let sum = r.op("ReduceSum", &[d, axes]);
        let soft = r.op("Exp", &[log_prob]);
        let p = r.op("Mul", &[soft, sum]);
        Some(r.op("Sub", &[d, p]))
    } else {
        None
    };
    let dw = match r.dy_of(0).filter(|_| r.wants(2)) {
        Some(dy) => Some(t.of_weights(r, dy, log_prob)?),
        None => None,
    };
    Ok(vec![dx, None, dw])
}

/// The target classes of a loss of `[N, C, d…]` against `[N, d…]`.
struct Targets {
    /// `[N, C, d…]`: this class is the target, and it is not ignored.
    hit: ValueId,
    /// Weight of each target's class, `[N, d…]`, where classes have weights. Nothing of sense where ignored.
    weight: Option<ValueId>,
    /// What the sum is divided by.
    divisor: Option<ValueId>,
    /// One gradient a target rather than one of all.
    single: bool,
    rank: usize,
    zero: ValueId,
}

impl Targets {
    fn new(r: &mut Rule<'_, '_>, x: ValueId) -> Result<Targets, String> {
        let shape = r.shape(x)?;
        let rank = shape.len();
        if rank < 2 {
            return Err("class scores need a batch and classes".into());
        }
        let (target, zero) = (r.x(1)?, r.c(0.0, x));
        let target = r.b.cast(target, DType::I64);
        let one = r.b.ints(&[1]);
        let unsqueezed = r.op("Unsqueeze", &[target, one]);
        let limit = [("start", Attr::Int(1)), ("end", Attr::Int(2))];
        let limit = r.op_with("Shape", &[x], &limit);
        let limit = r.op("Squeeze", &[limit]);
        let (start, step) = (r.b.constant(Tensor::scalar(0i64)), r.b.constant(Tensor::scalar(1i64)));
        let mut classes = r.op("Range", &[start, limit, step]);
        r.b.graph.fact_mut(classes).shape = Some(vec![shape[1].clone()]);
        if rank > 2 {
            let axes: Vec<i64> = (1..rank as i64 - 1).collect();
            let axes = r.b.ints(&axes);
            classes = r.op("Unsqueeze", &[classes, axes]);
        }
        let mut hit = r.op("Equal", &[unsqueezed, classes]);
        let mut ignored = None;
        if let Some(Attr::Int(index)) = r.node.attrs.get("ignore_index") {
            let index = r.b.constant(Tensor::scalar(*index));
            let is = r.op("Equal", &[target, index]);
            let counts = r.op("Not", &[is]);
            let wide = r.op("Unsqueeze", &[counts, one]);
            hit = r.op("And", &[hit, wide]);
            ignored = Some((is, counts));
        }
        let weight = r.node.input(2).map(|w| {
            let w = r.wide(w);
            let at = match ignored {
                // An ignored target need not be a class.
                Some((is, _)) => r.op("Where", &[is, start, target]),
                None => target,
            };
            r.op("Gather", &[w, at])
        });
        let reduction = r.node.text("reduction").unwrap_or("mean");
        let single = match reduction {
            "none" => true,
            "mean" | "sum" => false,
            other => return Err(format!("reduction '{other}' is neither none, mean nor sum")),
        };
        let divisor = if reduction == "mean" {
            let dtype = r.dtype(x);
            let counted = match (weight, ignored) {
                (Some(w), Some((is, _))) => Some(r.op("Where", &[is, zero, w])),
                (Some(w), None) => Some(w),
                (None, Some((_, counts))) => Some(r.b.cast(counts, dtype)),
                (None, None) => None,
            };
            Some(match counted {
                Some(c) => r.op_with("ReduceSum", &[c], &[("keepdims", Attr::Int(0))]),
                None => {
                    let n = r.op("Size", &[target]);
                    r.b.cast(n, dtype)
                }
            })
        } else {
            None
        };
        Ok(Targets { hit, weight, divisor, single, rank, zero })
    }

    /// `dy` or `dy/divisor`, which broadcasts to `[N, C, d…]`; `dy·weight` where asked.
    fn share(&self, r: &mut Rule<'_, '_>, dy: ValueId, weighted: bool) -> ValueId {
        let mut g = r.wide(dy);
        if let Some(n) = self.divisor {
            g = r.op("Div", &[g, n]);
        }
        let weight = self.weight.filter(|_| weighted);
        if let Some(w) = weight {
            g = r.op("Mul", &[g, w]);
        }
        if self.single || weight.is_some() {
            let one = r.b.ints(&[1]);
            g = r.op("Unsqueeze", &[g, one]);
        }
        g
    }

    /// The gradient of the log-probabilities: `−dy·weight` at each target.
    fn of_log_prob(&self, r: &mut Rule<'_, '_>, dy: ValueId) -> ValueId {
        let share = self.share(r, dy, true);
        let minus = r.op("Neg", &[share]);
        r.op("Where", &[self.hit, minus, self.zero])
    }

    /// The gradient of the classes' weights: `−dy·log_prob` at each target; of a mean, `dy·(−log_prob − loss)`.
    fn of_weights(&self, r: &mut Rule<'_, '_>, dy: ValueId, log_prob: ValueId) -> Result<ValueId, String> {
        let mut value = r.op("Neg", &[log_prob]);
        if self.divisor.is_some() {
            let loss = r.y(0)?;
            let loss = r.wide(loss);
            value = r.op("Sub", &[value, loss]);
        }
        let share = self.share(r, dy, false);
        let value = r.op("Mul", &[value, share]);
        let value = r.op("Where", &[self.hit, value, self.zero]);
        let axes: Vec<i64> = (0..self.rank as i64).filter(|a| *a != 1).collect();
        let axes = r.b.ints(&axes);
        let sum = r.op_with("ReduceSum", &[value, axes], &[("keepdims", Attr::Int(0))]);
        let weights = r.x(2)?;
        r.b.graph.fact_mut(sum).shape = r.b.graph.shape(weights).cloned();
        Ok(sum)
    }
}
