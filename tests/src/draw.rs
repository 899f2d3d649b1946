//! Random cases out of a list of choices, so that a property test can shrink them: smaller choices give smaller
//! shapes and plainer attributes, and a list that ends early goes on with zeros.

use std::ops::RangeInclusive;

/// Numbers and their shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// Dimensions.
    pub shape: Vec<usize>,
    /// Elements, row-major.
    pub values: Vec<f64>,
}

/// Draws a case from choices.
#[derive(Debug)]
pub struct Draw<'a> {
    choices: std::slice::Iter<'a, u16>,
    state: u64,
}

impl<'a> Draw<'a> {
    /// Draws from `choices`, first to last.
    pub fn new(choices: &'a [u16]) -> Draw<'a> {
        let mix = |h: u64, c: &u16| (h ^ u64::from(*c)).wrapping_mul(0x0100_0000_01b3);
        Draw { choices: choices.iter(), state: choices.iter().fold(0xcbf2_9ce4_8422_2325, mix) | 1 }
    }

    /// A number below `n`; zero is the plainest.
    pub fn below(&mut self, n: usize) -> usize {
        usize::from(self.choices.next().copied().unwrap_or(0)) % n.max(1)
    }

    /// True or false; false is the plainer.
    pub fn flag(&mut self) -> bool {
        self.below(2) == 1
    }

    /// One of several; the first is the plainest.
    pub fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }

    /// A number in a range.
    pub fn size(&mut self, range: RangeInclusive<usize>) -> usize {
        range.start() + self.below(range.end() + 1 - range.start())
    }

    /// A shape whose rank is in `ranks`, of sizes 1 to 3.
    pub fn shape(&mut self, ranks: RangeInclusive<usize>) -> Vec<usize> {
        let rank = self.size(ranks);
        (0..rank).map(|_| self.size(1..=3)).collect()
    }

    /// A shape that broadcasts to `full`: leading axes may be missing, others may be 1.
    pub fn narrowed(&mut self, full: &[usize]) -> Vec<usize> {
        let from = if self.flag() { self.below(full.len() + 1) } else { 0 };
        full[from..].iter().map(|n| if self.below(3) == 2 { 1 } else { *n }).collect()
    }

    /// An axis of a value of that rank, as it is and as it is written: from the front or from the back.
    pub fn axis(&mut self, rank: usize) -> (usize, i64) {
        let axis = self.below(rank);
        (axis, self.written(axis, rank))
    }

    /// How `axis` is written: from the front or from the back.
    pub fn written(&mut self, axis: usize, rank: usize) -> i64 {
        if self.flag() { axis as i64 - rank as i64 } else { axis as i64 }
    }

    /// Some of the axes of a value of that rank, ascending; perhaps none.
    pub fn axes(&mut self, rank: usize) -> Vec<usize> {
        (0..rank).filter(|_| self.flag()).collect()
    }

    /// A number between `low` and `high`. It does not depend on how many choices were drawn before, only on their
    /// values.
    pub fn real(&mut self, low: f64, high: f64) -> f64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        low + (high - low) * ((self.state >> 11) as f64 / (1u64 << 53) as f64)
    }

    /// Numbers between `low` and `high`, none of them within 0.05 of one of `kinks`, where a derivative jumps.
    pub fn reals(&mut self, shape: &[usize], (low, high): (f64, f64), kinks: &[f64]) -> Array {
        let mut one = || loop {
            let x = self.real(low, high);
            if kinks.iter().all(|k| (x - k).abs() > 0.05) {
                return x;
            }
        };
        let values = (0..shape.iter().product()).map(|_| one()).collect();
        Array { shape: shape.to_vec(), values }
    }
}
