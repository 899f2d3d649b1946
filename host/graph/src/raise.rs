//! `raise`: subgraphs that exporters write for one operator become that operator, so that everything after sees few,
//! known operators. One pattern a row.

pub mod attention;
mod gelu;
mod norm;

use std::collections::HashMap;

use crate::fused;
use crate::ir::{Attrs, Graph, Node, ValueId};
use crate::tensor::DType;

/// What a pattern sees: the graph and who makes each value.
struct Match<'a> {
    graph: &'a Graph,
    made: Vec<Option<usize>>,
}

/// What a pattern found: the node that replaces the root, with the root's output.
type Found = Option<Node>;

/// One pattern: the operator of its last node, and the match from there backwards.
struct Pattern {
    name: &'static str,
    root: &'static str,
    find: fn(&Match<'_>, &Node) -> Found,
}

const PATTERNS: &[Pattern] = &[
    Pattern { name: "inference dropout", root: "Dropout", find: inference_dropout },
    Pattern { name: "idle Cast", root: "Cast", find: idle_cast },
    Pattern { name: "exact Gelu", root: "Mul", find: gelu::exact },
    Pattern { name: "tanh Gelu", root: "Mul", find: gelu::tanh },
    Pattern { name: "LayerNorm", root: "Add", find: norm::layer_norm },
    Pattern { name: "RMSNorm", root: "Mul", find: norm::rms_norm },
];

/// Replaces operators outside ONNX's plain set (see [`lower`](crate::lower)), then every subgraph that a pattern
/// recognises, and tells how often each did.
pub fn raise(graph: &mut Graph) -> Vec<(&'static str, usize)> {
    raise_around(graph, &[])
}

/// As [`raise`], but no pattern reaches across one of the values `seen`: each stays a value that all of its readers
/// read, so that a gradient can be asked of it.
pub fn raise_around(graph: &mut Graph, seen: &[ValueId]) -> Vec<(&'static str, usize)> {
    // What nobody reads must not keep a pattern from being seen.
    graph.remove_dead();
    let mut counts = crate::lower::lower_around(graph, seen);
    for p in PATTERNS {
        let m = Match { graph, made: makers(graph, seen) };
        let found: Vec<(usize, Node)> = graph
            .nodes
            .iter()
            .enumerate()
            .filter(|(_, n)| n.is(p.root))
            .filter_map(|(i, n)| (p.find)(&m, n).map(|new| (i, new)))
            .collect();
        if found.is_empty() {
            continue;
        }
        counts.push((p.name, found.len()));
        for (i, new) in found {
            if let Some(own) = fused::find(&new.domain, &new.op) {
                fused::declare(graph, own);
            }
            graph.nodes[i] = new;
        }
        // Patterns that follow need not see through them.
        drop_identities(graph, seen);
    }
    let attentions = attention::attentions(graph, seen);
    if attentions > 0 {
        counts.push(("attention", attentions));
    }
    drop_identities(graph, seen);
    if !counts.is_empty() {
        crate::shape::infer(graph);
    }
    counts
}

/// An `Identity` that is neither seen nor an output of the graph is the value itself.
fn drop_identities(graph: &mut Graph, seen: &[ValueId]) {
    let mut original: HashMap<ValueId, ValueId> = HashMap::new();
    let Graph { nodes, outputs, .. } = graph;
    for n in nodes {
        for i in n.inputs.iter_mut().flatten() {
            *i = original.get(i).copied().unwrap_or(*i);
        }
        if let (true, Some(y), Some(x)) = (n.is("Identity"), n.output(0), n.input(0))
            && !outputs.contains(&y)
            && !seen.contains(&y)
        {
            original.insert(y, x);
        }
    }
    graph.remove_dead();
}

/// Which node makes each value, as far as a pattern may look.
pub(crate) fn makers(graph: &Graph, seen: &[ValueId]) -> Vec<Option<usize>> {
    let mut made = graph.producers();
    for v in seen {
        made[v.index()] = None;
    }
    made
}

impl Match<'_> {
    fn maker(&self, v: ValueId) -> Option<&Node> {
        self.made[v.index()].map(|i| &self.graph.nodes[i])
    }

