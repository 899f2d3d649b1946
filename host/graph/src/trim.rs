//! `trim`: leaving the front of an axis uncomputed where nobody reads it.
//!
//! Behind a prefix every attention reads the keys and values of the text alone, and so do the outputs: what is computed
//! for the dummy tokens in front is thrown away. A value of which every reader takes the same end (`Slice` from a
//! position on) is computed for that end only, if its operator treats positions alike; the cut then stands in front of
//! the operator, where the same may hold again. Nothing is changed but the amount of work: each element that remains is
//! computed from the same numbers by the same operators.

use std::collections::HashMap;

use crate::builder::Builder;
use crate::dim::{Dim, Shape};
use crate::fused;
use crate::hoist::ELEMENTWISE;
use crate::ir::{Attr, Graph, Node, ValueId};

/// The end of an axis, from a position on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Cut {
    axis: usize,
    start: i64,
}

/// What becomes of a node whose output is cut.
enum Narrow {
    /// The same operator, with these inputs cut.
    Again(Vec<Option<Cut>>),
    /// A reshape of a cut input to this shape.
    Reshaped(Cut, Vec<i64>),
    /// One of its inputs as it is.
    Input(ValueId),
}

/// Moves cuts of an axis' front up as far as they go. Returns how many nodes were made smaller.
pub fn trim(graph: &mut Graph) -> usize {
    if graph.sort().is_err() {
        return 0;
    }
    let nodes = graph.nodes.len();
    let mut readers = graph.consumers();
    let mut slices: HashMap<(ValueId, Cut), ValueId> = HashMap::new();
    let mut moved = 0;
    for i in (0..nodes).rev() {
        let node = graph.nodes[i].clone();
        let (Some(y), 1) = (node.output(0), node.outputs.iter().flatten().count()) else { continue };
        let Some(cut) = same_cut(graph, &readers[y.index()], y) else { continue };
        let Some(narrow) = narrowed(graph, &node, y, cut) else { continue };
        let before = graph.nodes.len();
        let mut cut_of = |graph: &mut Graph, x: ValueId, cut: Cut| {
            *slices.entry((x, cut)).or_insert_with(|| {
                let mut b = Builder::new(graph, "trim/");
                let [start, end, axis] = [cut.start, i64::MAX, cut.axis as i64].map(|v| b.ints(&[v]));
                b.op("Slice", &[x, start, end, axis])
            })
        };
        // The node itself is dead from here on.
        for x in node.inputs.iter().flatten() {
            readers[x.index()].retain(|r| *r != i);
        }
        let new = match narrow {
            Narrow::Input(x) => x,
            Narrow::Reshaped(cut, shape) => {
                let Some(x) = node.input(0) else { continue };
                let x = cut_of(graph, x, cut);
                let mut b = Builder::new(graph, format!("trim/{}/", node.name));
                let shape = b.ints(&shape);
                b.op_with("Reshape", &[x, shape], &[("allowzero", Attr::Int(0))])
            }
            Narrow::Again(cuts) => {
                let mut inputs = node.inputs.clone();
                for (input, cut) in inputs.iter_mut().zip(cuts) {
                    if let (Some(x), Some(cut)) = (*input, cut) {
                        *input = Some(cut_of(graph, x, cut));
                    }
                }
                let mut b = Builder::new(graph, format!("trim/{}/", node.name));
                b.set_metadata(node.metadata.clone());
                b.emit(&node.op, &node.domain, &inputs, node.attrs.clone(), 1)[0]
            }
        };
        readers.resize(graph.value_count(), Vec::new());
        for (at, made) in graph.nodes.iter().enumerate().skip(before) {
            made.inputs.iter().flatten().for_each(|x| readers[x.index()].push(at));
        }
        let ends: Vec<ValueId> =
            readers[y.index()].iter().filter_map(|r| graph.nodes[*r].output(0)).collect();
        for end in ends {
            let of_end = std::mem::take(&mut readers[end.index()]);
            readers[new.index()].extend(of_end);
            graph.replace_uses(end, new);
        }
        moved += 1;
    }
    // What was made stands behind its readers.
    if moved > 0 && graph.sort().is_ok() {
        graph.remove_dead();
    }
    moved
}

