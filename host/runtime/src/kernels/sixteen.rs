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
    fn pair(low: &[f32; 8], high: &[f32; 8]) -> Self;
    /// Both halves alike.
    fn twice(from: &[f32; 8]) -> Self;
    fn add(self, other: Self) -> Self;
    /// `self · b + c`.
    fn mul_add(self, b: Self, c: Self) -> Self;
    fn halves(self) -> [Self::Half; 2];
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
    fn pair(low: &[f32; 8], high: &[f32; 8]) -> Two<V> {
        Two(V::load(low, 0), V::load(high, 0))
    }
    #[inline(always)]
    fn twice(from: &[f32; 8]) -> Two<V> {
        let half = V::load(from, 0);
        Two(half, half)
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
    fn halves(self) -> [V; 2] {
        [self.0, self.1]
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
        fn pair(low: &[f32; 8], high: &[f32; 8]) -> Wide {
            // SAFETY: see the type; the arrays hold eight numbers each.
            Wide(unsafe {
                let low = _mm512_castps256_ps512(_mm256_loadu_ps(low.as_ptr()));
                _mm512_insertf32x8::<1>(low, _mm256_loadu_ps(high.as_ptr()))
            })
        }
        #[inline(always)]
        fn twice(from: &[f32; 8]) -> Wide {
            // SAFETY: see the type; the array holds eight numbers.
            Wide(unsafe { _mm512_broadcast_f32x8(_mm256_loadu_ps(from.as_ptr())) })
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
        #[inline(always)]
        fn halves(self) -> [Avx; 2] {
            // SAFETY: see the type.
            unsafe { [_mm512_castps512_ps256(self.0), _mm512_extractf32x8_ps::<1>(self.0)].map(Avx) }
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
