//! Arithmetic that the compiler turns into vector instructions: written once over plain numbers, compiled for AVX2
//! with fused multiply-add, for AVX-512, and for whatever else there is.

/// `a · b + c`, rounded once where `V` does so, else twice.
#[inline(always)]
pub(crate) fn fma<V: Eight>(a: f32, b: f32, c: f32) -> f32 {
    if V::FMA { a.mul_add(b, c) } else { a * b + c }
}

/// `exp(v)` for `v` in [−87, 0], relative error below 2e-7; NaN stays NaN. Reduced by `v = n·ln 2 + r` and a
/// polynomial for `exp(r)` (its Taylor series to the seventh power, enough for |r| ≤ 0.347).
#[inline(always)]
pub(crate) fn exp<V: Eight>(v: f32) -> f32 {
    // Adding 1.5·2²³ rounds to a whole number and leaves it in the low bits.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts, the first exact when multiplied by small whole numbers.
    const LN2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    let shifted = fma::<V>(v, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = fma::<V>(n, -LN2[1], fma::<V>(n, -LN2[0], v));
    let mut p = 1.0 / 5040.0;
    for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = fma::<V>(p, r, c);
    }
    let scale = f32::from_bits(shifted.to_bits().wrapping_shl(23).wrapping_add(0x3f80_0000));
    p * scale
}

/// Eight numbers in one register, or in eight variables. Both add up to the same bits but for the rounding of
/// [`mul_add`](Self::mul_add).
pub(crate) trait Eight: Copy {
    /// Whether [`mul_add`](Self::mul_add) rounds once.
    const FMA: bool;
    fn splat(v: f32) -> Self;
    /// The eight numbers from `at` on.
    fn load(from: &[f32], at: usize) -> Self;
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    /// `self · b + c`.
    fn mul_add(self, b: Self, c: Self) -> Self;
    /// The eight numbers.
    fn lanes(self) -> [f32; 8];

    /// The sum, in a fixed order.
    #[inline(always)]
    fn total(self) -> f32 {
        let [a, b, c, d, e, f, g, h] = self.lanes();
        ((a + e) + (c + g)) + ((b + f) + (d + h))
    }
}

/// Eight variables: for processors without AVX2, and the measure for those with it.
#[derive(Clone, Copy)]
pub(crate) struct Plain([f32; 8]);

impl Eight for Plain {
    const FMA: bool = false;

    #[inline(always)]
    fn splat(v: f32) -> Plain {
        Plain([v; 8])
    }
    #[inline(always)]
    fn load(from: &[f32], at: usize) -> Plain {
        let from = &from[at..at + 8];
        Plain(std::array::from_fn(|i| from[i]))
    }
    #[inline(always)]
    fn add(self, o: Plain) -> Plain {
        Plain(std::array::from_fn(|i| self.0[i] + o.0[i]))
    }
    #[inline(always)]
    fn sub(self, o: Plain) -> Plain {
        Plain(std::array::from_fn(|i| self.0[i] - o.0[i]))
    }
    #[inline(always)]
    fn mul(self, o: Plain) -> Plain {
        Plain(std::array::from_fn(|i| self.0[i] * o.0[i]))
    }
    #[inline(always)]
    fn mul_add(self, b: Plain, c: Plain) -> Plain {
        Plain(std::array::from_fn(|i| self.0[i] * b.0[i] + c.0[i]))
    }
    #[inline(always)]
    fn lanes(self) -> [f32; 8] {
        self.0
    }
}

#[cfg(target_arch = "x86_64")]
mod avx {
    use std::arch::x86_64::*;

    use super::Eight;

    /// A register of AVX2. Only made by [`vectorised`](super::vectorised), once the processor is known to have AVX2
    /// and FMA: that is what makes every `unsafe` block here sound.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx(pub(in crate::kernels) __m256);

    impl Eight for Avx {
        const FMA: bool = true;

