//! `raise`: subgraphs that exporters write for one operator become that operator, so that everything after sees few,
//! known operators. One pattern a row.

use std::collections::HashMap;

use crate::ir::{Attr, Attrs, Graph, Node, ValueId};

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
    Pattern { name: "exact Gelu", root: "Mul", find: exact_gelu },
    Pattern { name: "LayerNorm", root: "Add", find: layer_norm },
];

/// Replaces every subgraph that a pattern recognises, and tells how often each did.
pub fn raise(graph: &mut Graph) -> Vec<(&'static str, usize)> {
    // What nobody reads must not keep a pattern from being seen.
    graph.remove_dead();
    let mut counts = Vec::new();
    for p in PATTERNS {
        let m = Match { graph, made: graph.producers() };
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
            graph.nodes[i] = new;
        }
        graph.remove_dead();
    }
    drop_identities(graph);
    if !counts.is_empty() {
        crate::shape::infer(graph);
    }
    counts
}

/// An `Identity` that is no output of the graph is the value itself.
fn drop_identities(graph: &mut Graph) {
    let mut original: HashMap<ValueId, ValueId> = HashMap::new();
    let Graph { nodes, outputs, .. } = graph;
    for n in nodes {
        for i in n.inputs.iter_mut().flatten() {
            *i = original.get(i).copied().unwrap_or(*i);
        }
        if let (true, Some(y), Some(x)) = (n.is("Identity"), n.output(0), n.input(0))
            && !outputs.contains(&y)
        {
            original.insert(y, x);
        }
    }
    graph.remove_dead();
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

/// `x · ½ · (1 + erf(x/√2))` in any order of the factors.
fn exact_gelu(m: &Match<'_>, n: &Node) -> Found {
    let mut factors = Vec::new();
    m.factors(n, 2, &mut factors);
    if factors.len() != 3 {
        return None;
    }
    let half = factors.iter().position(|v| m.is_number(*v, 0.5))?;
    factors.remove(half);
    let erf_arm = |v: ValueId| {
        let add = m.maker_of(v, "Add")?;
        let (erf, one) = m.either(add, |v| m.maker_of(v, "Erf").cloned())?;
        if !m.is_number(one, 1.0) {
            return None;
        }
        let inner = m.maker(erf.input(0)?)?;
        match inner.op.as_str() {
            "Div" if m.is_number(inner.input(1)?, std::f64::consts::SQRT_2) => inner.input(0),
            "Mul" => {
                let root = std::f64::consts::FRAC_1_SQRT_2;
                m.either(inner, |v| m.is_number(v, root).then_some(())).map(|(_, x)| x)
            }
            _ => None,
        }
    };
    let (x, other) = match (erf_arm(factors[0]), erf_arm(factors[1])) {
        (Some(x), _) => (x, factors[1]),
        (_, Some(x)) => (x, factors[0]),
        _ => return None,
    };
    if x != other {
        return None;
    }
    replaced(n, "Gelu", &[x], Attrs::new())
}

/// `(x − mean)/√(mean((x − mean)²) + ε)·scale + bias` over the last axis.
fn layer_norm(m: &Match<'_>, n: &Node) -> Found {
    let is_vector = |v: ValueId| {
        let t = m.graph.constant(v)?;
        (t.shape().len() == 1).then_some(v)
    };
    let (bias, scaled) = m.either(n, is_vector)?;
    let (scale, normal) = m.either(m.maker_of(scaled, "Mul")?, is_vector)?;
    let div = m.maker_of(normal, "Div")?;
    let (centred, deviation) = (div.input(0)?, div.input(1)?);
    let sub = m.maker_of(centred, "Sub")?;
    let x = sub.input(0)?;
    let over_last = |mean: &Node| {
        let axes = mean.input(1).and_then(|v| m.graph.constant(v)?.to_i64s())?;
        let rank = m.graph.shape(x)?.len() as i64;
        (axes == [-1] || axes == [rank - 1]).then_some(()).filter(|()| mean.int("keepdims", 1) != 0)
    };
    let mean = m.maker_of(sub.input(1)?, "ReduceMean")?;
    over_last(mean)?;
    if mean.input(0)? != x {
        return None;
    }
    let add = m.maker_of(m.maker_of(deviation, "Sqrt")?.input(0)?, "Add")?;
    let (var, eps) = m.either(add, |v| m.maker_of(v, "ReduceMean").cloned())?;
    over_last(&var)?;
    let square = m.maker(var.input(0)?)?;
    let squared = match square.op.as_str() {
        "Pow" if m.is_number(square.input(1)?, 2.0) => square.input(0)?,
        "Mul" if square.input(0) == square.input(1) => square.input(0)?,
        _ => return None,
    };
    // Old exporters subtract the mean twice, once for each use.
    let same = squared == centred
        || m.maker_of(squared, "Sub").is_some_and(|s| s.input(0) == Some(x) && s.input(1) == sub.input(1));
    let eps = m.number(eps).filter(|_| same)?;
    let attrs = Attrs::from([("axis".into(), Attr::Int(-1)), ("epsilon".into(), Attr::Float(eps as f32))]);
    replaced(n, "LayerNormalization", &[x, scale, bias], attrs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builder::Builder;
    use crate::dim::Dim;
    use crate::tensor::{DType, Tensor};

    fn gelu_like(half: f32, root: f32) -> Graph {
        let mut g = Graph::new("g", 20);
        let x = g.add_input("x", DType::F32, vec![Dim::from("n"), Dim::from(4)]);
        let mut b = Builder::new(&mut g, "");
        let (r, one, h) = (b.scalar(root), b.scalar(1f32), b.scalar(half));
        let d = b.op("Div", &[x, r]);
        let e = b.op("Erf", &[d]);
        let up = b.op("Add", &[e, one]);
        let p = b.op("Mul", &[x, up]);
        let y = b.op("Mul", &[p, h]);
        g.outputs = vec![y];
        g
    }

    #[test]
    fn the_chain_that_the_old_exporter_writes_becomes_one_gelu() {
        let mut g = gelu_like(0.5, std::f32::consts::SQRT_2);
        assert_eq!(raise(&mut g), vec![("exact Gelu", 1)]);
        assert_eq!(g.nodes.iter().map(|n| n.op.as_str()).collect::<Vec<_>>(), ["Gelu"]);
    }

    #[test]
    fn near_misses_stay_what_they_are() {
        for (half, root) in [(0.4, std::f32::consts::SQRT_2), (0.5, 1.5)] {
            let mut g = gelu_like(half, root);
            assert_eq!(raise(&mut g), vec![]);
            assert_eq!(g.nodes.len(), 5);
        }
    }

    #[test]
    fn a_decomposed_layer_norm_is_recognised() {
        let mut g = Graph::new("g", 20);
        let x = g.add_input("x", DType::F32, vec![Dim::from("n"), Dim::from(4)]);
        let mut b = Builder::new(&mut g, "");
        let (s, c) = (b.constant(Tensor::vector(&[1f32; 4])), b.constant(Tensor::vector(&[0f32; 4])));
        let (axes, two, eps) = (b.ints(&[-1]), b.scalar(2f32), b.scalar(1e-5f32));
        let mean = b.op("ReduceMean", &[x, axes]);
        let d = b.op("Sub", &[x, mean]);
        let sq = b.op("Pow", &[d, two]);
        let var = b.op("ReduceMean", &[sq, axes]);
        let v = b.op("Add", &[var, eps]);
        let sd = b.op("Sqrt", &[v]);
        let n = b.op("Div", &[d, sd]);
        let n = b.op("Mul", &[n, s]);
        let y = b.op("Add", &[n, c]);
        g.outputs = vec![y];
        assert_eq!(raise(&mut g), vec![("LayerNorm", 1)]);
        assert_eq!(g.nodes.len(), 1);
        assert_eq!(g.nodes[0].float("epsilon", 0.0), 1e-5);
    }
}