/// The cut that all readers of `y` make.
fn same_cut(graph: &Graph, readers: &[usize], y: ValueId) -> Option<Cut> {
    if graph.outputs.contains(&y) {
        return None;
    }
    let first = cut_by(graph, &graph.nodes[*readers.first()?], y)?;
    readers.iter().all(|r| cut_by(graph, &graph.nodes[*r], y) == Some(first)).then_some(first)
}

/// What `n` takes of `x`, where it is a `Slice` of one axis from a constant position to its end, itself no output.
fn cut_by(graph: &Graph, n: &Node, x: ValueId) -> Option<Cut> {
    let numbers = |k: usize| graph.constant(n.input(k)?)?.to_i64s();
    if !n.is("Slice") || n.input(0) != Some(x) || graph.outputs.contains(&n.output(0)?) {
        return None;
    }
    let step = if n.input(4).is_some() { numbers(4)? } else { vec![1] };
    let (&[start], &[end], &[axis], &[1]) =
        (numbers(1)?.as_slice(), numbers(2)?.as_slice(), numbers(3)?.as_slice(), step.as_slice())
    else {
        return None;
    };
    let rank = graph.shape(x)?.len() as i64;
    let axis = usize::try_from(if axis < 0 { axis + rank } else { axis }).ok()?;
    (start > 0 && end >= i64::from(i32::MAX)).then_some(Cut { axis, start })
}

fn narrowed(graph: &Graph, node: &Node, y: ValueId, cut: Cut) -> Option<Narrow> {
    let shape = graph.shape(y)?;
    let rank = shape.len();
    let attention = fused::is_attention(node);
    let mut cuts = vec![None; node.inputs.len()];
    match node.op.as_str() {
        op if node.domain.is_empty() && ELEMENTWISE.contains(&op) => {
            for (x, slot) in node.inputs.iter().zip(&mut cuts) {
                let own = graph.shape((*x)?)?;
                // Where the axis is absent or has one element it is broadcast, and stays.
                let Some(axis) = (cut.axis + own.len()).checked_sub(rank) else { continue };
                match &own[axis] {
                    d if d.is(1) => {}
                    d if d.equals(&shape[cut.axis]) == Some(true) => *slot = Some(Cut { axis, ..cut }),
                    _ => return None,
                }
            }
        }
        "LayerNormalization" | "RMSNormalization" | "RMSNorm" | "Softmax" | "LogSoftmax" => {
            let axis = node.int("axis", -1);
            let first = if axis < 0 { axis + rank as i64 } else { axis };
            if first <= cut.axis as i64 {
                return None;
            }
            *cuts.first_mut()? = Some(cut);
        }
        "MatMul" => {
            let (a, b) = (graph.shape(node.input(0)?)?.len(), graph.shape(node.input(1)?)?.len());
            // The rows of the left side alone: not the summed axis, not one that the right side has, too.
            let is_row = a == rank && b >= 2 && cut.axis + 1 < rank && (b == 2 || cut.axis + 2 == rank);
            *cuts.first_mut()? = Some(cut).filter(|_| is_row);
        }
        _ if attention => {
            if cut.axis + 2 != rank {
                return None;
            }
            *cuts.first_mut()? = Some(cut);
            let bias = node.input(3).and_then(|b| graph.shape(b));
            if let Some(axis) = bias.and_then(|s| s.len().checked_sub(2).filter(|a| !s[*a].is(1))) {
                *cuts.get_mut(3)? = Some(Cut { axis, ..cut });
            }
        }
        "Transpose" => {
            let axis = match node.ints("perm") {
                Some(p) => usize::try_from(*p.get(cut.axis)?).ok()?,
                None => rank - 1 - cut.axis,
            };
            *cuts.first_mut()? = Some(Cut { axis, ..cut });
        }
        "Gather" => {
            let depth = graph.shape(node.input(1)?)?.len();
            let rows = node.int("axis", 0) == 0 && cut.axis < depth;
            *cuts.get_mut(1)? = Some(cut).filter(|_| rows);
        }
        "Concat" => return joined(graph, node, rank, cut),
        "Reshape" => return reshaped(graph, node, shape, cut),
        "Unsqueeze" => {
            let axes = graph.constant(node.input(1)?)?.to_i64s()?;
            let new = |a: i64| usize::try_from(if a < 0 { a + rank as i64 } else { a }).ok();
            let new: Vec<usize> = axes.into_iter().map(new).collect::<Option<_>>()?;
            let before = new.iter().filter(|a| **a < cut.axis).count();
            let axis = cut.axis - before;
            *cuts.first_mut()? = Some(Cut { axis, ..cut }).filter(|_| !new.contains(&cut.axis));
        }
        "Slice" => {
            let axes = graph.constant(node.input(3)?)?.to_i64s()?;
            let other = |a: &i64| if *a < 0 { a + rank as i64 } else { *a } != cut.axis as i64;
            *cuts.first_mut()? = Some(cut).filter(|_| axes.iter().all(other));
        }
        _ => return None,
    }
    cuts.iter().any(Option::is_some).then_some(Narrow::Again(cuts))
}

