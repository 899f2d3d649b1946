//! `beside`: several graphs that were derived from one base, as one graph that computes what they share once.
//!
//! A value of the base is shared where a derived graph still makes it from the same by the same operator; what a derived
//! graph changed, and all that depends on it, stands in the joined graph once for each.

use crate::builder::Builder;
use crate::ir::{Attr, Graph, Node, ValueId, captured};
use crate::work::work;

/// Several graphs in one.
#[derive(Debug)]
pub struct Beside {
    /// The joined graph; its outputs are those of the first graph, then those of the second, and so on.
    pub graph: Graph,
    /// For each graph the outputs that stand for its own, in order.
    pub outputs: Vec<Vec<ValueId>>,
    /// For each graph what each of its values is in the joined one; `None` for those that nothing makes.
    pub values: Vec<Vec<Option<ValueId>>>,
}

/// For each value of `derived`, which began as a copy of `base`, whether it is what `base` has under this number, made
/// in the same way from the same.
pub fn shared(base: &Graph, derived: &Graph) -> Vec<bool> {
    let made = base.producers();
    let mut same = vec![false; derived.value_count()];
    for v in derived.inputs.iter().filter(|v| base.inputs.contains(v)) {
        same[v.index()] = true;
    }
    for (v, t) in derived.constants().filter(|(v, _)| v.index() < base.value_count()) {
        let alike = |b: &crate::Tensor| b.bytes().as_ptr() == t.bytes().as_ptr() || b == t;
        same[v.index()] = base.constant(v).is_some_and(alike);
    }
    for n in &derived.nodes {
        let first = n.outputs.iter().flatten().next().filter(|v| v.index() < base.value_count());
        let theirs = first.and_then(|v| made[v.index()]).map(|i| &base.nodes[i]);
        if theirs.is_some_and(|b| equal(b, n)) && reads_only(derived, n, &same) {
            n.outputs.iter().flatten().for_each(|v| same[v.index()] = true);
        }
    }
    same
}

/// Whether two nodes do the same with the same; outputs that nobody reads may be left out by one.
fn equal(a: &Node, b: &Node) -> bool {
    let outputs = |n: &Node, k: usize| n.output(k);
    let places = a.outputs.len().max(b.outputs.len());
    a.op == b.op
        && a.domain == b.domain
        && a.inputs == b.inputs
        && a.attrs == b.attrs
        && (0..places).all(|k| match (outputs(a, k), outputs(b, k)) {
            (Some(x), Some(y)) => x == y,
            _ => true,
        })
}

fn reads_only(graph: &Graph, n: &Node, same: &[bool]) -> bool {
    let mut all = n.inputs.iter().flatten().all(|v| same[v.index()]);
    captured(n, graph, &mut |v| all &= same[v.index()]);
    all
}

/// The part of the arithmetic of `derived`, from 0 to 1, that `base` would do for it.
pub fn share(base: &Graph, derived: &Graph, sizes: &dyn Fn(&str) -> Option<i64>) -> f64 {
    let same = shared(base, derived);
    let (mut common, mut all) = (0u64, 0u64);
    for (n, cost) in derived.nodes.iter().zip(work(derived, sizes)) {
        all = all.saturating_add(cost);
        if n.outputs.iter().flatten().all(|v| same[v.index()]) {
            common = common.saturating_add(cost);
        }
    }
    if all == 0 { 0.0 } else { common as f64 / all as f64 }
}

/// Joins graphs that began as copies of `base` and are sorted. Inputs of the base are shared; names of everything else
/// that a graph has for itself begin with its number and `/`.
///
/// # Errors
/// The operator that stands in the way: one with subgraphs, behind something that a graph changed.
pub fn beside(base: &Graph, derived: &[&Graph]) -> Result<Beside, String> {
    let mut graph = base.clone();
    graph.outputs.clear();
    let (mut outputs, mut values) = (Vec::new(), Vec::new());
    for (k, d) in derived.iter().enumerate() {
        for (domain, version) in &d.opsets {
            graph.opsets.entry(domain.clone()).or_insert(*version);
        }
        for f in &d.functions {
            if !graph.functions.iter().any(|g| g.domain == f.domain && g.name == f.name) {
                graph.functions.push(f.clone());
            }
        }
        let map = take(&mut graph, d, &shared(base, d), &format!("{k}/"))?;
        let mut own = Vec::new();
        for v in &d.outputs {
            let v = map[v.index()].ok_or_else(|| format!("nothing makes '{}'", d.name_of(*v)))?;
            let computed = graph.nodes.iter().any(|n| n.outputs.contains(&Some(v)));
            // Each has outputs of its own.
            let v = match computed && !graph.outputs.contains(&v) {
                true => v,
                false => Builder::new(&mut graph, format!("{k}/output.")).op("Identity", &[v]),
            };
            graph.outputs.push(v);
            own.push(v);
        }
        outputs.push(own);
        values.push(map);
    }
    graph.remove_dead();
    Ok(Beside { graph, outputs, values })
}