    fn maker_of(&self, v: ValueId, op: &str) -> Option<&Node> {
        self.maker(v).filter(|n| n.is(op))
    }

    /// The number that a constant of one element holds.
    fn number(&self, v: ValueId) -> Option<f64> {
        let t = self.graph.constant(v)?;
        let values = t.to_f64s().or_else(|| Some(t.to_i64s()?.iter().map(|v| *v as f64).collect()))?;
        if values.len() == 1 { values.first().copied() } else { None }
    }

    /// The number that a value of one element is: a constant, or roots, products and quotients of numbers and sizes.
    fn scalar(&self, v: ValueId) -> Option<f64> {
        self.scalar_within(v, 12)
    }

    fn scalar_within(&self, v: ValueId, depth: usize) -> Option<f64> {
        if let Some(n) = self.number(v) {
            return Some(n);
        }
        if let Some([size]) = self.graph.fact(v).elements.as_deref() {
            return size.known().map(|n| n as f64);
        }
        let depth = depth.checked_sub(1)?;
        let n = self.maker(v).filter(|n| n.domain.is_empty())?;
        let x = self.scalar_within(n.input(0)?, depth)?;
        let other = || self.scalar_within(n.input(1)?, depth);
        match n.op.as_str() {
            // A whole number or a float of any width: sizes and their roots survive either.
            "Cast" if self.graph.dtype(v).is_some_and(DType::is_float) => Some(x),
            "Squeeze" | "Unsqueeze" | "Identity" => Some(x),
            "Sqrt" => Some(x.sqrt()),
            "Reciprocal" => Some(1.0 / x),
            "Mul" => Some(x * other()?),
            "Div" if self.graph.dtype(v).is_some_and(DType::is_float) => Some(x / other()?),
            "Pow" => Some(x.powf(other()?)),
            _ => None,
        }
    }

    fn is_number(&self, v: ValueId, n: f64) -> bool {
        self.number(v).is_some_and(|m| (m - n).abs() <= 1e-3 * n.abs())
    }

    /// The two inputs in either order, such that `pick` takes one of them; gives what it took and the other.
    fn either<T>(&self, n: &Node, pick: impl Fn(ValueId) -> Option<T>) -> Option<(T, ValueId)> {
        let (a, b) = (n.input(0)?, n.input(1)?);
        pick(a).map(|t| (t, b)).or_else(|| pick(b).map(|t| (t, a)))
    }

    /// The factors of a product of products, at most three levels deep.
    fn factors(&self, n: &Node, depth: usize, out: &mut Vec<ValueId>) {
        for v in n.inputs.iter().flatten() {
            match self.maker_of(*v, "Mul") {
                Some(inner) if depth > 0 => self.factors(inner, depth - 1, out),
                _ => out.push(*v),
            }
        }
    }
}

fn replaced(root: &Node, op: &str, inputs: &[ValueId], attrs: Attrs) -> Found {
    Some(Node {
        op: op.into(),
        name: root.name.clone(),
        inputs: inputs.iter().copied().map(Some).collect(),
        outputs: vec![root.output(0)],
        attrs,
        metadata: root.metadata.clone(),
        ..Node::default()
    })
}

/// Dropout does nothing in a base, which is used for inference: not where its training flag is absent or false or its
/// ratio is zero, and neither where a model was exported in training mode, which fixes the flag to true. ONNX Runtime's
/// optimiser drops all of these. A flag that is computed is left alone, and so is a mask that is read.
fn inference_dropout(m: &Match<'_>, n: &Node) -> Found {
    let fixed = n.input(2).is_none_or(|v| m.graph.constant(v).is_some());
    let kept = n.input(1).is_some_and(|v| m.number(v) == Some(0.0));
    if !(fixed || kept) || n.output(1).is_some() {
        return None;
    }
    replaced(n, "Identity", &[n.input(0)?], Attrs::new())
}

/// A `Cast` to the type that its input has already.
fn idle_cast(m: &Match<'_>, n: &Node) -> Found {
    let x = n.input(0)?;
    let to = m.graph.dtype(x).map(|d| i64::from(d.onnx()))?;
    if n.int("to", 0) != to {
        return None;
    }
    replaced(n, "Identity", &[x], Attrs::new())
}

#[cfg(test)]
mod tests;
