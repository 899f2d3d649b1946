//! Products with a few rows of a *bank*: a matrix `[rows, width]` that holds rows of many adapters. Its row 0 is the null
//! row, all zeros. Each row of a batch names the rows of the bank that it uses, padded with 0.

use crate::builder::Builder;
use crate::dim::Dim;
use crate::ir::{Attr, Attrs, Fact, Graph, Node, ValueId};

use super::{Fused, like};

/// `x·bank[rows]ᵀ`: x `[batch, positions, width]`, bank `[any, width]`, rows `[batch, rank]` i64, out
/// `[batch, positions, rank]`. A kernel may give zero for a null row where x is not finite.
pub(super) const DOWN: Fused = Fused {
    name: super::BANK_DOWN,
    inputs: &["x", "bank", "rows"],
    attributes: &[],
    facts: |g, n| product_facts(g, n, 2),
    body: |b, i| vec![down(b, i[0], i[1], i[2])],
};

/// `x·bank[rows]`: x `[batch, positions, rank]`, bank `[any, width]`, rows `[batch, rank]` i64, out
/// `[batch, positions, width]`. A kernel may leave out null rows where x is not finite.
pub(super) const UP: Fused = Fused {
    name: super::BANK_UP,
    inputs: &["x", "bank", "rows"],
    attributes: &[],
    facts: |g, n| product_facts(g, n, 1),
    body: |b, i| vec![up(b, i[0], i[1], i[2])],
};

/// `y + (scale·(x·a[rows_a]ᵀ))·b[rows_b]`, LoRA (Hu et al. 2021) with an adapter of its own for each row of the batch:
/// y `[batch, positions, out]`, x `[batch, positions, in]`, a `[any, in]`, rows_a `[batch, rank]` i64, b `[any, out]`,
/// rows_b `[batch, rank]` i64, scale `[batch]`; out like y. Pairs of which either row is null add nothing: a kernel gives
/// the bits of y where there is no other pair, the decomposition y + 0.
pub(super) const LOW_RANK: Fused = Fused {
    name: super::BANK_LOW_RANK,
    inputs: &["y", "x", "a", "rows_a", "b", "rows_b", "scale"],
    attributes: &[],
    facts: |g, n| like(g, n, 0),
    body: |b, i| vec![low_rank(b, i[0], i)],
};

/// `(y + bias) + …`, as [`LOW_RANK`] of that sum: bias `[out]`. A kernel gives the bits of `y + bias` where there is no pair.
pub(super) const LOW_RANK_BIAS: Fused = Fused {
    name: super::BANK_LOW_RANK_BIAS,
    inputs: BIASED,
    attributes: &[],
    facts: |g, n| like(g, n, 0),
    body: |b, i| vec![biased(b, i)],
};

/// `((y + bias) + …) + residual`, as [`LOW_RANK_BIAS`] and a sum with what went around the product: residual like y.
pub(super) const LOW_RANK_RESIDUAL: Fused = Fused {
    name: super::BANK_LOW_RANK_RESIDUAL,
    inputs: &["y", "x", "a", "rows_a", "b", "rows_b", "scale", "bias", "residual"],
    attributes: &[],
    facts: |g, n| like(g, n, 0),
    body: |b, i| {
        let sum = biased(b, i);
        vec![b.op("Add", &[sum, i[8]])]
    },
};

/// What [`LOW_RANK_BIAS`] gives, its columns cut into `heads` equal parts: out `[batch, heads, positions, out / heads]`.
pub(super) const LOW_RANK_HEADS: Fused = Fused {
    name: super::BANK_LOW_RANK_HEADS,
    inputs: BIASED,
    attributes: &["heads"],
    facts: heads_facts,
    body: |b, i| {
        let sum = biased(b, i);
        let reference = Attrs::from([("value_ints".to_string(), Attr::Reference("heads".into(), INTS))]);
        let heads = b.emit("Constant", "", &[], reference, 1)[0];
        let (kept, rest) = (b.ints(&[0, 0]), b.ints(&[-1]));
        let shape = b.op_with("Concat", &[kept, heads, rest], &[("axis", Attr::Int(0))]);
        let cut = b.op("Reshape", &[sum, shape]);
        vec![b.op_with("Transpose", &[cut], &[("perm", Attr::Ints(vec![0, 2, 1, 3]))])]
    },
};

const BIASED: &[&str] = &["y", "x", "a", "rows_a", "b", "rows_b", "scale", "bias"];
/// ONNX's number for attributes that are lists of integers.
const INTS: i32 = 7;

fn biased(b: &mut Builder<'_>, i: &[ValueId]) -> ValueId {
    let y = b.op("Add", &[i[0], i[7]]);
    low_rank(b, y, i)
}

fn heads_facts(graph: &Graph, node: &Node) -> Option<Vec<Fact>> {
    let y = node.input(0)?;
    let Some(Attr::Ints(heads)) = node.attrs.get("heads") else { return None };
    let shape = match (graph.shape(y).map(Vec::as_slice), &heads[..]) {
        (Some([batch, positions, width]), [heads]) => width
            .known()
            .filter(|w| *heads > 0 && w % heads == 0)
            .map(|w| vec![batch.clone(), Dim::from(*heads), positions.clone(), Dim::from(w / heads)]),
        _ => None,
    };
    Some(vec![Fact { dtype: graph.dtype(y), shape, elements: None }])
}

