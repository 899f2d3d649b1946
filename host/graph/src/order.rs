//! The order of nodes, for the sake of memory.

use crate::ir::{Graph, Node};

/// Moves the nodes whose outputs no other node reads to the end, the last first.
///
/// ONNX Runtime runs a graph in an order of its own: it goes backwards from such nodes, the last in the file first, and
/// runs whatever each needs. Gradients of parameters are such nodes, and the last of them in the file belongs to the
/// first layer: with it in front, all gradients of activations are computed, and kept together with the activations
/// themselves, before the first gradient of a weight is. In this order a layer's are done when the pass leaves the layer.
pub fn soonest_first(graph: &mut Graph) {
    let is_read = graph.read();
    let read = |n: &Node| n.outputs.iter().flatten().any(|v| is_read[v.index()]);
    let (mut nodes, mut last): (Vec<_>, Vec<_>) =
        std::mem::take(&mut graph.nodes).into_iter().partition(read);
    last.reverse();
    nodes.append(&mut last);
    graph.nodes = nodes;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builder::Builder;
    use crate::dim::Dim;
    use crate::ir::Attr;
    use crate::tensor::DType;

    #[test]
    fn what_only_a_subgraph_reads_stays_in_front_of_it() {
        let mut inner = Graph::new("then", 18);
        let outer_name = inner.add_value("made", crate::ir::Fact::default());
        let copy = Builder::new(&mut inner, "").op("Identity", &[outer_name]);
        inner.outputs = vec![copy];
        let mut g = Graph::new("g", 18);
        let x = g.add_input("x", DType::F32, vec![Dim::from(2)]);
        let made = Builder::new(&mut g, "").op("Exp", &[x]);
        g.rename(made, "made");
        let read = Builder::new(&mut g, "").op_with("Body", &[x], &[("then", Attr::Graph(Box::new(inner)))]);
        g.outputs = vec![read];
        soonest_first(&mut g);
        let ops: Vec<&str> = g.nodes.iter().map(|n| n.op.as_str()).collect();
        assert_eq!(ops, ["Exp", "Body"]);
    }

    #[test]
    fn what_nothing_reads_comes_last_and_the_latest_of_it_first() {
        let mut g = Graph::new("g", 18);
        let x = g.add_input("x", DType::F32, vec![Dim::from(2)]);
        let mut b = Builder::new(&mut g, "");
        let a = b.op("Exp", &[x]);
        let first = b.op("Neg", &[a]);
        let c = b.op("Abs", &[a]);
        let second = b.op("Sqrt", &[c]);
        g.outputs = vec![first, second];
        soonest_first(&mut g);
        let ops: Vec<&str> = g.nodes.iter().map(|n| n.op.as_str()).collect();
        assert_eq!(ops, ["Exp", "Abs", "Sqrt", "Neg"]);
    }
}
