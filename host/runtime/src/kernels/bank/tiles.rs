//! The arithmetic of a bank's products. An element of a result is added up in an order that its own place alone fixes,
//! never by what is computed beside it: positions and rows of the bank are only taken together for speed.

use super::super::simd::{Eight, fma, vectorised};

/// Positions that are worked on together.
pub(super) const BLOCK: usize = 4;
/// Most bank rows, or registers of a row, that [`BLOCK`] positions meet at a time: sixteen registers hold all sums.
const WIDE: usize = 3;
/// The same for a position alone.
const TALL: usize = 8;

/// Rows of a bank that one row of a batch uses.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    /// The whole bank, `[any, width]`.
    pub bank: &'a [f32],
    /// Elements of a row.
    pub width: usize,
    /// Numbers of the rows, within the bank.
    pub rows: &'a [usize],
}

impl<'a> Rows<'a> {
    #[inline(always)]
    fn get(&self, j: usize) -> &'a [f32] {
        &self.bank[self.rows[j] * self.width..][..self.width]
    }
}

/// Products of `P` positions of `x` with `J` rows from number `from` on, for as many such groups as there are. Gives
/// the number of the first row that is left.
#[inline(always)]
fn dots<V: Eight, const P: usize, const J: usize>(
    x: &[f32],
    w: Rows<'_>,
    mut from: usize,
    out: &mut [[f32; BLOCK]],
) -> usize {
    let (n, k) = (w.width / 8, w.width);
    while from + J <= w.rows.len() {
        let (mut x8, mut w8) = ([&[][..]; P], [&[][..]; J]);
        let (mut x1, mut w1) = ([&[][..]; P], [&[][..]; J]);
        for p in 0..P {
            let (eights, rest) = x[p * k..][..k].as_chunks::<8>();
            (x8[p], x1[p]) = (&eights[..n], &rest[..k % 8]);
        }
        for j in 0..J {
            let (eights, rest) = w.get(from + j).as_chunks::<8>();
            (w8[j], w1[j]) = (&eights[..n], &rest[..k % 8]);
        }
        let (mut sums, mut rest) = ([[V::splat(0.0); J]; P], [[0f32; J]; P]);
        for i in 0..n {
            let mut row = [V::splat(0.0); J];
            for j in 0..J {
                row[j] = V::load(&w8[j][i], 0);
            }
            for p in 0..P {
                let v = V::load(&x8[p][i], 0);
                for j in 0..J {
                    sums[p][j] = v.mul_add(row[j], sums[p][j]);
                }
            }
        }
        for i in 0..k % 8 {
            for p in 0..P {
                for j in 0..J {
                    rest[p][j] = fma::<V>(x1[p][i], w1[j][i], rest[p][j]);
                }
            }
        }
        for j in 0..J {
            for p in 0..P {
                out[from + j][p] = sums[p][j].total() + rest[p][j];
            }
        }
        from += J;
    }
    from
}

/// `out[j][p] = Σ x[p]·w[j]` for `positions` positions, [`BLOCK`] or one.
#[inline(always)]
fn down<V: Eight>(x: &[f32], w: Rows<'_>, positions: usize, out: &mut [[f32; BLOCK]]) {
    if positions == BLOCK {
        let at = dots::<V, BLOCK, WIDE>(x, w, 0, out);
        let at = dots::<V, BLOCK, 2>(x, w, at, out);
        dots::<V, BLOCK, 1>(x, w, at, out);
    } else {
        let at = dots::<V, 1, TALL>(x, w, 0, out);
        let at = dots::<V, 1, 4>(x, w, at, out);
        dots::<V, 1, 1>(x, w, at, out);
    }
}

/// Adds `Σ_j h[j][p]·w[j]` to `P` positions of `out`, `8·W` columns from `at` on, for as many such groups as there are.
/// Gives the first column that is left.
#[inline(always)]
fn add<V: Eight, const P: usize, const W: usize>(
    h: &[[f32; BLOCK]],
    w: Rows<'_>,
    mut at: usize,
    out: &mut [f32],
) -> usize {
    let n = w.width;
    while at + 8 * W <= n {
        let mut sums = [[V::splat(0.0); W]; P];
        for (row, h) in w.rows.iter().zip(h) {
            let from = &w.bank[row * n + at..][..8 * W];
            let mut columns = [V::splat(0.0); W];
            for c in 0..W {
                columns[c] = V::load(from, 8 * c);
            }
            for p in 0..P {
                let factor = V::splat(h[p]);
                for c in 0..W {
                    sums[p][c] = factor.mul_add(columns[c], sums[p][c]);
                }
            }
        }
        for p in 0..P {
            let out = &mut out[p * n + at..][..8 * W];
            for c in 0..W {
                let sum = V::load(out, 8 * c).add(sums[p][c]).lanes();
                out[8 * c..][..8].copy_from_slice(&sum);
            }
        }
        at += 8 * W;
    }
    at
}

