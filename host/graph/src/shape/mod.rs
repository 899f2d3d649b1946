//! Shape and type inference with symbolic dimensions. One table a family of operators, one row an operator.

mod activation;
mod attention;
pub(crate) mod conv;
pub(crate) mod einsum;
mod elementwise;
mod linear;
mod loss;
mod movement;
mod names;
mod norm;
mod quant;
mod recurrent;
mod reduce;
mod scatter;
mod sizes;
pub(crate) mod window;

pub(crate) use linear::matmul;
pub use names::infer_with_own_names;

use std::collections::HashMap;
use std::sync::OnceLock;

use crate::dim::{Dim, Shape};
use crate::ir::{Fact, GRAFT_DOMAIN, Graph, Node, ValueId};
use crate::tensor::DType;

/// What a rule sees of the node that it infers.
pub(crate) struct Infer<'a> {
    graph: &'a Graph,
    node: &'a Node,
}

/// From a node to what is known of its outputs; `None` when nothing is.
pub(crate) type Rule = fn(&Infer<'_>) -> Option<Vec<Fact>>;

impl<'a> Infer<'a> {
    fn input(&self, i: usize) -> Option<ValueId> {
        self.node.input(i)
    }
    fn has(&self, i: usize) -> bool {
        self.input(i).is_some()
    }
    fn fact(&self, i: usize) -> Option<&'a Fact> {
        self.input(i).map(|v| self.graph.fact(v))
    }
    fn dtype(&self, i: usize) -> Option<DType> {
        self.fact(i)?.dtype
    }
    fn shape(&self, i: usize) -> Option<&'a Shape> {
        self.fact(i)?.shape.as_ref()
    }
    /// The elements of an integer input of at most one dimension.
    fn elements(&self, i: usize) -> Option<&'a [Dim]> {
        self.fact(i)?.vector()
    }
    /// The elements of an integer input of any known shape, row-major.
    fn all_elements(&self, i: usize) -> Option<&'a [Dim]> {
        self.fact(i)?.elements.as_deref()
    }
    /// The elements of an integer input, all of them numbers.
    fn numbers(&self, i: usize) -> Option<Vec<i64>> {
        match self.elements(i) {
            Some(e) => e.iter().map(Dim::known).collect(),
            None => self.graph.constant(self.input(i)?)?.to_i64s(),
        }
    }
    /// A dimension of which nothing is known, named after the node's output.
    fn unknown(&self, axis: usize) -> Dim {
        let name = self.node.output(0).map_or("", |v| self.graph.name_of(v));
        Dim::symbol(format!("{name}:{axis}"))
    }
    /// `axis` counted from the front, if it lies in `0..rank`.
    fn axis(&self, axis: i64, rank: usize) -> Option<usize> {
        usize::try_from(if axis < 0 { axis.checked_add(rank as i64)? } else { axis })
            .ok()
            .filter(|a| *a < rank)
    }
}

/// One output of a type and shape.
pub(crate) fn one(dtype: Option<DType>, shape: Option<Shape>) -> Option<Vec<Fact>> {
    Some(vec![Fact { dtype, shape, elements: None }])
}

fn table() -> &'static HashMap<&'static str, Rule> {
    static TABLE: OnceLock<HashMap<&'static str, Rule>> = OnceLock::new();
    TABLE.get_or_init(|| {
        [
            elementwise::RULES,
            linear::RULES,
            movement::RULES,
            reduce::RULES,
            sizes::RULES,
            activation::RULES,
            norm::RULES,
            loss::RULES,
            conv::RULES,
            scatter::RULES,
            window::RULES,
            einsum::RULES,
            attention::RULES,
            quant::RULES,
            recurrent::RULES,
        ]
        .into_iter()
        .flatten()
        .copied()
        .collect()
    })
}

/// Operators that shapes can be inferred through.
pub fn supported() -> impl Iterator<Item = &'static str> {
    table().keys().copied()
}

/// Infers facts of the outputs of node `node` of `graph`, from the facts of its inputs.
pub fn infer_node(graph: &Graph, node: &Node) -> Option<Vec<Fact>> {
    if node.domain == GRAFT_DOMAIN {
        return crate::fused::infer(graph, node);
    }
    table().get(node.full_op().as_str()).and_then(|rule| rule(&Infer { graph, node }))
}

/// Which operator keeps the shape of `value` from being known, in words that go on with a sentence: the first on the
/// way to it whose inputs' shapes are known. Empty where there is none.
pub fn unknown_since(graph: &Graph, value: ValueId) -> String {
    let made_by = graph.producers();
    let mut at = value;
    // Each step goes to an earlier node.
    for _ in 0..=graph.nodes.len() {
        let Some(node) = made_by.get(at.index()).copied().flatten().and_then(|i| graph.nodes.get(i)) else {
            return match at == value {
                true => String::new(),
                false => format!(", since that of '{}' is not", graph.name_of(at)),
            };
        };
        match node.inputs.iter().flatten().find(|v| graph.shape(**v).is_none()) {
            Some(earlier) => at = *earlier,
            None => {
                let module = crate::sites::module_path(node).unwrap_or_else(|| "?".into());
                return format!(
                    ", since that of operator {} is not (node '{}', module '{module}')",
                    node.full_op(),
                    node.name
                );
            }
        }
    }
    String::new()
}

/// Infers the facts of every value from inputs and constants on. What the graph knew before stays where nothing
/// better is inferred.
pub fn infer(graph: &mut Graph) {
    for i in 0..graph.nodes.len() {
        infer_at(graph, i);
    }
}

/// Infers the outputs of node number `i`.
pub fn infer_at(graph: &mut Graph, i: usize) {
    let facts = infer_node(graph, &graph.nodes[i]).unwrap_or_default();
    for (k, fact) in facts.into_iter().enumerate() {
        let Some(v) = graph.nodes[i].output(k) else { continue };
        let known = graph.fact_mut(v);
        if fact.dtype.is_some() {
            known.dtype = fact.dtype;
        }
        if fact.shape.is_some() {
            known.shape = fact.shape;
        }
        known.elements = fact.elements;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_a_shape_from_being_known_is_named() {
        let mut g = Graph::new("t", 20);
        let x = g.add_input("x", DType::F32, vec![Dim::from("n")]);
        let mut last = x;
        for (name, op, domain) in
            [("a", "Relu", ""), ("b", "Odd", "acme"), ("c", "Relu", ""), ("d", "Relu", "")]
        {
            let y = g.add_value(&format!("{name}_out"), Fact::default());
            g.nodes.push(Node {
                op: op.into(),
                domain: domain.into(),
                name: name.into(),
                inputs: vec![Some(last)],
                outputs: vec![Some(y)],
                ..Node::default()
            });
            last = y;
        }
        infer(&mut g);
        assert!(g.shape(last).is_none());
        let since = unknown_since(&g, last);
        assert!(since.contains("acme::Odd") && since.contains("node 'b'"), "{since}");
        assert_eq!(unknown_since(&g, x), "");
    }
}
