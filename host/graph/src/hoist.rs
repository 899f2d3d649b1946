//! `hoist`: taking one position of an axis before work is done for all of them.
//!
//! A head that reads a single token (`Gather` or `Slice` of one position) needs the rest of the last layer for that
//! token alone. The choice moves up through whatever treats positions alike: element-wise operators, products with a
//! matrix, normalisations, softmax over another axis, transposes, reshapes that keep the axis. Nothing is changed but
//! the amount of work: each element that remains is computed from the same numbers by the same operators.

use crate::builder::Builder;
use crate::dim::{Dim, Shape};
use crate::fused;
use crate::ir::{Attr, Graph, Node, ValueId};

/// Element-wise operators of any number of broadcast inputs.
pub(crate) const ELEMENTWISE: &[&str] = &[
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Gelu",
    "Relu",
    "Tanh",
    "Sigmoid",
    "Erf",
    "Sqrt",
    "Exp",
    "Neg",
    "Identity",
    "Pow",
    "Where",
    "Cast",
    "Reciprocal",
    "Softplus",
    "Elu",
    "LeakyRelu",
    "Cos",
    "Sin",
];

/// Steps upwards that are taken at most, against graphs made to be slow.
const MAX_STEPS: usize = 10_000;

/// One position of one axis.
#[derive(Clone, Copy)]
struct Pick {
    axis: usize,
    at: i64,
}

/// Moves choices of a single position up as far as they go. Returns how many nodes were made smaller.
pub fn hoist(graph: &mut Graph) -> usize {
    let picks: Vec<usize> =
        (0..graph.nodes.len()).filter(|i| pick_of(graph, &graph.nodes[*i]).is_some()).collect();
    let mut moved = 0;
    for i in picks {
        let node = graph.nodes[i].clone();
        let (Some((x, pick)), Some(y)) = (pick_of(graph, &node), node.output(0)) else { continue };
        let users = use_counts(graph);
        let mut h = Hoist { users, before: graph.nodes.len(), graph, moved: 0 };
        let Some(narrow) = h.above(x, pick, 0) else { continue };
        moved += h.moved;
        // The choice itself becomes the removal of an axis that has one element.
        let axes = Builder::new(graph, "hoist/").ints(&[pick.axis as i64]);
        graph.nodes[i] = Node {
            op: "Squeeze".into(),
            inputs: vec![Some(narrow), Some(axes)],
            outputs: vec![Some(y)],
            name: node.name,
            metadata: node.metadata,
            ..Node::default()
        };
        // Nodes were appended behind their reader.
        if graph.sort().is_err() {
            return moved;
        }
    }
    graph.remove_dead();
    moved
}

fn use_counts(graph: &Graph) -> Vec<usize> {
    let mut counts: Vec<usize> = graph.consumers().iter().map(Vec::len).collect();
    graph.outputs.iter().for_each(|o| counts[o.index()] += 1);
    counts
}

/// `Gather` of a single constant position that drops the axis.
fn pick_of(graph: &Graph, n: &Node) -> Option<(ValueId, Pick)> {
    if !n.is("Gather") {
        return None;
    }
    let (x, index) = (n.input(0)?, n.input(1)?);
    let rank = graph.shape(x)?.len();
    let t = graph.constant(index).filter(|t| t.shape().is_empty())?;
    let at = *t.to_i64s()?.first()?;
    let axis = n.int("axis", 0);
    let axis = usize::try_from(if axis < 0 { axis + rank as i64 } else { axis }).ok()?;
    graph.dtype(x).filter(|d| d.is_float())?;
    (axis < rank).then_some((x, Pick { axis, at }))
}

struct Hoist<'g> {
    graph: &'g mut Graph,
    users: Vec<usize>,
    /// Nodes that were there before; those behind it are new.
    before: usize,
    moved: usize,
}