/// Parts beside each other are all cut; of two behind each other, the first of which is what is cut away, the second
/// is left.
fn joined(graph: &Graph, node: &Node, rank: usize, cut: Cut) -> Option<Narrow> {
    let axis = node.int("axis", 0);
    let axis = if axis < 0 { axis + rank as i64 } else { axis };
    if axis != cut.axis as i64 {
        return Some(Narrow::Again(vec![Some(cut); node.inputs.len()]));
    }
    let (front, rest) = (node.input(0)?, node.input(1)?);
    let whole = node.inputs.len() == 2 && graph.shape(front)?[cut.axis].is(cut.start);
    whole.then_some(Narrow::Input(rest))
}

/// A reshape that leaves every axis up to the cut one as it is.
fn reshaped(graph: &Graph, node: &Node, to: &Shape, cut: Cut) -> Option<Narrow> {
    let from = graph.shape(node.input(0)?)?;
    if from.get(..=cut.axis)? != to.get(..=cut.axis)? {
        return None;
    }
    let rest: Vec<i64> = to[cut.axis + 1..].iter().map(Dim::known).collect::<Option<_>>()?;
    let shape = std::iter::repeat_n(0, cut.axis + 1).chain(rest).collect();
    Some(Narrow::Reshaped(cut, shape))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::{DType, Tensor};

    /// Ids with two dummies in front, looked up, through two layers that add to what they read; of the result the text.
    fn two_layers(also: bool) -> Graph {
        let mut g = Graph::new("g", 20);
        let ids = g.add_input("ids", DType::I64, vec![Dim::from("b"), Dim::from("s")]);
        let front = g.add_input("front", DType::I64, vec![Dim::from("b"), Dim::from(2)]);
        let mut b = Builder::new(&mut g, "");
        let table = b.constant(Tensor::new([9, 4], &[0.5f32; 36]).unwrap());
        let w = b.constant(Tensor::new([4, 4], &[0.5f32; 16]).unwrap());
        let [start, end, axis] = [2, i64::MAX, 1].map(|v| b.ints(&[v]));
        let long = b.op_with("Concat", &[front, ids], &[("axis", Attr::Int(1))]);
        let mut h = b.op("Gather", &[table, long]);
        for _ in 0..2 {
            let y = b.op("MatMul", &[h, w]);
            h = b.op("Add", &[y, h]);
        }
        let y = b.op("Slice", &[h, start, end, axis]);
        let y = b.op("Relu", &[y]);
        g.outputs = vec![y];
        if also {
            g.outputs.push(h);
        }
        g
    }

    #[test]
    fn what_nobody_reads_is_not_computed() {
        let mut g = two_layers(false);
        assert_eq!(trim(&mut g), 6);
        let ops: Vec<&str> = g.nodes.iter().map(|n| n.op.as_str()).collect();
        assert_eq!(ops, ["Gather", "MatMul", "Add", "MatMul", "Add", "Relu"]);
        let shape = |n: &Node| crate::dim::show(g.shape(n.output(0).unwrap()).unwrap());
        assert!(g.nodes.iter().all(|n| shape(n) == "[b, s, 4]"), "{:?}", g.nodes);
    }

    #[test]
    fn what_is_read_whole_stays_whole() {
        let mut g = two_layers(true);
        let before = g.nodes.len();
        assert_eq!(trim(&mut g), 0);
        assert_eq!(g.nodes.len(), before);
    }
}
