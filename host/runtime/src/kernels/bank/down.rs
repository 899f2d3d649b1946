//! Products of positions with rows of a bank, down to a low rank: dot products.

use super::super::simd::{Eight, ask_for, fma};
use super::super::sixteen::Sixteen;
use super::tiles::{BLOCK, Rows};

/// Products of `2·Q` positions of `x` with `J` rows from number `from` on, for as many such groups as there are. Gives
/// the number of the first row that is left. `NEW` where the rows were not read yet: those behind are asked for meanwhile.
#[inline(always)]
fn dots<V: Sixteen, const Q: usize, const J: usize, const NEW: bool>(
    x: &[f32],
    w: Rows<'_>,
    mut from: usize,
    out: &mut [[f32; BLOCK]],
) -> usize {
    let (n, k) = (w.width / 8, w.width);
    while from + J <= w.rows.len() {
        let (mut x8, mut w8) = ([[&[][..]; 2]; Q], [&[][..]; J]);
        for q in 0..Q {
            for half in 0..2 {
                x8[q][half] = &x[(2 * q + half) * k..][..k].as_chunks::<8>().0[..n];
            }
        }
        for (j, w8) in w8.iter_mut().enumerate() {
            *w8 = &w.get(from + j).as_chunks::<8>().0[..n];
        }
        let soon: [*const f32; J] =
            std::array::from_fn(|j| w.get((from + J + j).min(w.rows.len() - 1)).as_ptr());
        let mut sums = [[V::splat(0.0); J]; Q];
        for i in 0..n {
            if NEW && i % 2 == 0 {
                soon.iter().for_each(|row| ask_for(row.wrapping_add(8 * i)));
            }
            let mut row = [V::splat(0.0); J];
            for j in 0..J {
                row[j] = V::twice(&w8[j][i]);
            }
            for q in 0..Q {
                let v = V::pair(&x8[q][0][i], &x8[q][1][i]);
                for j in 0..J {
                    sums[q][j] = v.mul_add(row[j], sums[q][j]);
                }
            }
        }
        for j in 0..J {
            for q in 0..Q {
                let [low, high] = sums[q][j].halves();
                (out[from + j][2 * q], out[from + j][2 * q + 1]) = (low.total(), high.total());
            }
        }
        from += J;
    }
    from
}

/// The same of a position alone.
#[inline(always)]
fn dots_alone<V: Eight, const J: usize>(
    x: &[f32],
    w: Rows<'_>,
    mut from: usize,
    out: &mut [[f32; BLOCK]],
) -> usize {
    let n = w.width / 8;
    let x8 = x[..w.width].as_chunks::<8>().0;
    while from + J <= w.rows.len() {
        let mut w8 = [&[][..]; J];
        for (j, w8) in w8.iter_mut().enumerate() {
            *w8 = &w.get(from + j).as_chunks::<8>().0[..n];
        }
        let mut sums = [V::splat(0.0); J];
        for i in 0..n {
            let v = V::load(&x8[i], 0);
            for j in 0..J {
                sums[j] = v.mul_add(V::load(&w8[j][i], 0), sums[j]);
            }
        }
        for j in 0..J {
            out[from + j][0] = sums[j].total();
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
    new: bool,
    out: &mut [[f32; BLOCK]],
) {
    // As many sums as leave registers for what they are made of.
    if V::ONE && positions == 8 {
        let at = if new { dots::<V, 4, 4, true>(x, w, 0, out) } else { dots::<V, 4, 4, false>(x, w, 0, out) };
        let at = dots::<V, 4, 2, false>(x, w, at, out);
        dots::<V, 4, 1, false>(x, w, at, out);
    } else if positions == 4 {
        let at = dots::<V, 2, 3, false>(x, w, 0, out);
        let at = dots::<V, 2, 2, false>(x, w, at, out);
        dots::<V, 2, 1, false>(x, w, at, out);
    } else {
        let at = dots_alone::<V::Half, 8>(x, w, 0, out);
        let at = dots_alone::<V::Half, 4>(x, w, at, out);
        dots_alone::<V::Half, 1>(x, w, at, out);
    }
    // What is left behind the last eight.
    let done = w.width / 8 * 8;
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
