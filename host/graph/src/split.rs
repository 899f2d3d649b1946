//! `split`: a graph in two, what depends on no given input and the rest.
//!
//! What this keeps may be computed once per example and stored, so it is cut only where one row of the cut belongs to
//! one example and has a fixed size: every cut value is `[batch, …]` with numbers behind the batch. Whether rows are
//! independent and padding is invisible is for the caller to make sure of.

use crate::dim::Dim;
use crate::ir::{Graph, ValueId};

/// The two halves of a graph.
pub struct Split {
    /// From the inputs that do not change to the cut values (its outputs).
    pub frozen: Graph,
    /// From the cut values (inputs of the same names) and the inputs that change to the graph's outputs.
    pub rest: Graph,
    /// Names of the cut values.
    pub cut: Vec<String>,
}

/// Cuts `graph` in front of whatever depends on one of `changing` (inputs of the graph). `None` where there is nothing
/// to save, or where a cut value has no fixed size per row of `batch`.
pub fn split(graph: &Graph, changing: &[ValueId], batch: &Dim) -> Option<Split> {
    let mut changes = vec![false; graph.value_count()];
    changing.iter().for_each(|v| changes[v.index()] = true);
    for n in &graph.nodes {
        if n.inputs.iter().flatten().any(|v| changes[v.index()]) {
            n.outputs.iter().flatten().for_each(|o| changes[o.index()] = true);
        }
    }
    let is_rest = |n: &crate::ir::Node| n.outputs.iter().flatten().any(|o| changes[o.index()]);
    let mut cut: Vec<ValueId> = Vec::new();
    let read = graph.nodes.iter().filter(|n| is_rest(n)).flat_map(|n| n.inputs.iter().flatten());
    for v in read.chain(&graph.outputs) {
        if !changes[v.index()] && graph.constant(*v).is_none() && !cut.contains(v) {
            cut.push(*v);
        }
    }
    let fixed = |v: &ValueId| match graph.shape(*v).map(Vec::as_slice) {
        Some([first, rest @ ..]) => first == batch && rest.iter().all(|d| d.known().is_some()),
        _ => false,
    };
    let saves = cut.iter().any(|v| !graph.inputs.contains(v));
    if !saves || !cut.iter().all(fixed) {
        return None;
    }
    let mut frozen = graph.clone();
    frozen.outputs.clone_from(&cut);
    frozen.remove_dead();
    frozen.inputs.retain(|v| !changes[v.index()]);
    let mut rest = graph.clone();
    rest.nodes.retain(|n| is_rest(n));
    rest.inputs.retain(|v| changes[v.index()]);
    for v in &cut {
        rest.inputs.push(*v);
    }
    rest.remove_dead();
    let cut = cut.iter().map(|v| graph.name_of(*v).to_string()).collect();
    Some(Split { frozen, rest, cut })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builder::Builder;
    use crate::tensor::{DType, Tensor};

    fn head_over(axes: &[i64]) -> (Graph, ValueId) {
        let mut g = Graph::new("g", 20);
        let dims = vec![Dim::from("batch"), Dim::from("seq"), Dim::from(3)];
        let x = g.add_input("x", DType::F32, dims);
        let w = g.add_input("w", DType::F32, vec![Dim::from(3), Dim::from(2)]);
        let mut b = Builder::new(&mut g, "");
        let axes = b.constant(Tensor::vector(axes));
        let pooled = b.op_with("ReduceMean", &[x, axes], &[("keepdims", crate::Attr::Int(0))]);
        let y = b.op("MatMul", &[pooled, w]);
        g.outputs = vec![y];
        (g, w)
    }

    #[test]
    fn pooled_features_are_cut_before_the_head() {
        let (g, w) = head_over(&[1]);
        let s = split(&g, &[w], &Dim::from("batch")).unwrap();
        assert_eq!((s.frozen.nodes.len(), s.rest.nodes.len(), s.cut.len()), (1, 1, 1));
        assert_eq!(s.rest.inputs.len(), 2);
    }

    #[test]
    fn a_cut_across_the_batch_or_with_a_free_length_is_refused() {
        let (g, w) = head_over(&[0]);
        assert!(split(&g, &[w], &Dim::from("batch")).is_none());
        let (mut g, w) = head_over(&[1]);
        let x = g.inputs[0];
        let y = Builder::new(&mut g, "").op("MatMul", &[x, w]);
        g.outputs = vec![y];
        assert!(
            split(&g, &[w], &Dim::from("batch")).is_none(),
            "nothing is saved: the input itself is the cut"
        );
    }
}