impl Hoist<'_> {
    /// The value like `x`, but with only the position `pick` on its axis (of size 1), made above the producer of `x`;
    /// `None` where the choice can't go above it.
    fn above(&mut self, x: ValueId, pick: Pick, depth: usize) -> Option<ValueId> {
        if self.users.get(x.index()).copied().unwrap_or(0) > 1 || depth > 200 || self.moved > MAX_STEPS {
            return None;
        }
        let made = self.graph.nodes[..self.before].iter().rposition(|n| n.output(0) == Some(x))?;
        let node = self.graph.nodes[made].clone();
        let attention = fused::is_attention(&node);
        if !(node.domain.is_empty() || attention) || node.outputs.iter().flatten().count() != 1 {
            return None;
        }
        let rank = self.graph.shape(x)?.len();
        let inputs = match node.op.as_str() {
            op if ELEMENTWISE.contains(&op) => self.elementwise(&node, rank, pick, depth)?,
            "LayerNormalization" | "RMSNormalization" | "Softmax" | "LogSoftmax" => {
                let axis = node.int("axis", -1);
                let first = if axis < 0 { axis + rank as i64 } else { axis };
                if first <= pick.axis as i64 {
                    return None;
                }
                self.with_first(&node, pick, depth)?
            }
            "MatMul" => self.product(&node, rank, pick, depth)?,
            _ if attention => self.attention(&node, rank, pick, depth)?,
            "Transpose" => self.transposed(&node, pick, depth)?,
            "Reshape" => return self.reshaped(&node, x, pick, depth),
            _ => return None,
        };
        Some(self.again(&node, &inputs))
    }

    /// `x` at the position: above its producer, or cut here.
    fn narrow(&mut self, x: ValueId, pick: Pick, depth: usize) -> Option<ValueId> {
        if let Some(v) = self.above(x, pick, depth + 1) {
            return Some(v);
        }
        let axes = [pick.at, if pick.at == -1 { i64::MAX } else { pick.at + 1 }, pick.axis as i64];
        let mut shape = self.graph.shape(x)?.clone();
        let mut b = Builder::new(self.graph, "hoist/");
        let [start, end, axis] = axes.map(|v| b.ints(&[v]));
        let y = b.op("Slice", &[x, start, end, axis]);
        // The position exists, or the choice that stood here before would have failed.
        shape[pick.axis] = Dim::from(1);
        self.graph.fact_mut(y).shape = Some(shape);
        Some(y)
    }

    fn again(&mut self, node: &Node, inputs: &[Option<ValueId>]) -> ValueId {
        self.moved += 1;
        let mut b = Builder::new(self.graph, format!("hoist/{}/", node.name));
        b.set_metadata(node.metadata.clone());
        b.emit(&node.op, &node.domain, inputs, node.attrs.clone(), 1)[0]
    }

    fn with_first(&mut self, node: &Node, pick: Pick, depth: usize) -> Option<Vec<Option<ValueId>>> {
        let first = self.narrow(node.input(0)?, pick, depth)?;
        Some(std::iter::once(Some(first)).chain(node.inputs[1..].iter().copied()).collect())
    }

    fn elementwise(
        &mut self,
        node: &Node,
        rank: usize,
        pick: Pick,
        depth: usize,
    ) -> Option<Vec<Option<ValueId>>> {
        let mut inputs = Vec::with_capacity(node.inputs.len());
        for v in &node.inputs {
            let v = (*v)?;
            let shape = self.graph.shape(v)?.clone();
            // Where the axis is absent or has one element it is broadcast, and stays.
            let own = (pick.axis + shape.len()).checked_sub(rank);
            inputs.push(Some(match own {
                Some(axis) if !shape[axis].is(1) => self.narrow(v, Pick { axis, ..pick }, depth)?,
                _ => v,
            }));
        }
        Some(inputs)
    }

    fn product(
        &mut self,
        node: &Node,
        rank: usize,
        pick: Pick,
        depth: usize,
    ) -> Option<Vec<Option<ValueId>>> {
        let (a, b) = (node.input(0)?, node.input(1)?);
        let (ra, rb) = (self.graph.shape(a)?.len(), self.graph.shape(b)?.len());
        // The rows of the left side alone: not the summed axis, not one that the right side has, too.
        let is_row = ra == rank && pick.axis + 1 < rank && (rb == 2 || pick.axis + 2 == rank);
        if !is_row || rb < 2 {
            return None;
        }
        Some(vec![Some(self.narrow(a, pick, depth)?), Some(b)])
    }

    /// One query: of the queries, and of a bias that has one for each.
    fn attention(
        &mut self,
        node: &Node,
        rank: usize,
        pick: Pick,
        depth: usize,
    ) -> Option<Vec<Option<ValueId>>> {
        if pick.axis + 2 != rank {
            return None;
        }
        let q = self.narrow(node.input(0)?, pick, depth)?;
        let mut inputs = node.inputs.clone();
        *inputs.first_mut()? = Some(q);
        let bias = node.input(3)?;
        let shape = self.graph.shape(bias)?;
        if let Some(axis) = shape.len().checked_sub(2).filter(|a| !shape[*a].is(1)) {
            *inputs.get_mut(3)? = Some(self.narrow(bias, Pick { axis, ..pick }, depth)?);
        }
        Some(inputs)
    }

    fn transposed(&mut self, node: &Node, pick: Pick, depth: usize) -> Option<Vec<Option<ValueId>>> {
        let x = node.input(0)?;
        let rank = self.graph.shape(x)?.len();
        let axis = match node.ints("perm") {
            Some(p) => usize::try_from(*p.get(pick.axis)?).ok()?,
            None => rank - 1 - pick.axis,
        };
        Some(vec![Some(self.narrow(x, Pick { axis, ..pick }, depth)?)])
    }

    /// A reshape that leaves every axis up to the chosen one as it is.
    fn reshaped(&mut self, node: &Node, y: ValueId, pick: Pick, depth: usize) -> Option<ValueId> {
        let x = node.input(0)?;
        let (from, to): (Shape, Shape) = (self.graph.shape(x)?.clone(), self.graph.shape(y)?.clone());
        if from.get(..=pick.axis)? != to.get(..=pick.axis)? {
            return None;
        }
        let rest: Vec<i64> = to[pick.axis + 1..].iter().map(Dim::known).collect::<Option<_>>()?;
        let narrow = self.narrow(x, pick, depth)?;
        self.moved += 1;
        let shape: Vec<i64> = std::iter::repeat_n(0, pick.axis + 1).chain(rest).collect();
        let mut b = Builder::new(self.graph, format!("hoist/{}/", node.name));
        let shape = b.ints(&shape);
        Some(b.op_with("Reshape", &[narrow, shape], &[("allowzero", Attr::Int(0))]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::{DType, Tensor};

    fn two_layers() -> Graph {
        let mut g = Graph::new("g", 20);
        let x = g.add_input("x", DType::F32, vec![Dim::from("b"), Dim::from("s"), Dim::from(4)]);
        let mut b = Builder::new(&mut g, "");
        let w = b.constant(Tensor::new([4, 4], &[0.5f32; 16]).unwrap());
        let bias = b.constant(Tensor::vector(&[1f32; 4]));
        let h = b.op("MatMul", &[x, w]);
        let h = b.op("Add", &[h, bias]);
        let h = b.op("Gelu", &[h]);
        let h = b.op("Add", &[h, x]);
        let zero = b.scalar(0i64);
        let y = b.op_with("Gather", &[h, zero], &[("axis", Attr::Int(1))]);
        g.outputs = vec![y];
        g
    }

    #[test]
    fn one_token_is_taken_before_the_layer_is_computed() {
        let mut g = two_layers();
        assert_eq!(hoist(&mut g), 4);
        let shapes: Vec<String> =
            g.nodes.iter().map(|n| crate::dim::show(g.shape(n.output(0).unwrap()).unwrap())).collect();
        assert!(g.nodes.iter().all(|n| !n.is("Gather")));
        assert!(g.nodes.iter().filter(|n| n.is("MatMul") || n.is("Gelu")).count() == 2);
        assert!(shapes.iter().all(|s| s == "[b, 1, 4]" || s == "[b, 4]"), "{shapes:?}");
    }

    #[test]
    fn a_value_that_is_read_elsewhere_is_not_computed_twice() {
        let mut g = two_layers();
        let full = g.nodes[3].output(0).unwrap();
        g.outputs.push(full);
        let before = g.nodes.len();
        assert_eq!(hoist(&mut g), 0);
        assert_eq!(g.nodes.len(), before);
    }
}
