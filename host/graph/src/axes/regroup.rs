//! Reshaping: which axes go into which.

use super::Step;
use super::state::{Affine, Axis, State, Tag};
use crate::dim::Dim;

/// Axes that are followed inside of one; a crafted graph could otherwise double them at every step.
const MAX_PARTS: usize = 16;

/// Follows the axes of `x` into `shape`, which has the same elements in the same order. Axes are cut where the sizes in
/// front of them multiply to the same for all sizes of the symbols; where what lies between two cuts is folded into one
/// axis it can be unfolded again.
pub(crate) fn regroup(step: &Step<'_>, x: &State, shape: &[Dim], out: &mut State) -> Option<()> {
    let axes = x.axes.as_deref()?;
    let parts: Vec<(usize, &Axis)> = axes
        .iter()
        .enumerate()
        .flat_map(|(k, a)| a.parts().iter().map(move |p| (k, p)))
        .filter(|(_, p)| !p.dim.is(1))
        .collect();
    let wide: Vec<usize> = (0..shape.len()).filter(|k| !shape[*k].is(1)).collect();
    let mut new: Vec<Axis> = shape.iter().map(Axis::same).collect();
    let mut of = vec![Dim::from(0); shape.len()];
    let mut affine = x.affine.as_ref();
    let (mut i, mut j) = (0, 0);
    while i < parts.len() || j < wide.len() {
        let (n, m) = next_cut(&parts[i..], &wide[j..], shape);
        let (from, to) = (&parts[i..i + n], &wide[j..j + m]);
        match (from, to) {
            ([(k, one)], [t]) => {
                new[*t] = Axis::new(one.tag.clone(), shape[*t].clone());
                match affine {
                    Some(a) if axes[*k].parts().len() == 1 => of[*t] = a.of.get(*k)?.clone(),
                    _ => affine = None,
                }
            }
            ([], _) | (_, []) => {
                affine = None;
                for (_, a) in from {
                    step.lose(out, a);
                }
                to.iter().for_each(|t| new[*t].tag = Tag::Own);
            }
            _ => {
                affine = None;
                let tag = match from.iter().all(|(_, a)| matches!(a.tag, Tag::Same)) {
                    true => Tag::Same,
                    false => Tag::Own,
                };
                let plain = from.iter().all(|(_, a)| matches!(a.tag, Tag::Same | Tag::Own));
                if let (false, [t], true) = (plain, to, from.len() <= MAX_PARTS) {
                    new[*t].tag = Tag::Merged(from.iter().map(|(_, a)| (*a).clone()).collect());
                } else {
                    for (_, a) in from {
                        step.lose(out, a);
                    }
                    to.iter().for_each(|t| new[*t].tag = tag.clone());
                }
            }
        }
        (i, j) = (i + n, j + m);
    }
    out.axes = Some(new);
    out.affine = affine.map(|a| Affine { of, plus: a.plus.clone() });
    (out.all, out.kept, out.diagonal) = (x.all, x.kept, x.diagonal);
    Some(())
}

/// How many of each side go to the next cut: the fewest with the same product, else all.
fn next_cut(parts: &[(usize, &Axis)], wide: &[usize], shape: &[Dim]) -> (usize, usize) {
    let mut left = Dim::from(1);
    for (n, (_, p)) in parts.iter().enumerate() {
        left = left.times(&p.dim);
        let mut right = Dim::from(1);
        for (m, k) in wide.iter().enumerate() {
            right = right.times(&shape[*k]);
            if left == right {
                return (n + 1, m + 1);
            }
        }
    }
    (parts.len(), wide.len())
}
