//! A product down, a scale and a product up, added to what was there, as one operator: no update is written out, and
//! neither are sums with a bias or a residual, nor what is to be cut into heads.

use crate::fused::{
    self, BANK_DOWN, BANK_LOW_RANK, BANK_LOW_RANK_BIAS, BANK_LOW_RANK_HEADS, BANK_LOW_RANK_RESIDUAL, BANK_UP,
};
use crate::ir::{Attr, GRAFT_DOMAIN, Graph, Node, ValueId};

/// Puts [`BANK_LOW_RANK`] wherever its decomposition stands. Nodes that are left over are dead.
pub(super) fn low_rank(graph: &mut Graph) {
    replace(graph, BANK_LOW_RANK, update);
}

/// Puts [`BANK_LOW_RANK_BIAS`] wherever [`BANK_LOW_RANK`] adds to a sum with a constant for each column. Nodes that are
/// left over are dead.
pub(super) fn bias(graph: &mut Graph) {
    replace(graph, BANK_LOW_RANK_BIAS, biased);
}

/// Puts [`BANK_LOW_RANK_RESIDUAL`] wherever what [`BANK_LOW_RANK_BIAS`] makes is added to a value of its shape. Nodes that are
/// left over are dead.
pub(super) fn residual(graph: &mut Graph) {
    replace(graph, BANK_LOW_RANK_RESIDUAL, around);
}

/// Puts [`BANK_LOW_RANK_HEADS`] wherever what [`BANK_LOW_RANK_BIAS`] makes is cut into heads that come before the positions.
/// Nodes that are left over are dead.
pub(super) fn heads(graph: &mut Graph) {
    let index = Index::new(graph);
    for at in 0..graph.nodes.len() {
        let Some(Cut { reshape, inputs, heads, columns_first }) = cut(graph, &index, at) else { continue };
        // Keys come with their columns before their positions: that is left to the transposition.
        let place = if columns_first { reshape } else { at };
        put(graph, place, BANK_LOW_RANK_HEADS, &inputs);
        graph.nodes[place].attrs.insert("heads".into(), Attr::Ints(vec![heads]));
        if columns_first {
            crate::shape::infer_at(graph, place);
            graph.nodes[at].attrs.insert("perm".into(), Attr::Ints(vec![0, 1, 3, 2]));
        }
    }
}

/// Puts an operator wherever there are inputs for it.
fn replace<const N: usize>(
    graph: &mut Graph,
    op: &str,
    inputs: fn(&Graph, &Index, usize) -> Option<[ValueId; N]>,
) {
    let index = Index::new(graph);
    for at in 0..graph.nodes.len() {
        if let Some(inputs) = inputs(graph, &index, at) {
            put(graph, at, op, &inputs);
        }
    }
}

/// The inputs of the operator that could stand for the addition at `at`.
fn update(graph: &Graph, index: &Index, at: usize) -> Option<[ValueId; 7]> {
    let add = graph.nodes.get(at).filter(|n| n.is("Add"))?;
    let (y, change) = (add.input(0)?, add.input(1)?);
    let up = index.sole(graph, change, GRAFT_DOMAIN, BANK_UP)?;
    let scaled = index.sole(graph, up.input(0)?, "", "Mul")?;
    let down = index.sole(graph, scaled.input(0)?, GRAFT_DOMAIN, BANK_DOWN)?;
    let wide = index.maker(graph, scaled.input(1)?).filter(|n| n.is("Unsqueeze"))?;
    let axes = graph.constant(wide.input(1)?)?.to_i64s()?;
    let scale = wide.input(0).filter(|v| graph.inputs.contains(v) && axes == [1, 2])?;
    graph.shape(y).filter(|y| y.len() == 3)?;
    Some([y, down.input(0)?, down.input(1)?, down.input(2)?, up.input(1)?, up.input(2)?, scale])
}

