//! How much memory a graph needs, estimated before it runs.

use crate::ir::{Graph, ValueId};

/// An estimate, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Memory {
    /// Constants, each once: what is mapped from the file.
    pub weights: u64,
    /// What inputs and computed values need together at the worst moment, each held from the node that makes it to
    /// the last one that reads it.
    pub activations: u64,
    /// Values of which the size could not be told; they count as nothing.
    pub unknown: usize,
}

/// Estimates the memory of one run, nodes in their order, where symbols of shapes have the sizes that `sizes` tells.
/// What a provider needs besides (packed weights, scratch space, a growing arena) is not in it.
pub fn estimate(graph: &Graph, sizes: &dyn Fn(&str) -> Option<i64>) -> Memory {
    let mut memory =
        Memory { weights: graph.constants().map(|(_, t)| t.bytes().len() as u64).sum(), ..Memory::default() };
    let mut last = vec![0usize; graph.value_count()];
    for (i, n) in graph.nodes.iter().enumerate() {
        n.inputs.iter().flatten().for_each(|v| last[v.index()] = i);
    }
    let end = graph.nodes.len();
    graph.inputs.iter().chain(&graph.outputs).for_each(|v| last[v.index()] = end);
    let mut size = |v: ValueId| -> u64 {
        let bytes = bytes_of(graph, v, sizes);
        memory.unknown += usize::from(bytes.is_none());
        bytes.unwrap_or(0)
    };
    let mut held = graph.inputs.iter().fold(0u64, |n, v| n.saturating_add(size(*v)));
    let mut freed: Vec<Vec<u64>> = vec![Vec::new(); end + 1];
    let mut peak = held;
    for (i, n) in graph.nodes.iter().enumerate() {
        for v in n.outputs.iter().flatten() {
            let bytes = size(*v);
            held = held.saturating_add(bytes);
            freed[last[v.index()].max(i)].push(bytes);
        }
        peak = peak.max(held);
        held -= freed[i].iter().sum::<u64>().min(held);
    }
    memory.activations = peak;
    memory
}

/// Bytes of one value, where its type is known and `sizes` tells every symbol of its shape.
pub fn bytes_of(graph: &Graph, v: ValueId, sizes: &dyn Fn(&str) -> Option<i64>) -> Option<u64> {
    let bits = graph.dtype(v)?.bits() as u64;
    let mut elements = 1u64;
    for d in graph.shape(v)? {
        elements = elements.saturating_mul(u64::try_from(d.evaluate(sizes)?).ok()?);
    }
    Some(elements.saturating_mul(bits).div_ceil(8))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builder::Builder;
    use crate::dim::Dim;
    use crate::tensor::{DType, Tensor};

    #[test]
    fn a_value_counts_from_the_node_that_makes_it_to_its_last_reader() {
        let mut g = Graph::new("g", 20);
        let x = g.add_input("x", DType::F32, vec![Dim::from("n"), Dim::from(4)]);
        let mut b = Builder::new(&mut g, "");
        let w = b.constant(Tensor::vector(&[1f32; 4]));
        let (p, q) = (b.op("Mul", &[x, w]), b.op("Exp", &[x]));
        let s = b.op("Add", &[p, q]);
        let y = b.op("Neg", &[s]);
        g.outputs = vec![y];
        let ten = |_: &str| Some(10);
        // At the sum: x, both of its arguments, and the sum itself, of 160 bytes each.
        assert_eq!(estimate(&g, &ten), Memory { weights: 16, activations: 640, unknown: 0 });
        assert_eq!(estimate(&g, &|_| None).unknown, 5);
    }
}
