//! The order of nodes, for the sake of memory.

use crate::ir::Graph;

/// Moves the nodes whose outputs no other node reads to the end, the last first.
///
/// ONNX Runtime runs a graph in an order of its own: it goes backwards from such nodes, the last in the file first, and
/// runs whatever each needs. Gradients of parameters are such nodes, and the last of them in the file belongs to the
/// first layer: with it in front, all gradients of activations are computed, and kept together with the activations
/// themselves, before the first gradient of a weight is. In this order a layer's are done when the pass leaves the layer.
pub fn soonest_first(graph: &mut Graph) {
    let consumers = graph.consumers();
    let read = |n: &crate::ir::Node| n.outputs.iter().flatten().any(|v| !consumers[v.index()].is_empty());
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
    use crate::tensor::DType;

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
