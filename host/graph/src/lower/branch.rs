//! `If` whose condition is known becomes the branch that it takes.

use std::collections::HashMap;

use crate::ir::{Attr, Fact, Graph, Node, ValueId};
use crate::tensor::{DType, Tensor};

/// Branches inside branches that are followed.
const MAX_DEPTH: usize = 32;
/// The input by which decoders that hold both ways choose between a first step and one with a cache.
const CACHE_INPUT: &str = "use_cache_branch";

/// Replaces every `If` whose condition is a constant, and gives how many there were. A decoder that was merged from
/// one without and one with a cache of past keys is taken without: it loses the input that chooses, and those that
/// nothing reads any more.
pub(super) fn take_branches(graph: &mut Graph) -> usize {
    if !graph.nodes.iter().any(|n| n.is("If")) {
        return 0;
    }
    let merged = without_cache(graph);
    let mut count = 0;
    for _ in 0..MAX_DEPTH {
        let before = count;
        for node in std::mem::take(&mut graph.nodes) {
            match taken(graph, &node).filter(|branch| paste(graph, &node, branch)) {
                Some(_) => count += 1,
                None => graph.nodes.push(node),
            }
        }
        if count == before {
            break;
        }
        // A branch may be all that a later condition waited for.
        crate::shape::infer(graph);
    }
    graph.remove_dead();
    if merged && count > 0 {
        let read = graph.consumers();
        let kept = |v: &ValueId| !read[v.index()].is_empty() || !graph.name_of(*v).starts_with("past_");
        let inputs = graph.inputs.iter().copied().filter(kept).collect();
        graph.inputs = inputs;
    }
    count
}

/// Sets the choice between first step and cache to the first step.
fn without_cache(graph: &mut Graph) -> bool {
    let Some(v) = graph.find(CACHE_INPUT).filter(|v| graph.inputs.contains(v)) else { return false };
    let decides = |n: &Node| n.is("If") && n.input(0) == Some(v);
    if graph.dtype(v) != Some(DType::Bool) || !graph.nodes.iter().any(decides) {
        return false;
    }
    graph.inputs.retain(|i| *i != v);
    graph.set_constant(v, Tensor::vector(&[false]));
    true
}

/// The branch that a node with a known condition takes.
fn taken(graph: &Graph, node: &Node) -> Option<Graph> {
    let condition = node.input(0).filter(|_| node.is("If"))?;
    let constant = || graph.constant(condition)?.to_i64s()?.first().copied();
    let folded = || graph.fact(condition).elements.as_ref()?.first()?.known();
    let name = if constant().or_else(folded)? != 0 { "then_branch" } else { "else_branch" };
    match node.attrs.get(name) {
        Some(Attr::Graph(branch)) if branch.outputs.len() == node.outputs.len() => Some((**branch).clone()),
        _ => None,
    }
}

/// Appends the nodes of the branch, which read the outer graph's values by name; false where they can't be.
fn paste(graph: &mut Graph, node: &Node, branch: &Graph) -> bool {
    let made = branch.producers();
    let nested = branch.nodes.iter().any(|n| n.attrs.values().any(|a| matches!(a, Attr::Graph(_))));
    let own = |v: ValueId| made[v.index()].is_some() || branch.constant(v).is_some();
    let reads = branch.nodes.iter().flat_map(|n| n.inputs.iter().flatten()).chain(&branch.outputs);
    let mut map: HashMap<ValueId, ValueId> = HashMap::new();
    for v in reads.filter(|v| !own(**v)) {
        let Some(outer) = graph.find(branch.name_of(*v)) else { return false };
        map.insert(*v, outer);
    }
    // Branches inside read this one's values by name, so these must keep theirs.
    let inner = branch.nodes.iter().flat_map(|n| n.outputs.iter().flatten().copied());
    let mut inner = inner.chain(branch.constants().map(|c| c.0));
    if nested && inner.any(|v| graph.find(branch.name_of(v)).is_some()) {
        return false;
    }
    let mut copies = Vec::new();
    for (v, y) in branch.outputs.iter().zip(&node.outputs) {
        let Some(y) = y else { continue };
        if made[v.index()].is_some() && !nested && !map.contains_key(v) {
            map.insert(*v, *y);
        } else {
            copies.push((*v, *y));
        }
    }
    for (v, t) in branch.constants() {
        map.insert(v, graph.add_constant(branch.name_of(v), t.clone()));
    }
    for n in &branch.nodes {
        let mut n = n.clone();
        for slot in n.inputs.iter_mut().chain(&mut n.outputs) {
            let Some(v) = *slot else { continue };
            let fact = || Fact { dtype: branch.dtype(v), ..Fact::default() };
            *slot = Some(*map.entry(v).or_insert_with(|| graph.add_value(branch.name_of(v), fact())));
        }
        graph.nodes.push(n);
    }
    for (v, y) in copies {
        let Some(x) = map.get(&v) else { continue };
        let copy = Node { op: "Identity".into(), name: node.name.clone(), ..Node::default() };
        graph.nodes.push(Node { inputs: vec![Some(*x)], outputs: vec![Some(y)], ..copy });
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dim::Dim;

    /// `y = choice ? x + x : past`, with the sum in a branch of its own.
    fn merged(name: &str) -> Graph {
        let mut g = Graph::new("g", 20);
        let shape = || vec![Dim::from("n")];
        let x = g.add_input("x", DType::F32, shape());
        g.add_input("past_key", DType::F32, shape());
        let choice = g.add_input(name, DType::Bool, vec![Dim::from(1)]);
        let mut first = Graph::default();
        let (a, b) = (first.add_value("x", Fact::default()), first.add_value("sum", Fact::default()));
        first.nodes.push(Node {
            op: "Add".into(),
            inputs: vec![Some(a), Some(a)],
            outputs: vec![Some(b)],
            ..Node::default()
        });
        first.outputs = vec![b];
        let mut then = Graph::default();
        then.outputs = vec![then.add_value("past_key", Fact::default())];
        let y = g.add_value("y", Fact::default());
        let branches = [("then_branch", then), ("else_branch", first)];
        g.nodes.push(Node {
            op: "If".into(),
            inputs: vec![Some(choice)],
            outputs: vec![Some(y)],
            attrs: branches.map(|(k, b)| (k.to_string(), Attr::Graph(Box::new(b)))).into(),
            ..Node::default()
        });
        g.outputs = vec![y];
        let _ = x;
        g
    }

    #[test]
    fn a_merged_decoder_is_taken_without_its_cache() {
        let mut g = merged(CACHE_INPUT);
        assert_eq!(take_branches(&mut g), 1);
        assert_eq!(g.nodes.iter().map(|n| n.op.as_str()).collect::<Vec<_>>(), ["Add"]);
        let names: Vec<&str> = g.inputs.iter().map(|v| g.name_of(*v)).collect();
        assert_eq!(names, ["x"]);
        assert_eq!(g.name_of(g.outputs[0]), "y");
    }

    #[test]
    fn a_constant_condition_takes_its_branch_and_another_stays() {
        let mut g = merged("choice");
        assert_eq!(take_branches(&mut g), 0);
        assert_eq!(g.inputs.len(), 3);
        let choice = g.find("choice").unwrap();
        g.inputs.retain(|v| *v != choice);
        g.set_constant(choice, Tensor::vector(&[true]));
        assert_eq!(take_branches(&mut g), 1);
        let past = g.find("past_key");
        assert_eq!((g.nodes[0].op.as_str(), g.nodes[0].input(0)), ("Identity", past));
    }
}
