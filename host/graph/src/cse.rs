//! One value, one node: nodes that compute the same from the same are joined.

use std::collections::HashMap;

use crate::ir::{Attr, Graph, ValueId};

/// Most bytes of a constant whose content is compared.
const MAX_BYTES: usize = 64;

/// Joins nodes of the same operator, inputs and attributes, and constants of the same small content. Nodes with
/// subgraphs or large tensors, random operators and outputs of the graph are left alone.
pub fn join_equal(graph: &mut Graph) {
    let mut stand_in: HashMap<ValueId, ValueId> = HashMap::new();
    let mut constants: HashMap<String, ValueId> = HashMap::new();
    for (v, t) in graph.constants() {
        if t.bytes().len() <= MAX_BYTES {
            let key = format!("{t:?}{:?}", t.bytes());
            let first = *constants.entry(key).or_insert(v);
            if first != v {
                stand_in.insert(v, first);
            }
        }
    }
    let outputs: std::collections::HashSet<ValueId> = graph.outputs.iter().copied().collect();
    let mut seen: HashMap<String, Vec<Option<ValueId>>> = HashMap::new();
    for n in &mut graph.nodes {
        for i in n.inputs.iter_mut().flatten() {
            if let Some(s) = stand_in.get(i) {
                *i = *s;
            }
        }
        let is_large = |a: &Attr| match a {
            Attr::Graph(_) => true,
            Attr::Tensor(t) => t.bytes().len() > MAX_BYTES,
            _ => false,
        };
        let special = n.op.starts_with("Random")
            || matches!(n.op.as_str(), "Bernoulli" | "Multinomial" | "Dropout" | "Constant")
            || n.attrs.values().any(is_large)
            || n.outputs.iter().flatten().any(|o| outputs.contains(o));
        if special {
            continue;
        }
        let contents: Vec<&[u8]> = n
            .attrs
            .values()
            .filter_map(|a| if let Attr::Tensor(t) = a { Some(t.bytes().as_ref()) } else { None })
            .collect();
        let key = format!("{}|{:?}|{:?}|{contents:?}|{}", n.full_op(), n.inputs, n.attrs, n.outputs.len());
        match seen.get(&key) {
            Some(first) => {
                for (mine, theirs) in n.outputs.iter().zip(first) {
                    if let (Some(m), Some(t)) = (mine, theirs) {
                        stand_in.insert(*m, *t);
                    }
                }
            }
            None => {
                seen.insert(key, n.outputs.clone());
            }
        }
    }
    graph.remove_dead();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builder::Builder;
    use crate::dim::Dim;
    use crate::tensor::DType;

    #[test]
    fn equal_nodes_and_constants_are_joined() {
        let mut g = Graph::new("g", 20);
        let x = g.add_input("x", DType::F32, vec![Dim::from("n")]);
        let mut b = Builder::new(&mut g, "");
        let (c, d) = (b.scalar(2f32), b.scalar(2f32));
        let (p, q) = (b.op("Mul", &[x, c]), b.op("Mul", &[x, d]));
        let y = b.op("Add", &[p, q]);
        g.outputs = vec![y];
        join_equal(&mut g);
        assert_eq!(g.nodes.len(), 2);
        assert_eq!(g.nodes[1].inputs, vec![Some(p), Some(p)]);
        assert_eq!(g.constants().count(), 1);
    }
}
