//! The arithmetic of a bank's products. An element of a result is added up in an order that its own place alone fixes,
//! never by what is computed beside it: positions and rows of the bank are only taken together for speed.

use super::super::simd::{Cache, ask_for, vectorised};
use super::super::sixteen::Sixteen;
use super::ask::Ask;
use super::down::down;
pub(super) use super::up::Terms;
use super::up::{Onto, ahead, up};

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
    pub(super) fn get(&self, j: usize) -> &'a [f32] {
        &self.bank[self.rows[j] * self.width..][..self.width]
    }

    /// Where row `j` has column `column`; the last row's, where there is none.
    #[inline(always)]
    pub(super) fn place(&self, j: usize, column: usize) -> *const f32 {
        let row = self.rows[j.min(self.rows.len() - 1)];
        self.bank.as_ptr().wrapping_add(row * self.width + column)
    }

    /// Asks for the first columns of each row.
    #[inline(always)]
    pub(super) fn ask_for(&self, columns: usize) {
        for row in self.rows {
            let row = &self.bank[row * self.width..][..columns.min(self.width)];
            row.chunks(16).for_each(|line| ask_for(line.as_ptr(), Cache::Nearest));
        }
    }
}

/// How many of `left` positions come next.
#[inline(always)]
pub(super) fn step<V: Sixteen>(left: usize) -> usize {
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
        down::<V>(&x[at * w.width..], w, p, Ask::at(at, None), h);
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
        up::<V>(h, w, p, Ask::at(at, None), Onto::Nothing, out);
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

/// A low-rank adapter.
#[derive(Clone, Copy)]
pub(super) struct Update<'a> {
    pub a: Rows<'a>,
    pub b: Rows<'a>,
    pub scale: f32,
}

#[inline(always)]
fn low_rank_body<V: Sixteen>(
    terms: Terms<'_>,
    residual: Option<&[f32]>,
    x: &[f32],
    Update { a, b, scale }: Update<'_>,
    next: Option<[Rows<'_>; 2]>,
    h: &mut [[f32; BLOCK]],
    out: &mut [f32],
) {
    let (mut at, all) = (0, out.len() / b.width);
    b.ask_for(ahead(b.rows.len()));
    while at < all {
        let p = step::<V>(all - at);
        let then = next.filter(|_| at + p == all);
        down::<V>(&x[at * a.width..], a, p, Ask::at(at, then.map(|[a, _]| a)), h);
        for h in h.iter_mut() {
            for h in h {
                *h *= scale;
            }
        }
        let here = at * b.width..(at + p) * b.width;
        let out = &mut out[here.clone()];
        let y = terms.y.map(|y| &y[here.clone()]);
        up::<V>(h, b, p, Ask::at(at, then.map(|[_, b]| b)), Onto::Sum(Terms { y, ..terms }), out);
        // While it is in the nearest cache; among the sums above it would take registers that they need.
        if let Some(residual) = residual {
            out.iter_mut().zip(&residual[here]).for_each(|(out, residual)| *out += residual);
        }
        at += p;
    }
}

vectorised! {
    sixteen:
    /// `out[s] = (y[s] + bias) + Σ_j (scale · Σ_k x[s, k]·a[j, k])·b[j] + residual[s]`: x `[positions, a.width]`, y and out
    /// `[positions, b.width]`. `h` is scratch, one for each row. `next` has the rows of a and b that are used after this, one of
    /// each at least, if that is known.
    low_rank_rows = low_rank_body(
        terms: Terms<'_>,
        residual: Option<&[f32]>,
        x: &[f32],
        update: Update<'_>,
        next: Option<[Rows<'_>; 2]>,
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
        // Wider than what is summed up at a time, and not by whole registers.
        let (k, n, all) = (813, 130, 23);
        let numbers: Vec<usize> = (0..17).map(|j| 1 + j * 5 % all).collect();
        let (mut x, y) = (ramp(all * k, 0.7), ramp(all * n, 0.3));
        x.iter_mut().for_each(|v| *v /= 32.0);
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
        let bias = ramp(n, 0.2);
        want.chunks_mut(n).for_each(|row| row.iter_mut().zip(&bias).for_each(|(v, b)| *v += b));
        let terms = |y| Terms { y, bias: Some(&bias) };
        low_rank_rows(terms(Some(&y)), None, &x, Update { a, b, scale: 0.5 }, None, &mut h, &mut fast);
        low_rank_body::<Slow>(
            terms(Some(&y)),
            None,
            &x,
            Update { a, b, scale: 0.5 },
            None,
            &mut h,
            &mut slow,
        );
        // In its place, and asking for what comes next.
        let next = Some([a, b]);
        low_rank_rows(terms(None), None, &x, Update { a, b, scale: 0.5 }, next, &mut h, &mut there);
        assert!(close(&fast, &want) && close(&slow, &want));
        assert_eq!(fast, there);
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn one_register_and_two_give_the_same_bits() {
        #[target_feature(enable = "avx2,fma")]
        fn two(
            terms: Terms<'_>,
            x: &[f32],
            update: Update<'_>,
            next: Option<[Rows<'_>; 2]>,
            h: &mut [[f32; BLOCK]],
            out: &mut [f32],
        ) {
            low_rank_body::<Two<super::super::super::simd::Avx>>(terms, None, x, update, next, h, out);
        }
        if !is_x86_feature_detected!("avx2") || !is_x86_feature_detected!("fma") {
            return;
        }
        let numbers: Vec<usize> = (1..12).collect();
        let (x, a, b) = (ramp(21 * 829, 0.7), ramp(12 * 829, 1.1), ramp(12 * 75, 0.9));
        let a = Rows { bank: &a, width: 829, rows: &numbers };
        let b = Rows { bank: &b, width: 75, rows: &numbers };
        let mut h = vec![[0.0; BLOCK]; 11];
        let [mut best, mut other] = [vec![0.25; 21 * 75], vec![0.25; 21 * 75]];
        let bias = ramp(75, 0.2);
        let terms = Terms { y: None, bias: Some(&bias) };
        low_rank_rows(terms, None, &x, Update { a, b, scale: 0.7 }, None, &mut h, &mut best);
        // SAFETY: the processor has both features.
        unsafe { two(terms, &x, Update { a, b, scale: 0.7 }, None, &mut h, &mut other) };
        assert_eq!(best, other);
    }
}
