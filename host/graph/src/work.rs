//! How much arithmetic a graph does, estimated before it runs.

use crate::fused;
use crate::ir::{Graph, Node, ValueId};

/// Multiplications of each node, in the order of the nodes, where symbols of shapes have the sizes that `sizes` tells:
/// those of products, convolutions, attentions and recurrent layers; for any other operator, the elements of its
/// outputs. What has no known size counts as nothing.
pub fn work(graph: &Graph, sizes: &dyn Fn(&str) -> Option<i64>) -> Vec<u64> {
    let count = Count { graph, sizes };
    graph.nodes.iter().map(|n| count.node(n).unwrap_or(0)).collect()
}

struct Count<'a> {
    graph: &'a Graph,
    sizes: &'a dyn Fn(&str) -> Option<i64>,
}

impl Count<'_> {
    fn shape(&self, v: Option<ValueId>) -> Option<Vec<u64>> {
        let dims = self.graph.shape(v?)?;
        dims.iter().map(|d| u64::try_from(d.evaluate(self.sizes)?).ok()).collect()
    }

    fn elements(&self, v: Option<ValueId>) -> Option<u64> {
        Some(product(self.shape(v)?))
    }

    fn node(&self, n: &Node) -> Option<u64> {
        let out = || self.elements(n.output(0));
        let last = |v| self.shape(v)?.last().copied();
        if fused::is_attention(n) {
            // Queries by keys of the width of a head, and their weights by values.
            let weights = self.shape(n.input(1))?.last().copied()?;
            let queries = self.elements(n.input(0))?;
            return Some(queries.saturating_mul(weights).saturating_add(out()?.saturating_mul(weights)));
        }
        match n.op.as_str() {
            "MatMul" | "MatMulInteger" | "QLinearMatMul" => Some(out()?.saturating_mul(last(n.input(0))?)),
            "Gemm" => {
                let a = self.shape(n.input(0))?;
                let summed = if n.int("transA", 0) == 0 { a.last() } else { a.first() };
                Some(out()?.saturating_mul(*summed?))
            }
            "Conv" | "ConvInteger" => {
                let kernel = self.shape(n.input(1))?;
                Some(out()?.saturating_mul(product(kernel.into_iter().skip(1))))
            }
            "ConvTranspose" => {
                let kernel = self.shape(n.input(1))?;
                Some(self.elements(n.input(0))?.saturating_mul(product(kernel.into_iter().skip(1))))
            }
            "LSTM" | "GRU" | "RNN" => {
                let steps = product(self.shape(n.input(0))?.into_iter().take(2));
                let weights = self.elements(n.input(1))?.saturating_add(self.elements(n.input(2))?);
                Some(steps.saturating_mul(weights))
            }
            // A view of what is there already.
            "Reshape" | "Identity" | "Squeeze" | "Unsqueeze" | "Flatten" | "Shape" => Some(0),
            _ => {
                let all = n.outputs.iter().flatten().filter_map(|v| self.elements(Some(*v)));
                Some(all.fold(0u64, u64::saturating_add))
            }
        }
    }
}

fn product(of: impl IntoIterator<Item = u64>) -> u64 {
    of.into_iter().fold(1, u64::saturating_mul)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builder::Builder;
    use crate::dim::Dim;
    use crate::tensor::{DType, Tensor};

    #[test]
    fn products_count_what_they_multiply_and_the_rest_its_elements() {
        let mut g = Graph::new("g", 20);
        let x = g.add_input("x", DType::F32, vec![Dim::from("n"), Dim::from(3)]);
        let pixels =
            g.add_input("pixels", DType::F32, vec![Dim::from("n"), Dim::from(2), Dim::from(6), Dim::from(6)]);
        let mut b = Builder::new(&mut g, "");
        let w = b.constant(Tensor::new([3, 4], &[1f32; 12]).unwrap());
        let kernel = b.constant(Tensor::new([5, 2, 3, 3], &[1f32; 90]).unwrap());
        let y = b.op("MatMul", &[x, w]);
        let y = b.op("Gelu", &[y]);
        let z = b.op("Conv", &[pixels, kernel]);
        g.outputs = vec![y, z];
        let ten = |_: &str| Some(10);
        assert_eq!(work(&g, &ten), [10 * 3 * 4, 10 * 4, 10 * (5 * 4 * 4) * (2 * 3 * 3)]);
        assert_eq!(work(&g, &|_| None), [0, 0, 0]);
    }
}