/// `out[p] += Σ_j h[j][p]·w[j]` for `positions` positions, [`BLOCK`] or one.
#[inline(always)]
fn up<V: Eight>(h: &[[f32; BLOCK]], w: Rows<'_>, positions: usize, out: &mut [f32]) {
    let n = w.width;
    let at = if positions == BLOCK {
        let at = add::<V, BLOCK, WIDE>(h, w, 0, out);
        add::<V, BLOCK, 1>(h, w, at, out)
    } else {
        let at = add::<V, 1, TALL>(h, w, 0, out);
        add::<V, 1, 1>(h, w, at, out)
    };
    for p in 0..positions {
        for c in at..n {
            let mut sum = 0.0;
            for (row, h) in w.rows.iter().zip(h) {
                sum = fma::<V>(h[p], w.bank[row * n + c], sum);
            }
            out[p * n + c] += sum;
        }
    }
}

/// How many of `left` positions come next.
#[inline(always)]
fn step(left: usize) -> usize {
    if left < BLOCK { 1 } else { BLOCK }
}

#[inline(always)]
fn down_body<V: Eight>(
    x: &[f32],
    w: Rows<'_>,
    places: &[usize],
    rank: usize,
    h: &mut [[f32; BLOCK]],
    out: &mut [f32],
) {
    let (mut at, all) = (0, out.len() / rank);
    while at < all {
        let p = step(all - at);
        let out = &mut out[at * rank..][..p * rank];
        down::<V>(&x[at * w.width..], w, p, h);
        out.fill(0.0);
        for (place, h) in places.iter().zip(&*h) {
            for (out, h) in out.chunks_exact_mut(rank).zip(h) {
                out[*place] = *h;
            }
        }
        at += p;
    }
}

vectorised! {
    /// `out[s, places[j]] = Σ_k x[s, k]·w[j, k]`, zero elsewhere: x `[positions, width]`, out `[positions, rank]`. `h` is
    /// scratch, one for each row of `w`.
    down_rows = down_body(
        x: &[f32], w: Rows<'_>, places: &[usize], rank: usize, h: &mut [[f32; BLOCK]], out: &mut [f32]
    )
}

#[inline(always)]
fn up_body<V: Eight>(
    x: &[f32],
    w: Rows<'_>,
    places: &[usize],
    rank: usize,
    h: &mut [[f32; BLOCK]],
    out: &mut [f32],
) {
    let (mut at, all) = (0, out.len() / w.width);
    while at < all {
        let p = step(all - at);
        let x = &x[at * rank..][..p * rank];
        for (place, h) in places.iter().zip(&mut *h) {
            for (x, h) in x.chunks_exact(rank).zip(h) {
                *h = x[*place];
            }
        }
        let out = &mut out[at * w.width..][..p * w.width];
        out.fill(0.0);
        up::<V>(h, w, p, out);
        at += p;
    }
}

vectorised! {
    /// `out[s] = Σ_j x[s, places[j]]·w[j]`: x `[positions, rank]`, out `[positions, width]`. `h` is scratch, one for each
    /// row of `w`.
    up_rows = up_body(
        x: &[f32], w: Rows<'_>, places: &[usize], rank: usize, h: &mut [[f32; BLOCK]], out: &mut [f32]
    )
}

#[inline(always)]
fn low_rank_body<V: Eight>(
    y: Option<&[f32]>,
    x: &[f32],
    a: Rows<'_>,
    b: Rows<'_>,
    scale: f32,
    h: &mut [[f32; BLOCK]],
    out: &mut [f32],
) {
    let (mut at, all) = (0, out.len() / b.width);
    while at < all {
        let p = step(all - at);
        down::<V>(&x[at * a.width..], a, p, h);
        for h in h.iter_mut() {
            for h in h {
                *h *= scale;
            }
        }
        let out = &mut out[at * b.width..][..p * b.width];
        if let Some(y) = y {
            out.copy_from_slice(&y[at * b.width..][..p * b.width]);
        }
        up::<V>(h, b, p, out);
        at += p;
    }
}

vectorised! {
    /// `out[s] = y[s] + Σ_j (scale · Σ_k x[s, k]·a[j, k])·b[j]`, y being in `out` already where it is not given: x
    /// `[positions, a.width]`, y and out `[positions, b.width]`. `h` is scratch, one for each row.
    low_rank_rows = low_rank_body(
        y: Option<&[f32]>,
        x: &[f32],
        a: Rows<'_>,
        b: Rows<'_>,
        scale: f32,
        h: &mut [[f32; BLOCK]],
        out: &mut [f32],
    )
}
