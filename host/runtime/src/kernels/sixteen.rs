//! Sixteen numbers: two of [`Eight`], or one register of AVX-512, to the same bits.

use super::simd::Eight;

/// Sixteen numbers, in two halves.
pub(crate) trait Sixteen: Copy {
    /// Eight of them.
    type Half: Eight;
    /// Whether they take one register, of 32 there are, rather than two of 16.
    const ONE: bool;
    fn splat(v: f32) -> Self;
    fn load(from: &[f32; 16]) -> Self;
    fn add(self, other: Self) -> Self;
    /// `self · b + c`.
    fn mul_add(self, b: Self, c: Self) -> Self;
    /// Each one's sum: its halves' sum, and that in the order of [`Eight::total`].
    fn totals(of: &[Self; 16]) -> Self;
    fn store(self, to: &mut [f32; 16]);
}

/// Two registers of eight.
#[derive(Clone, Copy)]
pub(crate) struct Two<V>(V, V);

impl<V: Eight> Sixteen for Two<V> {
    type Half = V;
    const ONE: bool = false;

    #[inline(always)]
    fn splat(v: f32) -> Two<V> {
        Two(V::splat(v), V::splat(v))
    }
    #[inline(always)]
    fn load(from: &[f32; 16]) -> Two<V> {
        Two(V::load(from, 0), V::load(from, 8))
    }
    #[inline(always)]
    fn add(self, o: Two<V>) -> Two<V> {
        Two(self.0.add(o.0), self.1.add(o.1))
    }
    #[inline(always)]
    fn mul_add(self, b: Two<V>, c: Two<V>) -> Two<V> {
        Two(self.0.mul_add(b.0, c.0), self.1.mul_add(b.1, c.1))
    }
    #[inline(always)]
    fn totals(of: &[Two<V>; 16]) -> Two<V> {
        let mut all = [0.0; 16];
        for (all, sums) in all.iter_mut().zip(of) {
            *all = sums.0.add(sums.1).total();
        }
        Two::load(&all)
    }
    #[inline(always)]
    fn store(self, to: &mut [f32; 16]) {
        let (low, high) = to.split_at_mut(8);
        low.copy_from_slice(&self.0.lanes());
        high.copy_from_slice(&self.1.lanes());
    }
}

#[cfg(target_arch = "x86_64")]
mod wide {
    use std::arch::x86_64::*;

    use super::Sixteen;
    use crate::kernels::simd::Avx;

    /// A register of AVX-512. Only made by [`vectorised`](super::super::simd::vectorised), once the processor is known
    /// to have AVX-512 with its usual extensions: that is what makes every `unsafe` block here sound.
    #[derive(Clone, Copy)]
    pub(crate) struct Wide(__m512);

    impl Sixteen for Wide {
        type Half = Avx;
        const ONE: bool = true;

        #[inline(always)]
        fn splat(v: f32) -> Wide {
            // SAFETY: see the type.
            Wide(unsafe { _mm512_set1_ps(v) })
        }
        #[inline(always)]
        fn load(from: &[f32; 16]) -> Wide {
            // SAFETY: see the type; the array holds sixteen numbers.
            Wide(unsafe { _mm512_loadu_ps(from.as_ptr()) })
        }
        #[inline(always)]
        fn add(self, o: Wide) -> Wide {
            // SAFETY: see the type.
            Wide(unsafe { _mm512_add_ps(self.0, o.0) })
        }
        #[inline(always)]
        fn mul_add(self, b: Wide, c: Wide) -> Wide {
            // SAFETY: see the type.
            Wide(unsafe { _mm512_fmadd_ps(self.0, b.0, c.0) })
        }
        /// All at once: a step adds what is left of two, and leaves half as many registers.
        #[inline(always)]
        fn totals(of: &[Wide; 16]) -> Wide {
            // SAFETY: see the type.
            unsafe {
                // Loops, as closures are not inlined before their instructions would have to be.
                let (mut eights, mut fours, mut twos) =
                    ([_mm512_setzero_ps(); 8], [_mm512_setzero_ps(); 4], [_mm512_setzero_ps(); 2]);
                for i in 0..8 {
                    let (a, b) = (of[i / 4 * 8 + i % 4].0, of[i / 4 * 8 + i % 4 + 4].0);
                    let low = _mm512_shuffle_f32x4::<0b01_00_01_00>(a, b);
                    eights[i] = _mm512_add_ps(low, _mm512_shuffle_f32x4::<0b11_10_11_10>(a, b));
                }
                for i in 0..4 {
                    let (a, b) = (eights[i], eights[i + 4]);
                    let low = _mm512_shuffle_f32x4::<0b10_00_10_00>(a, b);
                    fours[i] = _mm512_add_ps(low, _mm512_shuffle_f32x4::<0b11_01_11_01>(a, b));
                }
                for i in 0..2 {
                    let (a, b) = (_mm512_castps_pd(fours[2 * i]), _mm512_castps_pd(fours[2 * i + 1]));
                    let (low, high) = (_mm512_unpacklo_pd(a, b), _mm512_unpackhi_pd(a, b));
                    twos[i] = _mm512_add_ps(_mm512_castpd_ps(low), _mm512_castpd_ps(high));
                }
                let even = _mm512_shuffle_ps::<0b10_00_10_00>(twos[0], twos[1]);
                Wide(_mm512_add_ps(even, _mm512_shuffle_ps::<0b11_01_11_01>(twos[0], twos[1])))
            }
        }
        #[inline(always)]
        fn store(self, to: &mut [f32; 16]) {
            // SAFETY: see the type; the array has room for sixteen numbers.
            unsafe { _mm512_storeu_ps(to.as_mut_ptr(), self.0) };
        }
    }
}
#[cfg(target_arch = "x86_64")]
pub(crate) use wide::Wide;

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::super::simd::{Avx, has_avx512};
    use super::*;

    #[inline(always)]
    fn totals<V: Sixteen>(of: &[[f32; 16]; 16]) -> [f32; 16] {
        let (mut sums, mut out) = ([V::splat(0.0); 16], [0.0; 16]);
        for (sums, of) in sums.iter_mut().zip(of) {
            *sums = V::load(of);
        }
        V::totals(&sums).store(&mut out);
        out
    }

    #[test]
    fn totals_all_at_once_have_the_bits_of_one_by_one() {
        #[target_feature(enable = "avx2,fma,avx512f,avx512vl,avx512bw,avx512dq")]
        fn one(of: &[[f32; 16]; 16]) -> [f32; 16] {
            totals::<Wide>(of)
        }
        #[target_feature(enable = "avx2,fma")]
        fn two(of: &[[f32; 16]; 16]) -> [f32; 16] {
            totals::<Two<Avx>>(of)
        }
        if !has_avx512() {
            return;
        }
        let number = |i: usize| ((i * i) as f32 * 0.37).sin() * 10f32.powi((i % 7) as i32);
        let of = std::array::from_fn(|k| std::array::from_fn(|i| number(16 * k + i)));
        // SAFETY: the processor has all features named.
        let (one, two) = unsafe { (one(&of), two(&of)) };
        assert_eq!(one.map(f32::to_bits), two.map(f32::to_bits));
        for (total, of) in one.iter().zip(&of) {
            let want: f64 = of.iter().map(|v| f64::from(*v)).sum();
            assert!((f64::from(*total) - want).abs() < 0.5, "{total}, not {want}");
        }
    }
}
