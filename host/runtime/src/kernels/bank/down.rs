//! Products of positions with rows of a bank, down to a low rank: dot products.

use std::ops::Range;

use super::super::simd::fma;
use super::super::sixteen::Sixteen;
use super::ask::Ask;
use super::tiles::{BLOCK, Rows};

/// Columns that are summed up at a time: those of eight positions stay in the nearest cache, whatever the width.
const COLUMNS: usize = 768;

/// Adds the products of `P` positions of `x`, from number `first` on, with `J` rows, from number `from` on, within these
/// columns, for as many such groups as there are; `P·J` is at most 16. Gives the number of the first row that is left.
#[inline(always)]
fn dots<V: Sixteen, const P: usize, const J: usize>(
    (x, first): (&[f32], usize),
    w: Rows<'_>,
    columns: &Range<usize>,
    mut from: usize,
    ask: Ask<'_>,
    out: &mut [[f32; BLOCK]],
) -> usize {
    let n = columns.len() / 16;
    let mut x16 = [&[][..]; P];
    for (p, x16) in x16.iter_mut().enumerate() {
        *x16 = &x[(first + p) * w.width..][columns.clone()].as_chunks::<16>().0[..n];
    }
    while from + J <= w.rows.len() {
        let mut w16 = [&[][..]; J];
        for (j, w16) in w16.iter_mut().enumerate() {
            *w16 = &w.get(from + j)[columns.clone()].as_chunks::<16>().0[..n];
        }
        let mut soon = [std::ptr::null(); J];
        for (j, soon) in soon.iter_mut().enumerate() {
            *soon = ask.place(w, (from + j, columns.start), (J, 0));
        }
        let mut sums = [V::splat(0.0); 16];
        for i in 0..n {
            soon.iter().for_each(|row| ask.ask(row.wrapping_add(16 * i)));
            let mut row = [V::splat(0.0); J];
            for j in 0..J {
                row[j] = V::load(&w16[j][i]);
            }
            for p in 0..P {
                let v = V::load(&x16[p][i]);
                for j in 0..J {
                    sums[j * P + p] = v.mul_add(row[j], sums[j * P + p]);
                }
            }
        }
        let mut totals = [0.0; 16];
        V::totals(&sums).store(&mut totals);
        for j in 0..J {
            for p in 0..P {
                out[from + j][first + p] += totals[j * P + p];
            }
        }
        from += J;
    }
    from
}

/// `out[j][p] = Σ x[p]·w[j]` for `positions` positions, as [`step`](super::tiles::step) gives them.
#[inline(always)]
pub(super) fn down<V: Sixteen>(
    x: &[f32],
    w: Rows<'_>,
    positions: usize,
    ask: Ask<'_>,
    out: &mut [[f32; BLOCK]],
) {
    out.fill([0.0; BLOCK]);
    for from in (0..w.width).step_by(COLUMNS) {
        let columns = from..(from + COLUMNS).min(w.width);
        // As many sums as leave registers for what they are made of.
        if V::ONE && positions == 8 {
            let at = dots::<V, 8, 2>((x, 0), w, &columns, 0, ask, out);
            dots::<V, 8, 1>((x, 0), w, &columns, at, Ask::Nothing, out);
        } else if V::ONE && positions == 4 {
            let at = dots::<V, 4, 4>((x, 0), w, &columns, 0, Ask::Nothing, out);
            dots::<V, 4, 1>((x, 0), w, &columns, at, Ask::Nothing, out);
        } else if positions == 4 {
            for first in [0, 2] {
                let at = dots::<V, 2, 3>((x, first), w, &columns, 0, Ask::Nothing, out);
                dots::<V, 2, 1>((x, first), w, &columns, at, Ask::Nothing, out);
            }
        } else {
            let at = dots::<V, 1, 4>((x, 0), w, &columns, 0, Ask::Nothing, out);
            dots::<V, 1, 1>((x, 0), w, &columns, at, Ask::Nothing, out);
        }
    }
    // What is left behind the last sixteen.
    let done = w.width / 16 * 16;
    if done < w.width {
        for (j, out) in out.iter_mut().enumerate() {
            for (x, out) in x.chunks_exact(w.width).zip(&mut out[..positions]) {
                let mut rest = 0.0;
                for (x, w) in x[done..].iter().zip(&w.get(j)[done..]) {
                    rest = fma::<V::Half>(*x, *w, rest);
                }
                *out += rest;
            }
        }
    }
}
