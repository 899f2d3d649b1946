//! The operators of a base, and whether gradients flow through them.

use std::collections::{BTreeMap, HashMap, HashSet};

use graft_graph::grad::{supported, trainable_constants};
use graft_graph::sites::module_path;
use graft_graph::{DType, Fact, Graph, Node, Tensor, ValueId};
use serde::Serialize;

/// Most modules that are named in words; JSON has them all.
const NAMED: usize = 4;

/// An operator with its uses.
#[derive(Serialize)]
pub struct Operator {
    pub op: String,
    pub count: usize,
    pub gradient: Gradient,
    /// Where a rule is missing: module paths, or node names where there are none.
    pub modules: Vec<String>,
}

/// Whether an operator can be differentiated.
#[derive(Serialize, Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
#[serde(rename_all = "snake_case")]
pub enum Gradient {
    /// There is a rule.
    Rule,
    /// None is needed: nothing flows through it from a weight to an output, as in computations of shapes.
    NotNeeded,
    /// There is none, and it lies between a weight and an output.
    Missing,
}

impl Gradient {
    /// As a person reads it.
    pub fn words(self) -> &'static str {
        match self {
            Gradient::Rule => "with a gradient rule",
            Gradient::NotNeeded => "without, and none is needed",
            Gradient::Missing => "WITHOUT a gradient rule",
        }
    }
}

impl Operator {
    /// Where it is, the first few places.
    pub fn modules_text(&self) -> String {
        let more = self.modules.len().saturating_sub(NAMED);
        let named = self.modules[..self.modules.len() - more].join(", ");
        if more == 0 { named } else { format!("{named} and {more} more") }
    }
}

/// The operators of `graph`, sorted by name. `hidden` counts as an output.
pub fn of(graph: &Graph, hidden: Option<ValueId>) -> Vec<Operator> {
    let rules: HashSet<&str> = supported().into_iter().collect();
    let on_path = on_path(graph, hidden);
    let mut all: BTreeMap<String, Operator> = BTreeMap::new();
    let mut flat: HashMap<String, bool> = HashMap::new();
    for (i, node) in graph.nodes.iter().enumerate() {
        let op = node.full_op();
        let gradient = if rules.contains(op.as_str()) {
            Gradient::Rule
        } else if !on_path[i] || *flat.entry(op.clone()).or_insert_with(|| is_flat(node)) {
            Gradient::NotNeeded
        } else {
            Gradient::Missing
        };
        let fresh = || Operator { op: op.clone(), count: 0, gradient, modules: Vec::new() };
        let entry = all.entry(op.clone()).or_insert_with(fresh);
        entry.count += 1;
        entry.gradient = entry.gradient.max(gradient);
        if gradient == Gradient::Missing {
            let place = module_path(node).unwrap_or_else(|| format!("node '{}'", node.name));
            if !entry.modules.contains(&place) {
                entry.modules.push(place);
            }
        }
    }
    all.into_values().collect()
}

/// For each node: whether a float result of it depends on a trainable weight and leads to an output.
fn on_path(graph: &Graph, hidden: Option<ValueId>) -> Vec<bool> {
    let is_float = |v: ValueId| graph.dtype(v).is_none_or(DType::is_float);
    let targets: Vec<ValueId> =
        graph.outputs.iter().copied().chain(hidden).filter(|v| is_float(*v)).collect();
    let mut from = vec![false; graph.value_count()];
    trainable_constants(graph, &targets).iter().for_each(|v| from[v.index()] = true);
    for n in &graph.nodes {
        if n.inputs.iter().flatten().any(|v| from[v.index()]) {
            n.outputs.iter().flatten().filter(|o| is_float(**o)).for_each(|o| from[o.index()] = true);
        }
    }
    let mut to = vec![false; graph.value_count()];
    targets.iter().for_each(|v| to[v.index()] = true);
    for n in graph.nodes.iter().rev() {
        if n.outputs.iter().flatten().any(|o| to[o.index()]) {
            n.inputs.iter().flatten().for_each(|v| to[v.index()] = true);
        }
    }
    let on = |n: &Node| n.outputs.iter().flatten().any(|o| from[o.index()] && to[o.index()]);
    graph.nodes.iter().map(on).collect()
}

/// True for operators through which nothing flows back although their result is a float, as through Floor. The engine
/// is asked, on a graph of that one node.
fn is_flat(node: &Node) -> bool {
    let mut graph = Graph::new("one node", 20);
    let input = graph.add_constant("x", Tensor::scalar(1f32));
    let output = graph.add_value("y", Fact { dtype: Some(DType::F32), ..Fact::default() });
    graph.nodes.push(Node {
        op: node.op.clone(),
        domain: node.domain.clone(),
        inputs: vec![Some(input)],
        outputs: vec![Some(output)],
        ..Node::default()
    });
    trainable_constants(&graph, &[output]).is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `y = Mystery(between(x · w)) + Mystery(x)`, where only the later Mystery node lies behind a weight.
    fn graph(between: &str) -> Graph {
        let mut g = Graph::new("g", 20);
        let x = g.add_input("x", DType::F32, vec![2.into(), 2.into()]);
        let w = g.add_constant("w", Tensor::new(vec![2, 2], &[1f32, 2.0, 3.0, 4.0]).unwrap());
        let fact = || Fact { dtype: Some(DType::F32), ..Fact::default() };
        let [a, b, c, d, y] = ["a", "b", "c", "d", "y"].map(|n| g.add_value(n, fact()));
        let mut node = |op: &str, domain: &str, inputs: &[ValueId], output: ValueId| {
            g.nodes.push(Node {
                op: op.into(),
                domain: domain.into(),
                name: format!("/block/{op}"),
                inputs: inputs.iter().copied().map(Some).collect(),
                outputs: vec![Some(output)],
                ..Node::default()
            });
        };
        node("Mystery", "vendor", &[x], d);
        node("MatMul", "", &[x, w], a);
        node(between, "", &[a], b);
        node("Mystery", "vendor", &[b], c);
        node("Add", "", &[c, d], y);
        g.outputs.push(y);
        g
    }

    fn found(between: &str, op: &str) -> (Gradient, usize, String) {
        let all = of(&graph(between), None);
        let o = all.iter().find(|o| o.op == op).unwrap();
        (o.gradient, o.count, o.modules_text())
    }

    #[test]
    fn an_operator_without_rule_behind_a_weight_is_named_with_its_module() {
        assert_eq!(found("Relu", "vendor::Mystery"), (Gradient::Missing, 2, "block".into()));
        assert_eq!(found("Relu", "MatMul"), (Gradient::Rule, 1, String::new()));
    }

    #[test]
    fn no_rule_is_needed_where_nothing_flows() {
        // Floor cuts the path from the weight to the outputs.
        assert_eq!(found("Floor", "vendor::Mystery").0, Gradient::NotNeeded);
        assert_eq!(found("Floor", "Floor").0, Gradient::NotNeeded);
    }

    #[test]
    fn of_many_places_the_first_are_named() {
        let modules = (0..6).map(|i| format!("m{i}")).collect();
        let o = Operator { op: "X".into(), count: 6, gradient: Gradient::Missing, modules };
        assert_eq!(o.modules_text(), "m0, m1, m2, m3 and 2 more");
    }
}
