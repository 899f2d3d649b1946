//! The arithmetic of a bank's products. An element of a result is added up in an order that its own place alone fixes,
//! never by what is computed beside it: positions and rows of the bank are only taken together for speed.

use super::super::simd::{Eight, fma, vectorised};
use super::super::sixteen::Sixteen;

/// Most positions that are worked on together.
pub(super) const BLOCK: usize = 8;

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

/// Products of `2·Q` positions of `x` with `J` rows from number `from` on, for as many such groups as there are. Gives
/// the number of the first row that is left.
#[inline(always)]
fn dots<V: Sixteen, const Q: usize, const J: usize>(
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
        let mut sums = [[V::splat(0.0); J]; Q];
        for i in 0..n {
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

/// `out[j][p] = Σ x[p]·w[j]` for `positions` positions, as [`step`] gives them.
#[inline(always)]
fn down<V: Sixteen>(x: &[f32], w: Rows<'_>, positions: usize, out: &mut [[f32; BLOCK]]) {
    // As many sums as leave registers for what they are made of.
    if V::ONE && positions == 8 {
        let at = dots::<V, 4, 4>(x, w, 0, out);
        let at = dots::<V, 4, 2>(x, w, at, out);
        dots::<V, 4, 1>(x, w, at, out);
    } else if positions == 4 {
        let at = dots::<V, 2, 3>(x, w, 0, out);
        let at = dots::<V, 2, 2>(x, w, at, out);
        dots::<V, 2, 1>(x, w, at, out);
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

/// What sums are added to.
#[derive(Clone, Copy)]
enum Onto<'a> {
    Nothing,
    /// What is there already.
    Itself,
    Other(&'a [f32]),
}

/// Puts `Σ_j h[j][p]·w[j]` into `P` positions of `out`, `16·W` columns from `at` on, for as many such groups as there are.
/// Gives the first column that is left.
#[inline(always)]
fn add<V: Sixteen, const P: usize, const W: usize>(
    h: &[[f32; BLOCK]],
    w: Rows<'_>,
    mut at: usize,
    onto: Onto<'_>,
    out: &mut [f32],
) -> usize {
    let n = w.width;
    while at + 16 * W <= n {
        let mut sums = [[V::splat(0.0); W]; P];
        for (row, h) in w.rows.iter().zip(h) {
            let (from, _) = w.bank[row * n + at..][..16 * W].as_chunks::<16>();
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
            let other = match onto {
                Onto::Nothing => {
                    for c in 0..W {
                        sums[p][c].store(&mut out[c]);
                    }
                    continue;
                }
                Onto::Itself => &*out,
                Onto::Other(y) => y[p * n + at..][..16 * W].as_chunks::<16>().0,
            };
            for c in 0..W {
                sums[p][c] = V::load(&other[c]).add(sums[p][c]);
            }
            for c in 0..W {
                sums[p][c].store(&mut out[c]);
            }
        }
        at += 16 * W;
    }
    at
}

/// `out[p] = onto[p] + Σ_j h[j][p]·w[j]` for `positions` positions, as [`step`] gives them.
#[inline(always)]
fn up<V: Sixteen>(h: &[[f32; BLOCK]], w: Rows<'_>, positions: usize, onto: Onto<'_>, out: &mut [f32]) {
    let n = w.width;
    let at = if V::ONE && positions == 8 {
        let at = add::<V, 8, 3>(h, w, 0, onto, out);
        add::<V, 8, 1>(h, w, at, onto, out)
    } else if positions == 4 {
        add::<V, 4, 1>(h, w, 0, onto, out)
    } else {
        let at = add::<V, 1, 4>(h, w, 0, onto, out);
        add::<V, 1, 1>(h, w, at, onto, out)
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
                Onto::Itself => out[place] + sum,
                Onto::Other(y) => y[place] + sum,
            };
        }
    }
}

/// How many of `left` positions come next.
#[inline(always)]
fn step<V: Sixteen>(left: usize) -> usize {
    match left {
        8.. if V::ONE => 8,
        4.. => 4,
        _ => 1,
    }
}

#[inline(always)]
fn down_body<V: Sixteen>(
    x: &[f32],
    w: Rows<'_>,
    places: &[usize],
    rank: usize,
    h: &mut [[f32; BLOCK]],
    out: &mut [f32],
) {
    let (mut at, all) = (0, out.len() / rank);
    while at < all {
        let p = step::<V>(all - at);
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
    sixteen:
    /// `out[s, places[j]] = Σ_k x[s, k]·w[j, k]`, zero elsewhere: x `[positions, width]`, out `[positions, rank]`. `h` is
    /// scratch, one for each row of `w`.
    down_rows = down_body(
        x: &[f32], w: Rows<'_>, places: &[usize], rank: usize, h: &mut [[f32; BLOCK]], out: &mut [f32]
    )
}

#[inline(always)]
fn up_body<V: Sixteen>(
    x: &[f32],
    w: Rows<'_>,
    places: &[usize],
    rank: usize,
    h: &mut [[f32; BLOCK]],
    out: &mut [f32],
) {
    let (mut at, all) = (0, out.len() / w.width);
    while at < all {
        let p = step::<V>(all - at);
        let x = &x[at * rank..][..p * rank];
        for (place, h) in places.iter().zip(&mut *h) {
            for (x, h) in x.chunks_exact(rank).zip(h) {
                *h = x[*place];
            }
        }
        let out = &mut out[at * w.width..][..p * w.width];
        up::<V>(h, w, p, Onto::Nothing, out);
        at += p;
    }
}

vectorised! {
    sixteen:
    /// `out[s] = Σ_j x[s, places[j]]·w[j]`: x `[positions, rank]`, out `[positions, width]`. `h` is scratch, one for each
    /// row of `w`.
    up_rows = up_body(
        x: &[f32], w: Rows<'_>, places: &[usize], rank: usize, h: &mut [[f32; BLOCK]], out: &mut [f32]
    )
}

#[inline(always)]
fn low_rank_body<V: Sixteen>(
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
        let p = step::<V>(all - at);
        down::<V>(&x[at * a.width..], a, p, h);
        for h in h.iter_mut() {
            for h in h {
                *h *= scale;
            }
        }
        let out = &mut out[at * b.width..][..p * b.width];
        let onto = y.map_or(Onto::Itself, |y| Onto::Other(&y[at * b.width..][..p * b.width]));
        up::<V>(h, b, p, onto, out);
        at += p;
    }
}

vectorised! {
    sixteen:
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

#[cfg(test)]
mod tests {
    use super::super::super::simd::Plain;
    use super::super::super::sixteen::Two;
    use super::*;

    type Slow = Two<Plain>;

    fn ramp(count: usize, step: f32) -> Vec<f32> {
        (0..count).map(|i| (i as f32 * step).sin()).collect()
    }

    fn close(a: &[f32], b: &[f32]) -> bool {
        a.iter().zip(b).all(|(a, b)| (a - b).abs() < 2e-5)
    }

    #[test]
    fn the_fastest_registers_agree_with_none_and_with_the_definition() {
        let (k, n, all) = (45, 130, 23);
        let numbers: Vec<usize> = (0..17).map(|j| 1 + j * 5 % all).collect();
        let (x, y) = (ramp(all * k, 0.7), ramp(all * n, 0.3));
        let (a, b) = (ramp(24 * k, 1.1), ramp(24 * n, 0.9));
        let a = Rows { bank: &a, width: k, rows: &numbers };
        let b = Rows { bank: &b, width: n, rows: &numbers };
        let mut want = y.clone();
        for s in 0..all {
            for row in &numbers {
                let dot: f32 = (0..k).map(|i| x[s * k + i] * a.bank[row * k + i]).sum();
                (0..n).for_each(|i| want[s * n + i] += 0.5 * dot * b.bank[row * n + i]);
            }
        }
        let mut h = vec![[0.0; BLOCK]; 17];
        let [mut fast, mut slow, mut there] = [vec![0.0; all * n], vec![0.0; all * n], y.clone()];
        low_rank_rows(Some(&y), &x, a, b, 0.5, &mut h, &mut fast);
        low_rank_body::<Slow>(Some(&y), &x, a, b, 0.5, &mut h, &mut slow);
        low_rank_rows(None, &x, a, b, 0.5, &mut h, &mut there);
        assert!(close(&fast, &want) && close(&slow, &want));
        assert_eq!(fast, there);
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn one_register_and_two_give_the_same_bits() {
        #[target_feature(enable = "avx2,fma")]
        fn two(x: &[f32], a: Rows<'_>, b: Rows<'_>, h: &mut [[f32; BLOCK]], out: &mut [f32]) {
            low_rank_body::<Two<super::super::super::simd::Avx>>(None, x, a, b, 0.7, h, out);
        }
        if !is_x86_feature_detected!("avx2") || !is_x86_feature_detected!("fma") {
            return;
        }
        let numbers: Vec<usize> = (1..12).collect();
        let (x, a, b) = (ramp(21 * 61, 0.7), ramp(12 * 61, 1.1), ramp(12 * 75, 0.9));
        let a = Rows { bank: &a, width: 61, rows: &numbers };
        let b = Rows { bank: &b, width: 75, rows: &numbers };
        let mut h = vec![[0.0; BLOCK]; 11];
        let [mut best, mut other] = [vec![0.25; 21 * 75], vec![0.25; 21 * 75]];
        low_rank_rows(None, &x, a, b, 0.7, &mut h, &mut best);
        // SAFETY: the processor has both features.
        unsafe { two(&x, a, b, &mut h, &mut other) };
        assert_eq!(best, other);
    }
}