/// The inputs of the operator that could stand for the one at `at` and the addition before it.
fn biased(graph: &Graph, index: &Index, at: usize) -> Option<[ValueId; 8]> {
    let node = graph.nodes.get(at).filter(|n| n.domain == GRAFT_DOMAIN && n.op == BANK_LOW_RANK)?;
    let [Some(sum), Some(x), Some(a), Some(rows_a), Some(b), Some(rows_b), Some(scale)] = node.inputs[..]
    else {
        return None;
    };
    let add = index.sole(graph, sum, "", "Add")?;
    let (left, right) = (add.input(0)?, add.input(1)?);
    let [y, bias] = [[left, right], [right, left]].into_iter().find(|[y, bias]| {
        let columns = graph.shape(*y).filter(|y| y.len() == 3).and_then(|y| y[2].known());
        let bias = graph.constant(*bias).map(|c| c.shape());
        matches!((columns, bias), (Some(n), Some([own])) if usize::try_from(n) == Ok(*own))
    })?;
    Some([y, x, a, rows_a, b, rows_b, scale, bias])
}

/// The inputs of the operator that could stand for the addition at `at` and the operator before it.
fn around(graph: &Graph, index: &Index, at: usize) -> Option<[ValueId; 9]> {
    let add = graph.nodes.get(at).filter(|n| n.is("Add"))?;
    let (left, right) = (add.input(0)?, add.input(1)?);
    [[left, right], [right, left]].into_iter().find_map(|[sum, residual]| {
        let inputs = eight(index.sole(graph, sum, GRAFT_DOMAIN, BANK_LOW_RANK_BIAS)?)?;
        let alike = graph.shape(sum).is_some() && graph.shape(sum) == graph.shape(residual);
        let [y, x, a, rows_a, b, rows_b, scale, bias] = inputs;
        (alike && sum != residual).then_some([y, x, a, rows_a, b, rows_b, scale, bias, residual])
    })
}

fn eight(node: &Node) -> Option<[ValueId; 8]> {
    node.inputs.iter().copied().collect::<Option<Vec<_>>>()?.try_into().ok()
}

/// A product that is cut into heads.
struct Cut {
    /// Where the node is that cuts.
    reshape: usize,
    inputs: [ValueId; 8],
    heads: i64,
    /// Whether a head's columns come before its positions.
    columns_first: bool,
}

/// The cut that the transposition at `at` ends.
fn cut(graph: &Graph, index: &Index, at: usize) -> Option<Cut> {
    let transposed = graph.nodes.get(at).filter(|n| n.is("Transpose"))?;
    let Some(Attr::Ints(perm)) = transposed.attrs.get("perm") else { return None };
    let columns_first = match perm[..] {
        [0, 2, 1, 3] => false,
        [0, 2, 3, 1] => true,
        _ => return None,
    };
    let parts = transposed.input(0)?;
    let reshape = index.sole(graph, parts, "", "Reshape")?;
    let made = reshape.input(0)?;
    let inputs = eight(index.sole(graph, made, GRAFT_DOMAIN, BANK_LOW_RANK_BIAS)?)?;
    let [batch, positions, width] = &graph.shape(made)?[..] else { return None };
    let [b, p, heads, columns] = &graph.shape(parts)?[..] else { return None };
    let (heads, columns) = (heads.known()?, columns.known()?);
    let fits = b == batch && p == positions && heads > 0 && heads.checked_mul(columns) == width.known();
    let reshape = (*index.producers.get(parts.index())?)?;
    fits.then_some(Cut { reshape, inputs, heads, columns_first })
}

/// Puts an operator in the place of the node at `at`, whose value it makes.
fn put(graph: &mut Graph, at: usize, op: &str, inputs: &[ValueId]) {
    if let Some(f) = fused::find(GRAFT_DOMAIN, op) {
        fused::declare(graph, f);
    }
    let node = &mut graph.nodes[at];
    (node.op, node.domain) = (op.into(), GRAFT_DOMAIN.into());
    node.inputs = inputs.iter().copied().map(Some).collect();
    node.attrs.clear();
}

/// Which node makes a value, and how often each is read. It stays true of values from before a pass: that only puts
/// nodes in places of others that make the same values, and whose own operands nothing else reads.
struct Index {
    producers: Vec<Option<usize>>,
    readers: Vec<usize>,
}

