//! Scaled dot-product attention as exporters write it out (Vaswani et al. 2017).
//!
//! `softmax(scale·q·kᵀ + bias)·v` with the factor before the product, behind it, or its root on both sides; with any
//! number of summands and a mask of −∞ chosen by a condition; with or without zeros in the place of weights that are
//! no numbers. Keys and values of grouped heads, which exporters repeat for every query head, are repeated again in a
//! form that does not name the length of the sequence.

use super::{Match, makers};
use crate::builder::Builder;
use crate::dim::Dim;
use crate::fused;
use crate::ir::{Attr, Attrs, GRAFT_DOMAIN, Graph, Node, ValueId};
use crate::tensor::DType;

/// Operators between the product of queries and keys and the softmax, at most.
const MAX_STEPS: usize = 8;

/// What is added to the scores.
enum Bias {
    /// A value.
    Added(ValueId),
    /// −∞ where the condition is false (or true).
    Masked { condition: ValueId, hidden: bool },
}

/// Keys before they are transposed for the product.
struct Keys {
    /// What `perm` is applied to, to give `[…, keys, dim]`; nothing where that is what it is.
    from: ValueId,
    perm: Option<Vec<i64>>,
}

struct Found {
    q: ValueId,
    keys: Keys,
    v: ValueId,
    biases: Vec<Bias>,
    scale: f64,
    guarded: bool,
    /// The weights, where others than the product with the values read them.
    weights: Option<ValueId>,
    /// Node that makes the weights.
    weights_at: usize,
    /// Node whose name and module the operator gets.
    softmax_at: usize,
}

/// The scores: a product, its factor and what is added.
struct Scores {
    q: ValueId,
    k: ValueId,
    scale: f64,
    biases: Vec<Bias>,
}

/// Replaces every attention that does not reach across a value in `seen`. Returns how many there were.
pub(super) fn attentions(graph: &mut Graph, seen: &[ValueId]) -> usize {
    let (readers, m) = (graph.consumers(), Match { graph, made: makers(graph, seen) });
    let is_product = |(_, n): &(usize, &Node)| n.is("MatMul");
    let all: Vec<(usize, Found)> = graph
        .nodes
        .iter()
        .enumerate()
        .filter(is_product)
        .filter_map(|(i, n)| Some((i, find(&m, &readers, n)?)))
        .collect();
    let count = all.len();
    if count == 0 {
        return 0;
    }
    let mut found: Vec<Option<Found>> = graph.nodes.iter().map(|_| None).collect();
    let mut gone = vec![false; graph.nodes.len()];
    for (i, f) in all {
        gone[f.weights_at] |= f.weights.is_some();
        found[i] = Some(f);
    }
    let softmaxes = graph.nodes.clone();
    for (i, node) in std::mem::take(&mut graph.nodes).into_iter().enumerate() {
        match found[i].take() {
            Some(f) => write(graph, &softmaxes[f.softmax_at], &node, f),
            None if gone[i] => {}
            None => graph.nodes.push(node),
        }
    }
    // Whoever reads the weights may stand before the node that gives them now.
    let sorted = graph.sort();
    debug_assert!(sorted.is_ok(), "{sorted:?}");
    graph.remove_dead();
    count
}

