//! `split`: a graph in two, what depends on no given input and the rest.
//!
//! What this keeps may be computed once per example and stored, so it is cut only where one row of the cut belongs to
//! one example and has a fixed size: every cut value is `[batch, …]` with numbers behind the batch, and the analysis of
//! axes proves that axis 0 is the batch and that its rows are independent. Whether padding reaches the cut, where that
//! is not proven either way, is for the caller to try.

use crate::axes::{Axes, Batch};
use crate::dim::{Dim, show};
use crate::ir::{Graph, ValueId};

/// The two halves of a graph.
#[derive(Clone)]
pub struct Split {
    /// From the inputs that do not change to the cut values (its outputs).
    pub frozen: Graph,
    /// From the cut values (inputs of the same names) and the inputs that change to the graph's outputs.
    pub rest: Graph,
    /// Names of the cut values.
    pub cut: Vec<String>,
    /// Why padding is not proven to be invisible to the cut; none where it is.
    pub doubt: Option<String>,
}

/// Why a graph is not cut.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Whole {
    /// There is nothing to save, or what there is has no fixed size per example.
    #[error("{0}")]
    NothingFixed(String),
    /// A value with fixed sizes is not proven to have one independent row for each example.
    #[error("{0}")]
    Unproven(String),
}

/// Cuts `graph` in front of whatever depends on one of `changing` (inputs of the graph). `axes` is the analysis of it.
///
/// # Errors
/// Why it stays whole.
pub fn split(graph: &Graph, changing: &[ValueId], axes: &Axes) -> Result<Split, Whole> {
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
        Some([_, rest @ ..]) => rest.iter().all(|d| d.known().is_some()),
        _ => false,
    };
    // What does not depend on the batch has no row for each example.
    let one_for_all = |v: &ValueId| axes.batch(*v) == Batch::None;
    let told = |v: &ValueId, what: &str| {
        let shape = graph.shape(*v).map_or_else(String::new, |s: &Vec<Dim>| show(s));
        Err(Whole::NothingFixed(format!("'{}' {shape} {what}", graph.name_of(*v))))
    };
    if cut.iter().all(|v| graph.inputs.contains(v)) {
        return Err(Whole::NothingFixed("what is trained reads the inputs themselves".into()));
    }
    if let Some(v) = cut.iter().find(|v| !fixed(v)) {
        return told(v, "is read by what is trained and has no fixed size for each example");
    }
    if let Some(v) = cut.iter().find(|v| one_for_all(v)) {
        return told(v, "is read by what is trained and is no row for each example");
    }
    let about = |v: ValueId, what: &str, reason: Option<crate::axes::Reason>| {
        let shape = graph.shape(v).map_or_else(String::new, |s: &Vec<Dim>| show(s));
        let reason = reason.map_or_else(String::new, |r| format!(": {r}"));
        format!("'{}' {shape} {what}{reason}", graph.name_of(v))
    };
    let mut doubt = None;
    for v in &cut {
        let s = axes.summary(*v);
        if s.batch != Batch::Axis(0) {
            let what = "is not proven to have one independent row for each example";
            return Err(Whole::Unproven(about(*v, what, s.mixed_by)));
        }
        if !s.padding_invisible && doubt.is_none() {
            doubt = Some(about(*v, "may depend on padding", s.padding_by));
        }
    }
    let frozen = graph.cut_to(&cut);
    let mut rest = graph.clone();
    rest.nodes.retain(|n| is_rest(n));
    rest.inputs.retain(|v| changes[v.index()]);
    for v in &cut {
        rest.inputs.push(*v);
    }
    rest.remove_dead();
    let cut = cut.iter().map(|v| graph.name_of(*v).to_string()).collect();
    Ok(Split { frozen, rest, cut, doubt })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::axes::analyse;
    use crate::builder::Builder;
    use crate::model::Role;
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

    fn cut(g: &Graph, w: ValueId, role: Role) -> Result<Split, Whole> {
        split(g, &[w], &analyse(g, &[(g.inputs[0], role)]))
    }

    #[test]
    fn pooled_features_are_cut_before_the_head() {
        let (g, w) = head_over(&[1]);
        let s = cut(&g, w, Role::Pixels).unwrap();
        assert_eq!((s.frozen.nodes.len(), s.rest.nodes.len(), s.cut.len()), (1, 1, 1));
        assert_eq!(s.rest.inputs.len(), 2);
    }

    #[test]
    fn a_cut_across_the_batch_or_with_a_free_length_is_refused() {
        let (g, w) = head_over(&[0]);
        assert!(cut(&g, w, Role::Pixels).is_err());
        let (mut g, w) = head_over(&[1]);
        let x = g.inputs[0];
        let y = Builder::new(&mut g, "").op("MatMul", &[x, w]);
        g.outputs = vec![y];
        let whole = cut(&g, w, Role::Pixels).err();
        let Some(Whole::NothingFixed(why)) = whole else { panic!("{whole:?}") };
        assert!(why.contains("'x' [batch, seq, 3]"), "{why}");
    }

    #[test]
    fn what_is_not_proven_is_told_with_the_operator() {
        let mut g = Graph::new("g", 20);
        let x = g.add_input("pixels", DType::F32, vec![Dim::from("batch"), Dim::from(3)]);
        let w = g.add_input("w", DType::F32, vec![Dim::from(3), Dim::from(2)]);
        let mut b = Builder::new(&mut g, "");
        let axis = b.ints(&[0]);
        let mean = b.op("ReduceMean", &[x, axis]);
        let centred = b.op("Sub", &[x, mean]);
        let y = b.op("MatMul", &[centred, w]);
        g.outputs = vec![y];
        match cut(&g, w, Role::Pixels).err() {
            Some(Whole::Unproven(why)) => assert!(why.contains("ReduceMean"), "{why}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_mean_over_padding_is_cut_with_a_doubt() {
        let mut g = Graph::new("g", 20);
        let x = g.add_input("input_ids", DType::I64, vec![Dim::from("batch"), Dim::from("seq")]);
        let w = g.add_input("w", DType::F32, vec![Dim::from(2), Dim::from(2)]);
        let table = g.add_constant("table", Tensor::new([2, 2], &[1f32, 2.0, 3.0, 4.0]).unwrap());
        let mut b = Builder::new(&mut g, "");
        let axis = b.ints(&[1]);
        let rows = b.op("Gather", &[table, x]);
        let mean = b.op_with("ReduceMean", &[rows, axis], &[("keepdims", crate::Attr::Int(0))]);
        let y = b.op("MatMul", &[mean, w]);
        g.outputs = vec![y];
        let doubt = cut(&g, w, Role::Ids).unwrap().doubt.expect("padding is seen");
        assert!(doubt.contains("ReduceMean"), "{doubt}");
    }
}
