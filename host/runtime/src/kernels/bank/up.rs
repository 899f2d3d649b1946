//! Sums of rows of a bank, up from a low rank.

use super::super::simd::fma;
use super::super::sixteen::Sixteen;
use super::ask::Ask;
use super::tiles::{BLOCK, Rows};

/// What sums are added to.
#[derive(Clone, Copy)]
pub(super) enum Onto<'a> {
    Nothing,
    Sum(Terms<'a>),
}

/// What sums are added to, itself a sum.
#[derive(Clone, Copy)]
pub(super) struct Terms<'a> {
    /// What is there already, where it is not given.
    pub y: Option<&'a [f32]>,
    /// One for each column, added to `y` first.
    pub bias: Option<&'a [f32]>,
}

/// How many columns before it is needed a number is asked for: some hundred cycles, as long as memory takes.
#[inline(always)]
pub(super) fn ahead(rows: usize) -> usize {
    48 * (64 / rows.max(1) + 1)
}

/// Puts `Σ_j h[j][p]·w[j]` into `P` positions of `out`, `16·W` columns from `at` on, for as many such groups as there are.
/// Gives the first column that is left.
#[inline(always)]
fn add<V: Sixteen, const P: usize, const W: usize>(
    h: &[[f32; BLOCK]],
    w: Rows<'_>,
    mut at: usize,
    ask: Ask<'_>,
    onto: Onto<'_>,
    out: &mut [f32],
) -> usize {
    let n = w.width;
    let soon = ahead(w.rows.len());
    while at + 16 * W <= n {
        let mut sums = [[V::splat(0.0); W]; P];
        for (j, (row, h)) in w.rows.iter().zip(h).enumerate() {
            let (from, _) = w.bank[row * n + at..][..16 * W].as_chunks::<16>();
            let soon = ask.place(w, (j, at), (0, soon));
            (0..W).for_each(|c| ask.ask(soon.wrapping_add(16 * c)));
            let mut columns = [V::splat(0.0); W];
            for (column, from) in columns.iter_mut().zip(from) {
                *column = V::load(from);
            }
            for p in 0..P {
                let factor = V::splat(h[p]);
                for c in 0..W {
                    sums[p][c] = factor.mul_add(columns[c], sums[p][c]);
                }
            }
        }
        for p in 0..P {
            let (out, _) = out[p * n + at..][..16 * W].as_chunks_mut::<16>();
            if let Onto::Sum(Terms { y, bias }) = onto {
                let y = y.map_or(&*out, |y| y[p * n + at..][..16 * W].as_chunks::<16>().0);
                let mut terms = [V::splat(0.0); W];
                for c in 0..W {
                    terms[c] = V::load(&y[c]);
                }
                if let Some(bias) = bias {
                    let (bias, _) = bias[at..][..16 * W].as_chunks::<16>();
                    for c in 0..W {
                        terms[c] = terms[c].add(V::load(&bias[c]));
                    }
                }
                for c in 0..W {
                    sums[p][c] = terms[c].add(sums[p][c]);
                }
            }
            for c in 0..W {
                sums[p][c].store(&mut out[c]);
            }
        }
        at += 16 * W;
    }
    at
}

/// `out[p] = onto[p] + Σ_j h[j][p]·w[j]` for `positions` positions, as [`step`](super::tiles::step) gives them.
#[inline(always)]
pub(super) fn up<V: Sixteen>(
    h: &[[f32; BLOCK]],
    w: Rows<'_>,
    positions: usize,
    ask: Ask<'_>,
    onto: Onto<'_>,
    out: &mut [f32],
) {
    let n = w.width;
    let at = if V::ONE && positions == 8 {
        let at = add::<V, 8, 3>(h, w, 0, ask, onto, out);
        add::<V, 8, 1>(h, w, at, Ask::Nothing, onto, out)
    } else if positions == 4 {
        add::<V, 4, 1>(h, w, 0, Ask::Nothing, onto, out)
    } else {
        let at = add::<V, 1, 4>(h, w, 0, Ask::Nothing, onto, out);
        add::<V, 1, 1>(h, w, at, Ask::Nothing, onto, out)
    };
    for p in 0..positions {
        for c in at..n {
            let mut sum = 0.0;
            for (row, h) in w.rows.iter().zip(h) {
                sum = fma::<V::Half>(h[p], w.bank[row * n + c], sum);
            }
            let place = p * n + c;
            out[place] = match onto {
                Onto::Nothing => sum,
                Onto::Sum(Terms { y, bias }) => {
                    let y = y.map_or(out[place], |y| y[place]);
                    bias.map_or(y, |bias| y + bias[c]) + sum
                }
            };
        }
    }
}
