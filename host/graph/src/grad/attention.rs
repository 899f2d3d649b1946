//! Gradients of attention and rotary positions.

use super::linear::flipped;
use super::{Grads, Row, Rule};
use crate::fused;
use crate::ir::{Fact, ValueId};

pub(super) const RULES: &[Row] = &[
    ("graft::Attention", "what the patterns of attention are raised to", attention),
    ("graft::GuardedAttention", "zero for a query that sees no key", attention),
];

/// With `p` the weights and `s` the scores: `dv = pᵀ·dy`, `ds = p·(dp − Σ dp·p)` where `dp = dy·vᵀ`,
/// `dq = scale·ds·kᵀ`, `dk = scale·qᵀ·ds`, `dbias = ds`.
fn attention(r: &mut Rule<'_, '_>) -> Grads {
    let (q, k, v) = (r.x(0)?, r.x(1)?, r.x(2)?);
    let p = weights(r, q)?;
    let (dy, own) = (r.dy_of(0), r.dy_of(1));
    let dv = match dy.filter(|_| r.wants(2)) {
        Some(dy) => {
            let back = flipped(r, p)?;
            Some(r.op("MatMul", &[back, dy]))
        }
        None => None,
    };
    if ![0, 1, 3].iter().any(|i| r.wants(*i)) {
        return Ok(vec![None, None, dv]);
    }
    let dp = match dy {
        Some(dy) => {
            let back = flipped(r, v)?;
            let dp = r.op("MatMul", &[dy, back]);
            own.map_or(dp, |g| r.op("Add", &[dp, g]))
        }
        None => own.ok_or("no gradient reaches it")?,
    };
    let (wide_dp, wide_p) = (r.wide(dp), r.wide(p));
    let wide = fused::emit(r.b, "SoftmaxGrad", &[wide_dp, wide_p], &[]);
    let dtype = r.dtype(q);
    let ds = r.b.cast(wide, dtype);
    let scale = r.c(f64::from(r.node.float("scale", 1.0)), q);
    let dq = if r.wants(0) {
        let back = flipped(r, k)?;
        let d = r.op("MatMul", &[ds, back]);
        Some(r.op("Mul", &[d, scale]))
    } else {
        None
    };
    let dk = if r.wants(1) {
        // As in the forward pass: the optimiser computes it once.
        let scaled = r.op("Mul", &[q, scale]);
        let back = flipped(r, scaled)?;
        Some(r.op("MatMul", &[back, ds]))
    } else {
        None
    };
    Ok(vec![dq, dk, dv, Some(wide)])
}

/// The weights that the forward node computed: its second output, which it gets where nobody has read it yet.
fn weights(r: &mut Rule<'_, '_>, q: ValueId) -> Result<ValueId, String> {
    if let Some(p) = r.node.output(1) {
        return Ok(p);
    }
    let made = |n: &crate::ir::Node| fused::is_attention(n) && n.output(0) == r.node.output(0);
    let at = r.b.graph.nodes.iter().position(made).ok_or("the node is not in the graph")?;
    let name = format!("{}/weights", r.node.name);
    let p = r.b.graph.add_value(&name, Fact { dtype: Some(r.dtype(q)), ..Fact::default() });
    r.b.graph.nodes[at].outputs.resize(1, None);
    r.b.graph.nodes[at].outputs.push(Some(p));
    crate::shape::infer_at(r.b.graph, at);
    Ok(p)
}