fn find(m: &Match<'_>, readers: &[Vec<usize>], root: &Node) -> Option<Found> {
    let (p, v) = (root.input(0)?, root.input(1)?);
    let weights_at = m.made[p.index()]?;
    let (softmax_at, guarded) = match m.graph.nodes[weights_at].op.as_str() {
        "Softmax" => (weights_at, false),
        "Where" => (m.made[guarded(m, readers, weights_at)?.index()]?, true),
        _ => return None,
    };
    let softmax = &m.graph.nodes[softmax_at];
    let rank = m.graph.shape(p)?.len();
    let axis = softmax.int("axis", -1);
    let float = matches!(m.graph.dtype(p)?, DType::F32 | DType::F16 | DType::BF16);
    if !softmax.is("Softmax") || !float || !(axis == -1 || axis == rank as i64 - 1) || ![3, 4].contains(&rank)
    {
        return None;
    }
    let mut scores = scores(m, softmax.input(0)?, MAX_STEPS)?;
    scores.q = scaled(m, scores.q, &mut scores.scale);
    let keys = keys(m, scores.k, &mut scores.scale)?;
    let same_rank =
        [scores.q, scores.k, v].iter().all(|x| m.graph.shape(*x).is_some_and(|s| s.len() == rank));
    if !same_rank || !fits(m, &scores, v, rank) || !scores.scale.is_finite() {
        return None;
    }
    let alone = readers[p.index()].len() == 1 && !m.graph.outputs.contains(&p);
    Some(Found {
        q: scores.q,
        keys,
        v,
        biases: scores.biases,
        scale: scores.scale,
        guarded,
        weights: (!alone).then_some(p),
        weights_at,
        softmax_at,
    })
}

/// The value in which node `at` puts zeros for what is no number.
fn guarded(m: &Match<'_>, readers: &[Vec<usize>], at: usize) -> Option<ValueId> {
    let node = &m.graph.nodes[at];
    let (none, zero, p) = (m.maker_of(node.input(0)?, "IsNaN")?, node.input(1)?, node.input(2)?);
    let alone = readers[p.index()].len() == 2 && !m.graph.outputs.contains(&p);
    (none.input(0) == Some(p) && m.number(zero) == Some(0.0) && alone).then_some(p)
}

/// From what enters the softmax back to the product of queries and keys.
fn scores(m: &Match<'_>, v: ValueId, steps: usize) -> Option<Scores> {
    let n = m.maker(v).filter(|n| n.domain.is_empty())?;
    let (a, b) = (n.input(0)?, n.input(1)?);
    let steps = steps.checked_sub(1)?;
    match n.op.as_str() {
        "MatMul" => Some(Scores { q: a, k: b, scale: 1.0, biases: Vec::new() }),
        "Add" => [(a, b), (b, a)].into_iter().find_map(|(inner, bias)| {
            let mut s = scores(m, inner, steps)?;
            s.biases.push(Bias::Added(bias));
            Some(s)
        }),
        "Mul" | "Div" => {
            let (inner, factor) = factor(m, n)?;
            // A bias inside would be scaled, too.
            let s = scores(m, inner, steps).filter(|s| s.biases.is_empty())?;
            Some(Scores { scale: s.scale * factor, ..s })
        }
        "Where" => {
            let c = n.input(2)?;
            [(b, c, false), (c, b, true)].into_iter().find_map(|(inner, filled, hidden)| {
                // A finite number would differ where a query sees no key at all.
                (m.number(filled)? == f64::NEG_INFINITY).then_some(())?;
                let mut s = scores(m, inner, steps)?;
                s.biases.push(Bias::Masked { condition: a, hidden });
                Some(s)
            })
        }
        _ => None,
    }
}

/// Of a product or quotient with a number: the other side, and what it is multiplied by.
fn factor(m: &Match<'_>, n: &Node) -> Option<(ValueId, f64)> {
    let (a, b) = (n.input(0)?, n.input(1)?);
    // A number of more axes than the other side would give the result axes of its own.
    let number = |v: ValueId, other: ValueId| {
        m.graph.shape(v)?.len().le(&m.graph.shape(other)?.len()).then(|| m.scalar(v)).flatten()
    };
    match n.op.as_str() {
        "Mul" => number(b, a).map(|f| (a, f)).or_else(|| number(a, b).map(|f| (b, f))),
        "Div" => number(b, a).filter(|f| *f != 0.0).map(|f| (a, 1.0 / f)),
        _ => None,
    }
}

/// The value behind numbers that it is multiplied by, which go into `scale`.
fn scaled(m: &Match<'_>, mut v: ValueId, scale: &mut f64) -> ValueId {
    while let Some((inner, f)) = m.maker(v).filter(|n| n.domain.is_empty()).and_then(|n| factor(m, n)) {
        *scale *= f;
        v = inner;
    }
    v
}