        #[inline(always)]
        fn splat(v: f32) -> Avx {
            // SAFETY: see the type.
            Avx(unsafe { _mm256_set1_ps(v) })
        }
        #[inline(always)]
        fn load(from: &[f32], at: usize) -> Avx {
            // SAFETY: see the type; the slice holds eight numbers.
            Avx(unsafe { _mm256_loadu_ps(from[at..at + 8].as_ptr()) })
        }
        #[inline(always)]
        fn add(self, o: Avx) -> Avx {
            // SAFETY: see the type.
            Avx(unsafe { _mm256_add_ps(self.0, o.0) })
        }
        #[inline(always)]
        fn sub(self, o: Avx) -> Avx {
            // SAFETY: see the type.
            Avx(unsafe { _mm256_sub_ps(self.0, o.0) })
        }
        #[inline(always)]
        fn mul(self, o: Avx) -> Avx {
            // SAFETY: see the type.
            Avx(unsafe { _mm256_mul_ps(self.0, o.0) })
        }
        #[inline(always)]
        fn mul_add(self, b: Avx, c: Avx) -> Avx {
            // SAFETY: see the type.
            Avx(unsafe { _mm256_fmadd_ps(self.0, b.0, c.0) })
        }
        #[inline(always)]
        fn lanes(self) -> [f32; 8] {
            let mut out = [0.0; 8];
            // SAFETY: see the type; the array has room for eight numbers.
            unsafe { _mm256_storeu_ps(out.as_mut_ptr(), self.0) };
            out
        }
        /// The same order as for any other: a step halves the number of sums.
        #[inline(always)]
        fn total(self) -> f32 {
            // SAFETY: see the type.
            unsafe {
                let four = _mm_add_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps::<1>(self.0));
                let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
                _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
            }
        }
    }
}
#[cfg(target_arch = "x86_64")]
pub(crate) use avx::Avx;

/// `K` sums over indices below `n` in one pass: `sums!(V, K, n, |i, [a, …]| eight, one)`, where `eight` is the sums with
/// the eight indices from `i` on added, as `[V; K]`, and `one` with index `i` alone, as `[f32; K]`. Gives `[f32; K]`.
///
/// A macro, as closures are not inlined before their instructions would have to be.
macro_rules! sums {
    ($v:ident, $k:literal, $n:expr, |$i:ident, $sums:pat_param| $eight:expr, $one:expr) => {{
        let n: usize = $n;
        let (mut even, mut odd, mut rest) = ([$v::splat(0.0); $k], [$v::splat(0.0); $k], [0f32; $k]);
        let mut $i = 0;
        // Two sums each, so that an addition need not wait for the one before.
        while $i + 16 <= n {
            let $sums = even;
            even = $eight;
            $i += 8;
            let $sums = odd;
            odd = $eight;
            $i += 8;
        }
        if $i + 8 <= n {
            let $sums = even;
            even = $eight;
            $i += 8;
        }
        while $i < n {
            let $sums = rest;
            rest = $one;
            $i += 1;
        }
        let mut all = [0f32; $k];
        for k in 0..$k {
            all[k] = even[k].add(odd[k]).total() + rest[k];
        }
        all
    }};
}
pub(crate) use sums;

/// Whether the processor has AVX-512 with its usual extensions.
#[cfg(target_arch = "x86_64")]
pub(crate) fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
}

