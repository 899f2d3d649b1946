//! Random numbers that depend on their seed alone.

/// A stream of numbers derived from a purpose and a few integers: the extended output of BLAKE3 over them, read as
/// little-endian 64-bit words. It is the same on every platform and in every version of every crate.
pub(crate) struct Rng(blake3::OutputReader);

impl Rng {
    pub(crate) fn new(purpose: &str, keys: &[u64]) -> Rng {
        let mut hasher = blake3::Hasher::new_derive_key("graft data 2026 random order v1");
        hasher.update(&(purpose.len() as u64).to_le_bytes()).update(purpose.as_bytes());
        keys.iter().for_each(|k| {
            hasher.update(&k.to_le_bytes());
        });
        Rng(hasher.finalize_xof())
    }

    pub(crate) fn next(&mut self) -> u64 {
        let mut word = [0; 8];
        self.0.fill(&mut word);
        u64::from_le_bytes(word)
    }

    /// A number below `n` (0 if `n` is 0), without bias (Lemire, "Fast random integer generation in an interval",
    /// 2019).
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        if n == 0 {
            return 0;
        }
        let threshold = n.wrapping_neg() % n;
        loop {
            let wide = u128::from(self.next()) * u128::from(n);
            if wide as u64 >= threshold {
                return (wide >> 64) as u64;
            }
        }
    }

    /// Puts the items into a random order (Fisher–Yates).
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}
