//! Cases of attention and rotary positions.

use graft_graph::Attr;
use graft_tests::Draw;
use graft_tests::differences::Tolerance::Close;
use graft_tests::differences::{Arg, Case};

use crate::{Row, case};

pub const CASES: &[Row] =
    &[("graft::Attention", Close, attention), ("graft::GuardedAttention", Close, attention)];

/// Queries, keys as the product takes them, values of another width, and a bias that broadcasts.
fn attention(op: &'static str, d: &mut Draw<'_>) -> Case {
    let lead: Vec<usize> = if d.flag() { vec![d.size(1..=2), d.size(1..=2)] } else { vec![d.size(1..=3)] };
    let [queries, keys, dim, width] = [d.size(1..=3), d.size(2..=4), d.size(1..=3), d.size(1..=3)];
    let shape = |last: [usize; 2]| lead.iter().copied().chain(last).collect::<Vec<_>>();
    let bias = d.narrowed(&shape([queries, keys]));
    let sides = [shape([queries, dim]), shape([dim, keys]), shape([keys, width]), bias];
    let args = sides.iter().map(|s| Arg::Float(d.reals(s, (-1.5, 1.5), &[]))).collect();
    let mut c = case(op, args, &[("scale", Attr::Float(0.5))]);
    c.outputs = 1 + usize::from(d.flag());
    c
}