impl Index {
    fn new(graph: &Graph) -> Index {
        let mut readers = vec![0; graph.value_count()];
        let read = graph.nodes.iter().flat_map(|n| n.inputs.iter().flatten());
        read.chain(&graph.outputs).for_each(|v| readers[v.index()] += 1);
        Index { producers: graph.producers(), readers }
    }

    /// The node that makes `v` as its first output.
    fn maker<'g>(&self, graph: &'g Graph, v: ValueId) -> Option<&'g Node> {
        graph.nodes.get((*self.producers.get(v.index())?)?).filter(|n| n.output(0) == Some(v))
    }

    /// The node of that operator that makes `v`, where nothing but one node reads it.
    fn sole<'g>(&self, graph: &'g Graph, v: ValueId, domain: &str, op: &str) -> Option<&'g Node> {
        let made = self.maker(graph, v).filter(|n| n.op == op && n.domain == domain)?;
        (self.readers.get(v.index()) == Some(&1)).then_some(made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builder::Builder;
    use crate::dim::Dim;
    use crate::tensor::{DType, Tensor};

    /// What `base` makes of `y`, and an update to it; `also` makes more outputs of the sum, the update, and `y + update`.
    fn graph(
        base: impl Fn(&mut Builder<'_>, ValueId) -> ValueId,
        also: impl Fn(&mut Builder<'_>, [ValueId; 3]) -> Vec<ValueId>,
    ) -> Graph {
        let mut g = Graph::new("g", 20);
        let of = |names: [&str; 2], last: usize| {
            names.iter().map(|d| Dim::from(*d)).chain([Dim::from(last)]).collect::<Vec<_>>()
        };
        let y = g.add_input("y", DType::F32, of(["batch", "seq"], 6));
        let x = g.add_input("x", DType::F32, of(["batch", "seq"], 4));
        let rows = g.add_input("rows", DType::I64, vec![Dim::from("batch"), Dim::from("rank")]);
        let a = g.add_input("a", DType::F32, vec![Dim::from("any"), Dim::from(4)]);
        let b = g.add_input("b", DType::F32, vec![Dim::from("any"), Dim::from(6)]);
        let scale = g.add_input("scale", DType::F32, vec![Dim::from("batch")]);
        let mut e = Builder::new(&mut g, "");
        let y = base(&mut e, y);
        let h = fused::emit(&mut e, BANK_DOWN, &[x, a, rows], &[]);
        let axes = e.ints(&[1, 2]);
        let wide = e.op("Unsqueeze", &[scale, axes]);
        let h = e.op("Mul", &[h, wide]);
        let change = fused::emit(&mut e, BANK_UP, &[h, b, rows], &[]);
        let sum = e.op("Add", &[y, change]);
        let out = e.op("Relu", &[sum]);
        let more = also(&mut e, [y, change, sum]);
        g.outputs = [vec![out], more].concat();
        g
    }

    fn none(_: &mut Builder<'_>, _: [ValueId; 3]) -> Vec<ValueId> {
        Vec::new()
    }

    fn plus(bias: Tensor, behind: bool) -> impl Fn(&mut Builder<'_>, ValueId) -> ValueId {
        move |b, y| {
            let bias = b.constant(bias.clone());
            b.op("Add", &if behind { [y, bias] } else { [bias, y] })
        }
    }

    /// Operators after both passes, but for the last.
    fn fused_ops(mut g: Graph) -> Vec<String> {
        low_rank(&mut g);
        bias(&mut g);
        g.remove_dead();
        g.sort().unwrap();
        let known: Vec<_> = g.functions.iter().map(|f| f.name.as_str()).collect();
        assert!(g.nodes.iter().all(|n| n.domain.is_empty() || known.contains(&n.op.as_str())));
        for n in g.nodes.iter().filter(|n| n.op.starts_with(BANK_LOW_RANK)) {
            let names: Vec<&str> = n.inputs.iter().flatten().map(|v| g.name_of(*v)).collect();
            assert_eq!(names[1..7], ["x", "a", "rows", "b", "rows", "scale"]);
            assert_eq!(n.inputs.len(), if n.op == BANK_LOW_RANK { 7 } else { 8 });
            if n.op == BANK_LOW_RANK_BIAS {
                assert_eq!(names[0], "y");
                assert!(g.constant(n.input(7).unwrap()).is_some());
            }
        }
        g.nodes.iter().map(|n| n.op.clone()).filter(|op| op != "Relu").collect()
    }

    #[test]
    fn an_update_becomes_one_operator_where_nothing_else_reads_what_it_is_made_of() {
        let whole = ["BankDown", "Unsqueeze", "Mul", "BankUp", "Add"];
        let same = |_: &mut Builder<'_>, y| y;
        assert_eq!(fused_ops(graph(same, none)), [BANK_LOW_RANK]);
        assert_eq!(fused_ops(graph(same, |_, [_, _, sum]| vec![sum])), [BANK_LOW_RANK]);
        assert_eq!(fused_ops(graph(same, |_, [_, change, _]| vec![change])), whole);
        assert_eq!(
            fused_ops(graph(same, |b, [_, change, _]| vec![b.op("Neg", &[change])])),
            [&whole[..], &["Neg"]].concat()
        );
        // y of other axes than the kernel takes.
        let flat = |b: &mut Builder<'_>, y| b.as_matrix(y);
        assert!(!fused_ops(graph(flat, none)).contains(&BANK_LOW_RANK.to_owned()));
    }

    #[test]
    fn a_bias_on_either_side_becomes_part_of_the_operator() {
        for behind in [false, true] {
            let g = graph(plus(Tensor::vector(&[0.5f32; 6]), behind), none);
            assert_eq!(fused_ops(g), [BANK_LOW_RANK_BIAS]);
        }
    }

    #[test]
    fn a_sum_that_is_read_elsewhere_stays() {
        let biased = || plus(Tensor::vector(&[0.5f32; 6]), true);
        let apart = ["Add", BANK_LOW_RANK];
        assert_eq!(fused_ops(graph(biased(), |_, [y, ..]| vec![y])), apart);
        let g = graph(biased(), |b, [y, ..]| vec![b.op("Neg", &[y])]);
        assert_eq!(fused_ops(g), ["Add", BANK_LOW_RANK, "Neg"]);
        // By the update's own product as well.
        let mut g = graph(biased(), none);
        let sum = g.nodes[0].output(0);
        let down = g.nodes.iter_mut().find(|n| n.op == BANK_DOWN).unwrap();
        down.inputs[0] = sum;
        low_rank(&mut g);
        bias(&mut g);
        g.remove_dead();
        assert_eq!(g.nodes.iter().map(|n| n.op.as_str()).collect::<Vec<_>>(), ["Add", BANK_LOW_RANK, "Relu"]);
    }

    #[test]
    fn what_is_added_and_is_no_constant_for_each_column_stays() {
        let apart = ["Add", BANK_LOW_RANK];
        for shape in [&[][..], &[1], &[1, 6], &[1, 1, 6], &[1, 1]] {
            let bias = Tensor::new(shape, &vec![0.5f32; shape.iter().product()]).unwrap();
            assert_eq!(fused_ops(graph(plus(bias, true), none)), apart, "{shape:?}");
        }
        assert_eq!(fused_ops(graph(|b, y| b.op("Add", &[y, y]), none)), apart);
        // One column to which a vector is added.
        let wider = |b: &mut Builder<'_>, y| {
            let axes = b.ints(&[2]);
            let one = b.op("ReduceSum", &[y, axes]);
            let bias = b.constant(Tensor::vector(&[0.5f32; 6]));
            b.op("Add", &[one, bias])
        };
        assert_eq!(fused_ops(graph(wider, none)), ["ReduceSum", "Add", BANK_LOW_RANK]);
    }

    /// Operators after all passes behind a product with a bias; `end` makes an output of it, and gets a value of its shape.
    fn ends(end: impl Fn(&mut Builder<'_>, [ValueId; 2]) -> Vec<ValueId>) -> (Graph, Vec<String>) {
        let mut g = graph(plus(Tensor::vector(&[0.5f32; 6]), true), none);
        let (sum, y) = (g.nodes.last().and_then(|n| n.input(0)).unwrap(), g.inputs[0]);
        g.nodes.pop();
        g.outputs = end(&mut Builder::new(&mut g, ""), [sum, y]);
        [low_rank, bias, residual, heads].iter().for_each(|pass| pass(&mut g));
        g.remove_dead();
        g.sort().unwrap();
        let known: Vec<_> = g.functions.iter().map(|f| f.name.as_str()).collect();
        assert!(g.nodes.iter().all(|n| n.domain.is_empty() || known.contains(&n.op.as_str())));
        let ops = g.nodes.iter().map(|n| n.op.clone()).collect();
        (g, ops)
    }

    #[test]
    fn a_sum_with_what_went_around_becomes_part_of_the_operator() {
        for first in [false, true] {
            let (g, ops) = ends(|b, [sum, y]| {
                let around = b.op("Neg", &[y]);
                vec![b.op("Add", &if first { [sum, around] } else { [around, sum] })]
            });
            assert_eq!(ops, ["Neg", BANK_LOW_RANK_RESIDUAL]);
            assert_eq!(g.nodes[1].input(8), g.nodes[0].output(0));
        }
        // What is read elsewhere, what is added to itself, and what is of another shape.
        let (_, ops) = ends(|b, [sum, y]| vec![b.op("Add", &[sum, y]), sum]);
        assert_eq!(ops, [BANK_LOW_RANK_BIAS, "Add"]);
        let (_, ops) = ends(|b, [sum, _]| vec![b.op("Add", &[sum, sum])]);
        assert_eq!(ops, [BANK_LOW_RANK_BIAS, "Add"]);
        let (_, ops) = ends(|b, [sum, _]| {
            let one = b.scalar(1.0);
            vec![b.op("Add", &[sum, one])]
        });
        assert_eq!(ops, [BANK_LOW_RANK_BIAS, "Add"]);
    }

    fn cut_into(b: &mut Builder<'_>, sum: ValueId, shape: &[i64], perm: &[i64]) -> Vec<ValueId> {
        let shape = b.ints(shape);
        let cut = b.op("Reshape", &[sum, shape]);
        vec![b.op_with("Transpose", &[cut], &[("perm", Attr::Ints(perm.to_vec()))])]
    }

    #[test]
    fn heads_are_cut_by_the_operator() {
        let (g, ops) = ends(|b, [sum, _]| cut_into(b, sum, &[0, 0, 3, 2], &[0, 2, 1, 3]));
        assert_eq!(ops, [BANK_LOW_RANK_HEADS]);
        let shape = |g: &Graph| g.shape(g.outputs[0]).cloned();
        let sizes = |last: [Dim; 2]| Some([vec!["batch".into(), 3.into()], last.to_vec()].concat());
        assert_eq!(shape(&g), sizes(["seq".into(), 2.into()]));
        // Keys: columns before positions.
        let (g, ops) = ends(|b, [sum, _]| cut_into(b, sum, &[0, 0, 3, 2], &[0, 2, 3, 1]));
        assert_eq!(ops, [BANK_LOW_RANK_HEADS, "Transpose"]);
        assert_eq!(shape(&g), sizes([2.into(), "seq".into()]));
        assert_eq!(g.nodes[1].attrs.get("perm"), Some(&Attr::Ints(vec![0, 1, 3, 2])));
        assert_eq!(g.shape(g.nodes[0].output(0).unwrap()).cloned(), sizes(["seq".into(), 2.into()]));
        // Other cuts, and other orders.
        let (_, ops) = ends(|b, [sum, _]| cut_into(b, sum, &[0, 3, -1, 2], &[0, 2, 1, 3]));
        assert_eq!(ops, [BANK_LOW_RANK_BIAS, "Reshape", "Transpose"]);
        let (_, ops) = ends(|b, [sum, _]| cut_into(b, sum, &[0, 0, 3, 2], &[1, 2, 0, 3]));
        assert_eq!(ops, [BANK_LOW_RANK_BIAS, "Reshape", "Transpose"]);
        let (_, ops) =
            ends(|b, [sum, _]| [cut_into(b, sum, &[0, 0, 3, 2], &[0, 2, 1, 3]), vec![sum]].concat());
        assert_eq!(ops, [BANK_LOW_RANK_BIAS, "Reshape", "Transpose"]);
    }
}