/// Keys from what the product takes, which must be their last two axes swapped.
fn keys(m: &Match<'_>, v: ValueId, scale: &mut f64) -> Option<Keys> {
    let v = scaled(m, v, scale);
    let n = m.maker(v)?;
    if n.is("Reshape") {
        return through_matrices(m, n, v).map(|from| Keys { from: scaled(m, from, scale), perm: None });
    }
    let from = n.input(0).filter(|_| n.is("Transpose"))?;
    match n.ints("perm")? {
        [0, 1, 3, 2] | [0, 2, 1] => Some(Keys { from: scaled(m, from, scale), perm: None }),
        // Heads are split off on the way.
        [0, 2, 3, 1] => Some(Keys { from, perm: Some(vec![0, 2, 1, 3]) }),
        _ => None,
    }
}

/// `[b, h, s, d]` → `[b·h, s, d]` → `[b·h, d, s]` → `[b, h, d, s]`, as the new exporter transposes values of any rank.
fn through_matrices(m: &Match<'_>, last: &Node, v: ValueId) -> Option<ValueId> {
    let flipped =
        m.maker_of(last.input(0)?, "Transpose").filter(|n| n.ints("perm") == Some(&[0, 2, 1][..]))?;
    let from = m.maker_of(flipped.input(0)?, "Reshape")?.input(0)?;
    let (to, matrices, was) = (m.graph.shape(v)?, m.graph.shape(flipped.input(0)?)?, m.graph.shape(from)?);
    let ([a, b, c, d], [e, f, g, h]) = (to.as_slice(), was.as_slice()) else { return None };
    (a == e && b == f && c == h && d == g && matrices.get(1..)? == [g.clone(), h.clone()]).then_some(from)
}

/// Whether the batch axes of all sides are the same as far as is known, and no bias widens the scores.
fn fits(m: &Match<'_>, s: &Scores, v: ValueId, rank: usize) -> bool {
    let shape = |x: ValueId| m.graph.shape(x);
    let (Some(q), Some(k), Some(v)) = (shape(s.q), shape(s.k), shape(v)) else { return false };
    let alike = |a: &Dim, b: &Dim| a.equals(b) != Some(false) && a.is(1) == b.is(1);
    let lead = (0..rank - 2).all(|i| alike(&q[i], &k[i]) && alike(&q[i], &v[i]));
    let mut scores = q[..rank - 1].to_vec();
    scores.push(k[rank - 1].clone());
    let narrow = |b: &Bias| {
        let (Bias::Added(b) | Bias::Masked { condition: b, .. }) = b;
        let Some(b) = shape(*b) else { return false };
        b.len() <= rank && b.iter().rev().zip(scores.iter().rev()).all(|(b, s)| b.is(1) || !s.is(1))
    };
    lead && s.biases.iter().all(narrow)
}

fn write(graph: &mut Graph, softmax: &Node, root: &Node, f: Found) {
    let op = if f.guarded { fused::GUARDED_ATTENTION } else { fused::ATTENTION };
    if let Some(own) = fused::find(GRAFT_DOMAIN, op) {
        fused::declare(graph, own);
    }
    let heads = graph.shape(f.q).and_then(|s| s.get(1)).and_then(Dim::known);
    let dtype = graph.dtype(f.q).unwrap_or(DType::F32);
    let mut b = Builder::new(graph, format!("{}/", softmax.name));
    b.set_metadata(softmax.metadata.clone());
    let k = match f.keys.perm {
        Some(perm) => b.op_with("Transpose", &[f.keys.from], &[("perm", perm.into())]),
        None => f.keys.from,
    };
    let [k, v] = [k, f.v].map(|x| repeated(&mut b, x, heads));
    let k = transposed(&mut b, k);
    let mut bias = None;
    // The summand that was next to the product stands first.
    for one in f.biases {
        let one = match one {
            Bias::Added(v) => v,
            Bias::Masked { condition, hidden } => {
                let (zero, low) = (b.float(dtype, 0.0), b.float(dtype, f64::NEG_INFINITY));
                let [yes, no] = if hidden { [low, zero] } else { [zero, low] };
                b.op("Where", &[condition, yes, no])
            }
        };
        bias = Some(bias.map_or(one, |sum| b.op("Add", &[sum, one])));
    }
    let bias = bias.unwrap_or_else(|| b.float(dtype, 0.0));
    let mut outputs = vec![root.output(0)];
    outputs.extend(f.weights.map(Some));
    graph.nodes.push(Node {
        op: op.into(),
        domain: GRAFT_DOMAIN.into(),
        name: softmax.name.clone(),
        inputs: [f.q, k, v, bias].map(Some).to_vec(),
        outputs,
        attrs: Attrs::from([("scale".into(), Attr::Float(f.scale as f32))]),
        metadata: softmax.metadata.clone(),
    });
    crate::shape::infer_at(graph, graph.nodes.len() - 1);
}

