//! Numbers as PyTorch draws them on a CPU, where files count on them.

use rand_mt::Mt;

/// Bits of a random number that become a float of single precision.
const BITS: u32 = f32::MANTISSA_DIGITS;

/// What `torch.empty(count).uniform_(-bound, bound, generator=g)` gives, for `g = torch.Generator().manual_seed(seed)` that
/// gave `skip` numbers of this kind before. Of the seed PyTorch takes the lower 32 bits.
pub fn uniform(seed: u64, skip: u64, bound: f64, count: usize) -> Vec<f32> {
    let mut generator = Mt::new(seed as u32);
    for _ in 0..skip {
        generator.next_u32();
    }
    let (low, high) = (-bound as f32, bound as f32);
    let step = 1.0 / (1u32 << BITS) as f32;
    // In one rounding, as on processors with AVX2 or later; without it the last bit may differ in PyTorch too.
    let one = |x: u32| ((x & ((1 << BITS) - 1)) as f32 * step).mul_add(high - low, low);
    (0..count).map(|_| one(generator.next_u32())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bits of what `torch.empty(4, 32).uniform_(-0.4330127, 0.4330127)` began with after `manual_seed(7)`, and of what a
    /// second `torch.empty(40, 4).uniform_(-1.224744871391589, 1.224744871391589)` ended with (PyTorch 2.11).
    #[test]
    fn numbers_are_those_of_pytorch_to_the_last_bit() {
        let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        let first = uniform(7, 0, 0.4330127, 128);
        assert_eq!(bits(&first[..4]), [0x3cf7_c1dc, 0xbe85_8d5b, 0x3e0d_30c6, 0x3e0b_21c2]);
        let second = uniform(7, 128, 1.224744871391589, 160);
        assert_eq!(bits(&second[156..]), [0xbf7d_ba9d, 0xbb1d_23f9, 0xbf85_fc9c, 0xbf96_fe2f]);
    }

    #[test]
    fn of_a_seed_the_lower_half_counts() {
        assert_eq!(uniform(7 | 1 << 40, 3, 1.0, 5), uniform(7, 3, 1.0, 5));
        assert_ne!(uniform(8, 3, 1.0, 5), uniform(7, 3, 1.0, 5));
    }
}