/// Makes `pub(crate) fn $name(…)` that runs `$body::<Avx>` compiled for AVX2 and FMA (and AVX-512, with the same bits as
/// the result) where the processor has them, and `$body::<Plain>` elsewhere. With `sixteen` in front, bodies are over
/// [`Sixteen`](super::sixteen::Sixteen): AVX-512's registers, or two of either kind.
macro_rules! vectorised {
    (sixteen: $($rest:tt)*) => {
        $crate::kernels::simd::vectorised! {
            @[$crate::kernels::sixteen::Wide]
            [$crate::kernels::sixteen::Two<$crate::kernels::simd::Avx>]
            [$crate::kernels::sixteen::Two<$crate::kernels::simd::Plain>]
            $($rest)*
        }
    };
    (@[$wider:ty] [$wide:ty] [$plain:ty] $(#[$doc:meta])* $name:ident = $body:ident($($arg:ident: $type:ty),* $(,)?)) => {
        $(#[$doc])*
        pub(crate) fn $name($($arg: $type),*) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma")]
                fn wide($($arg: $type),*) {
                    $body::<$wide>($($arg),*)
                }
                // The same instructions on more registers, and twice as wide where the compiler makes the vectors.
                #[target_feature(enable = "avx2,fma,avx512f,avx512vl,avx512bw,avx512dq")]
                fn wider($($arg: $type),*) {
                    $body::<$wider>($($arg),*)
                }
                if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                    if $crate::kernels::simd::has_avx512() {
                        // SAFETY: the processor has all features named.
                        return unsafe { wider($($arg),*) };
                    }
                    // SAFETY: the processor has both features.
                    return unsafe { wide($($arg),*) };
                }
            }
            $body::<$plain>($($arg),*)
        }
    };
    ($($rest:tt)*) => {
        $crate::kernels::simd::vectorised! {
            @[$crate::kernels::simd::Avx] [$crate::kernels::simd::Avx] [$crate::kernels::simd::Plain] $($rest)*
        }
    };
}
pub(crate) use vectorised;

/// The cache that numbers are asked into.
#[derive(Clone, Copy)]
pub(crate) enum Cache {
    /// For what will be read soon.
    Nearest,
    /// For what is read later.
    Next,
}

/// Asks for the line of the cache that holds a number, which will be read; of a place that holds none, nothing comes.
#[inline(always)]
pub(crate) fn ask_for(place: *const f32, into: Cache) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};
        // SAFETY: every x86-64 processor has it; it reads nothing that a program could see, and fails nowhere.
        unsafe {
            match into {
                Cache::Nearest => _mm_prefetch::<_MM_HINT_T0>(place.cast()),
                Cache::Next => _mm_prefetch::<_MM_HINT_T1>(place.cast()),
            }
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (place, into);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_arch = "x86_64")]
    type Best = Avx;
    #[cfg(not(target_arch = "x86_64"))]
    type Best = Plain;

    #[test]
    fn exp_is_right_over_its_range() {
        for i in 0..=87_000 {
            let v = -(i as f32) / 1000.0;
            let want = f64::from(v).exp();
            for got in [exp::<Best>(v), exp::<Plain>(v)] {
                assert!((f64::from(got) - want).abs() <= 2e-7 * want, "exp({v}) = {got}, not {want}");
            }
        }
        assert!(exp::<Plain>(f32::NAN).is_nan());
    }

    fn count_and_index<V: Eight>(n: usize) -> [f32; 2] {
        let ramp: Vec<f32> = (0..n).map(|i| i as f32).collect();
        sums!(
            V,
            2,
            n,
            |i, [c, s]| [V::splat(1.0).add(c), V::load(&ramp, i).mul_add(V::splat(1.0), s)],
            [c + 1.0, s + ramp[i]]
        )
    }

    #[test]
    fn a_total_has_the_same_bits_in_a_register() {
        let of: Vec<f32> = (0..80).map(|i| ((i * i) as f32 * 0.37).sin() * 10f32.powi(i % 7)).collect();
        for at in 0..72 {
            let (best, plain) = (Best::load(&of, at).total(), Plain::load(&of, at).total());
            assert_eq!(best.to_bits(), plain.to_bits());
        }
    }

    #[test]
    fn sums_cover_every_index_once() {
        for n in [0usize, 1, 7, 8, 9, 15, 16, 17, 24, 31, 100] {
            let want = [n as f32, (n * n.saturating_sub(1) / 2) as f32];
            assert_eq!(count_and_index::<Plain>(n), want);
            #[cfg(target_arch = "x86_64")]
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                assert_eq!(count_and_index::<Avx>(n), want);
            }
        }
    }
}