/// The last two axes swapped, as the product takes keys.
pub fn transposed(b: &mut Builder<'_>, k: ValueId) -> ValueId {
    let perm = match b.graph.shape(k).map(Vec::len) {
        Some(3) => vec![0, 2, 1],
        _ => vec![0, 1, 3, 2],
    };
    b.op_with("Transpose", &[k], &[("perm", perm.into())])
}

/// Keys or values `[b, own, s, d]` that are repeated for groups of query heads, repeated by [`repeat`] instead; any
/// other value as it is.
fn repeated(b: &mut Builder<'_>, x: ValueId, heads: Option<i64>) -> ValueId {
    let Some(heads) = heads else { return x };
    let nodes = &b.graph.nodes;
    let maker = |v: ValueId| nodes.iter().rev().find(|n| n.output(0) == Some(v));
    let own = own_heads(b.graph, &maker, x, heads);
    own.and_then(|own| repeat(b, own, heads)).unwrap_or(x)
}

/// Of `Reshape(Expand(Unsqueeze(own)))` that gives `heads` heads, each of the own ones several times in a row: `own`.
pub(crate) fn own_heads<'a>(
    graph: &Graph,
    maker: &dyn Fn(ValueId) -> Option<&'a Node>,
    x: ValueId,
    heads: i64,
) -> Option<ValueId> {
    let of = |v: ValueId, op: &str| maker(v).filter(|n| n.is(op))?.input(0);
    let wide = of(x, "Reshape")?;
    let apart = of(wide, "Expand")?;
    let own = of(apart, "Unsqueeze")?;
    let (own_shape, wide_shape) = (graph.shape(own)?, graph.shape(wide)?);
    let ([b, n, s, d], [e, m, times, t, f]) = (own_shape.as_slice(), wide_shape.as_slice()) else {
        return None;
    };
    let split = graph.shape(apart)?.get(2)?.is(1) && n.known()?.checked_mul(times.known()?)? == heads;
    let whole = matches!(graph.shape(x)?.as_slice(), [_, h, _, w] if h.is(heads) && w == d);
    (split && whole && (b, n, s, d) == (e, m, t, f)).then_some(own)
}

/// Each head of `[batch, own, keys, dim]` as often as there are query heads to it, one after the other.
pub fn repeat(b: &mut Builder<'_>, own: ValueId, heads: i64) -> Option<ValueId> {
    let shape = b.graph.shape(own)?;
    let (n, width) = (shape.get(1)?.known()?, shape.get(3)?.known()?);
    if n < 1 || heads % n != 0 {
        return None;
    }
    if n == heads {
        return Some(own);
    }
    let (axis, times, whole) =
        (b.ints(&[2]), b.ints(&[1, 1, heads / n, 1, 1]), b.ints(&[0, heads, -1, width]));
    let apart = b.op("Unsqueeze", &[own, axis]);
    let wide = b.op("Expand", &[apart, times]);
    Some(b.op("Reshape", &[wide, whole]))
}

#[cfg(test)]
mod tests;