/// Copies into `graph` what `d` does not share with it.
fn take(graph: &mut Graph, d: &Graph, same: &[bool], prefix: &str) -> Result<Vec<Option<ValueId>>, String> {
    let mut map: Vec<Option<ValueId>> = d.values().map(|v| same[v.index()].then_some(v)).collect();
    let copy = |graph: &mut Graph, v: ValueId| {
        graph.add_value(&format!("{prefix}{}", d.name_of(v)), d.fact(v).clone())
    };
    for v in d.inputs.iter().filter(|v| !same[v.index()]) {
        let own = copy(graph, *v);
        graph.inputs.push(own);
        map[v.index()] = Some(own);
    }
    for (v, t) in d.constants().filter(|(v, _)| !same[v.index()]) {
        let own = graph.add_constant(&format!("{prefix}{}", d.name_of(v)), t.clone());
        map[v.index()] = Some(own);
    }
    for n in &d.nodes {
        if n.outputs.iter().flatten().all(|v| same[v.index()]) {
            continue;
        }
        if n.attrs.values().any(|a| matches!(a, Attr::Graph(_))) {
            return Err(format!("{} '{}' has a graph inside", n.full_op(), n.name));
        }
        let mut own = n.clone();
        own.name = format!("{prefix}{}", n.name);
        for v in own.inputs.iter_mut().flatten() {
            *v = map[v.index()].ok_or_else(|| format!("nothing makes '{}'", d.name_of(*v)))?;
        }
        for v in own.outputs.iter_mut().flatten() {
            let made = copy(graph, *v);
            map[v.index()] = Some(made);
            *v = made;
        }
        graph.nodes.push(own);
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dim::Dim;
    use crate::tensor::{DType, Tensor};

    /// Two layers.
    fn base() -> Graph {
        let mut g = Graph::new("g", 20);
        let x = g.add_input("x", DType::F32, vec![Dim::from("n"), Dim::from(4)]);
        let mut b = Builder::new(&mut g, "");
        let mut h = x;
        for k in 0..2 {
            let w = b.constant(Tensor::new([4, 4], &[k as f32; 16]).unwrap());
            h = b.op("MatMul", &[h, w]);
            h = b.op("Relu", &[h]);
        }
        g.outputs = vec![h];
        g
    }

    /// A copy with a head of `labels`.
    fn with_head(base: &Graph, labels: usize) -> Graph {
        let mut g = base.clone();
        let h = g.outputs[0];
        let w = g.add_input("head.weight", DType::F32, vec![Dim::from(4), Dim::from(labels)]);
        let y = Builder::new(&mut g, "head.").op("MatMul", &[h, w]);
        g.rename(y, "logits");
        g.outputs = vec![y];
        g
    }

    #[test]
    fn heads_over_one_base_compute_it_once() {
        let base = base();
        let (a, b) = (with_head(&base, 2), with_head(&base, 3));
        let both = beside(&base, &[&a, &b]).unwrap();
        assert_eq!(both.graph.nodes.len(), base.nodes.len() + 2);
        let names: Vec<&str> = both.graph.inputs.iter().map(|v| both.graph.name_of(*v)).collect();
        assert_eq!(names, ["x", "0/head.weight", "1/head.weight"]);
        let names: Vec<&str> = both.graph.outputs.iter().map(|v| both.graph.name_of(*v)).collect();
        assert_eq!(names, ["0/logits", "1/logits"]);
        assert_eq!(both.outputs, [[both.graph.outputs[0]], [both.graph.outputs[1]]]);
        let weight = b.find("head.weight").unwrap();
        assert_eq!(both.values[1][weight.index()], both.graph.find("1/head.weight"));
        assert!(share(&base, &a, &|_| Some(5)) > 0.7);
    }

    #[test]
    fn what_is_changed_is_computed_for_itself_from_there_on() {
        let base = base();
        let plain = with_head(&base, 2);
        let mut changed = with_head(&base, 2);
        // Between the layers.
        let between = changed.nodes[1].output(0).unwrap();
        let delta = changed.add_input("delta", DType::F32, vec![Dim::from(4)]);
        let sum = Builder::new(&mut changed, "").op("Add", &[between, delta]);
        changed.nodes[2].inputs[0] = Some(sum);
        changed.sort().unwrap();
        let mut both = beside(&base, &[&plain, &changed]).unwrap().graph;
        // The first layer once, the second twice, an addition and two heads.
        assert_eq!(both.nodes.len(), 2 + 4 + 1 + 2);
        let before = both.nodes.clone();
        both.sort().unwrap();
        assert_eq!(both.nodes, before, "it is sorted");
        let part = share(&base, &changed, &|_| Some(5));
        assert!((0.3..0.5).contains(&part), "{part}");
    }

    #[test]
    fn an_output_that_several_have_is_theirs_each() {
        let base = base();
        let both = beside(&base, &[&base, &base]).unwrap();
        assert_eq!(both.graph.nodes.len(), base.nodes.len() + 1);
        assert_ne!(both.outputs[0], both.outputs[1]);
    }
}