/// The update by inputs 1 to 6 added to `y`.
fn low_rank(b: &mut Builder<'_>, y: ValueId, i: &[ValueId]) -> ValueId {
    let h = down(b, i[1], i[2], i[3]);
    let axes = b.ints(&[1, 2]);
    let scale = b.op("Unsqueeze", &[i[6], axes]);
    let h = b.op("Mul", &[h, scale]);
    let change = up(b, h, i[4], i[5]);
    b.op("Add", &[y, change])
}

fn down(b: &mut Builder<'_>, x: ValueId, bank: ValueId, rows: ValueId) -> ValueId {
    let own = b.op("Gather", &[bank, rows]);
    let columns = b.op_with("Transpose", &[own], &[("perm", Attr::Ints(vec![0, 2, 1]))]);
    b.op("MatMul", &[x, columns])
}

fn up(b: &mut Builder<'_>, x: ValueId, bank: ValueId, rows: ValueId) -> ValueId {
    let own = b.op("Gather", &[bank, rows]);
    b.op("MatMul", &[x, own])
}

/// Batch and positions of the first input, and the second dimension of input `last`.
fn product_facts(graph: &Graph, node: &Node, last: usize) -> Option<Vec<Fact>> {
    let x = node.input(0)?;
    let shape = graph.shape(x).zip(graph.shape(node.input(last)?)).and_then(|(x, other)| {
        match (&x[..], &other[..]) {
            ([batch, positions, _], [_, last]) => Some([batch, positions, last].map(Dim::clone).to_vec()),
            _ => None,
        }
    });
    Some(vec![Fact { dtype: graph.dtype(x), shape, elements: None }])
}

#[cfg(test)]
mod tests {
    use super::super::*;
    use crate::tensor::Tensor;

    fn graph() -> (Graph, [ValueId; 4]) {
        let mut g = Graph::new("g", 20);
        let (batch, seq, rank) = (Dim::from("batch"), Dim::from("seq"), Dim::from("rank"));
        let x = g.add_input("x", DType::F32, vec![batch.clone(), seq, Dim::from(6)]);
        let rows = g.add_input("rows", DType::I64, vec![batch.clone(), rank]);
        let bank = g.add_input("bank", DType::F32, vec![Dim::from("bank"), Dim::from(6)]);
        let scale = g.add_input("scale", DType::F32, vec![batch]);
        (g, [x, rows, bank, scale])
    }

    #[test]
    fn facts_of_the_banks_products_are_those_of_their_decompositions() {
        let (mut g, [x, rows, bank, scale]) = graph();
        let mut b = Builder::new(&mut g, "");
        let h = emit(&mut b, BANK_DOWN, &[x, bank, rows], &[]);
        let up = emit(&mut b, BANK_UP, &[h, bank, rows], &[]);
        let y = emit(&mut b, BANK_LOW_RANK, &[x, x, bank, rows, bank, rows, scale], &[]);
        let bias = b.constant(Tensor::vector(&[0.5f32; 6]));
        let biased = emit(&mut b, BANK_LOW_RANK_BIAS, &[x, x, bank, rows, bank, rows, scale, bias], &[]);
        let around = [x, x, bank, rows, bank, rows, scale, bias, x];
        let around = emit(&mut b, BANK_LOW_RANK_RESIDUAL, &around, &[]);
        let two = [("heads", Attr::Ints(vec![2]))];
        let heads = emit(&mut b, BANK_LOW_RANK_HEADS, &[x, x, bank, rows, bank, rows, scale, bias], &two);
        g.outputs = vec![h, up, y, biased, around, heads];
        let shapes =
            |g: &Graph| g.outputs.iter().map(|v| (g.dtype(*v), g.shape(*v).cloned())).collect::<Vec<_>>();
        let found = shapes(&g);
        let size = |last: Dim| Some(vec![Dim::from("batch"), Dim::from("seq"), last]);
        let wide = (Some(DType::F32), size(Dim::from(6)));
        let cut = ["batch".into(), 2.into(), "seq".into(), 3.into()].to_vec();
        let narrow = (Some(DType::F32), size(Dim::from("rank")));
        let cut = (Some(DType::F32), Some(cut));
        assert_eq!(found, [narrow, wide.clone(), wide.clone(), wide.clone(), wide, cut]);

        crate::functions::inline(&mut g, &|_| true).unwrap();
        assert!(g.nodes.iter().all(|n| n.domain.is_empty()));
        for at in 0..g.nodes.len() {
            crate::shape::infer_at(&mut g, at);
        }
        assert_eq!(shapes(&g), found);
    }

    #[test]
    fn a_product_of_other_ranks_has_no_known_shape() {
        let (mut g, [x, rows, bank, _]) = graph();
        let mut b = Builder::new(&mut g, "");
        let flat = b.as_matrix(x);
        let h = emit(&mut b, BANK_DOWN, &[flat, bank, rows], &[]);
        assert_eq!((g.dtype(h), g.shape(h)), (Some(DType::F32), None));
    }
}
