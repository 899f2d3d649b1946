//! Cases of Einsum.

use std::collections::BTreeMap;

use graft_graph::Attr;
use graft_tests::Draw;
use graft_tests::differences::Tolerance::Exact;
use graft_tests::differences::{Arg, Case};

use crate::{Row, case};

pub const CASES: &[Row] = &[("Einsum", Exact, einsum)];

/// Products, sums, diagonals, outputs that are written out or not, letters that are summed alone, ellipses.
const EQUATIONS: &[&str] = &[
    "ij,jk->ik",
    "bhqd,bhkd->bhqk",
    "ij->ji",
    "ij->",
    "ij->i",
    "i,j->ij",
    "i,i->",
    "ij,jk,kl->il",
    "bi,oij,bj->bo",
    "ij,k->i",
    "ij,jk",
    "ba",
    " i j , j k -> k i ",
    "ii->i",
    "ii->",
    "iij,j->ji",
    "iji,ii->j",
    "iii->i",
    ",ij->ji",
    ",->",
    "Ab,bC->AC",
    "...ij,...jk->...ik",
    "...i,...i->...",
    "i...,...->...i",
    "...i,j...",
    "...ii->...i",
];

/// Some axes are of size one and stretch to what they meet in another operand.
fn einsum(op: &'static str, d: &mut Draw<'_>) -> Case {
    let equation = d.pick(EQUATIONS);
    let hidden = d.shape(0..=2);
    let stretched = d.below(3) == 2;
    let mut sizes: BTreeMap<char, usize> = BTreeMap::new();
    let inputs = equation.split("->").next().unwrap_or_default().replace(' ', "");
    let mut args = Vec::new();
    for term in inputs.split(',') {
        let mut ones: BTreeMap<char, bool> = BTreeMap::new();
        let mut shape = Vec::new();
        let (before, after) = term.split_once("...").unwrap_or((term, ""));
        let mut size = |d: &mut Draw<'_>, c: char| {
            let n = *sizes.entry(c).or_insert_with(|| d.size(1..=3));
            let one = *ones.entry(c).or_insert_with(|| stretched && d.below(4) == 3);
            if one { 1 } else { n }
        };
        before.chars().for_each(|c| shape.push(size(d, c)));
        if term.contains("...") {
            // ONNX Runtime wants an ellipsis to stand for as many axes everywhere.
            shape.extend(hidden.iter().map(|n| if d.below(4) == 3 { 1 } else { *n }));
        }
        after.chars().for_each(|c| shape.push(size(d, c)));
        args.push(Arg::Float(d.reals(&shape, (-2.0, 2.0), &[])));
    }
    case(op, args, &[("equation", Attr::from(equation))])
}
