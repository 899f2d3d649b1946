//! Which rows meet in a batch.

use crate::error::DataError;
use crate::rng::Rng;

/// How rows are put into batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// Rows of similar length meet, so that little is padded. In each epoch the rows are sorted by length (ties in
    /// a random order), each is moved back by up to half a batch, and the batches that are cut from this are put
    /// into a random order. Moving the rows, and giving the short batch a random place among the lengths, keeps the
    /// same rows from meeting in every epoch where few rows have the same length.
    #[default]
    Grouped,
    /// Rows in a random order.
    Random,
    /// Rows in their order, the same in every epoch; for evaluation.
    InOrder,
}

/// The batches of one epoch: every row stands in exactly one of them. All but one are full; the rest is kept as a
/// short batch (last, or anywhere when grouped). A function of its arguments alone, the same on every platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batches {
    batches: Vec<Vec<usize>>,
    padding: Padding,
}

/// How much of the batches is padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Padding {
    /// Tokens of the rows.
    pub tokens: u64,
    /// Tokens of the batches when each is padded to its longest row.
    pub padded: u64,
}

impl Padding {
    /// The share of the batches that is padding, from 0 to 1.
    pub fn waste(&self) -> f64 {
        if self.padded == 0 { 0.0 } else { 1.0 - self.tokens as f64 / self.padded as f64 }
    }
}

impl Batches {
    /// Batches of `batch_size` rows whose lengths in tokens are `lengths`.
    ///
    /// # Errors
    /// [`DataError::BatchSize`] when `batch_size` is 0.
    pub fn new(
        lengths: &[usize],
        batch_size: usize,
        order: Order,
        seed: u64,
        epoch: u64,
    ) -> Result<Batches, DataError> {
        if batch_size == 0 {
            return Err(DataError::BatchSize);
        }
        let rows: Vec<usize> = match order {
            Order::InOrder => (0..lengths.len()).collect(),
            Order::Random => shuffled(lengths.len(), seed, epoch),
            Order::Grouped => by_length(lengths, batch_size, seed, epoch),
        };
        let cut =
            |rows: &[usize]| -> Vec<Vec<usize>> { rows.chunks(batch_size).map(<[usize]>::to_vec).collect() };
        let mut batches = cut(&rows);
        if order == Order::Grouped {
            let mut rng = Rng::new("batches", &[seed, epoch]);
            // The short batch may stand at any length: that moves the cuts behind it, at no cost.
            let full = rows.len() / batch_size;
            let (before, after) = rows.split_at(rng.below(full as u64 + 1) as usize * batch_size);
            let (short, after) = after.split_at(rows.len() % batch_size);
            batches = [cut(before), cut(short), cut(after)].concat();
            rng.shuffle(&mut batches);
        }
        let padding = padding(&batches, lengths);
        Ok(Batches { batches, padding })
    }

    /// The batches in the order in which they are to be used, as row numbers.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[usize]> {
        self.batches.iter().map(Vec::as_slice)
    }

    /// A batch by its position.
    pub fn get(&self, index: usize) -> Option<&[usize]> {
        self.batches.get(index).map(Vec::as_slice)
    }

    /// Number of batches.
    pub fn len(&self) -> usize {
        self.batches.len()
    }

    /// True without rows.
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// How much of the batches is padding.
    pub fn padding(&self) -> Padding {
        self.padding
    }
}

fn shuffled(rows: usize, seed: u64, epoch: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..rows).collect();
    Rng::new("rows", &[seed, epoch]).shuffle(&mut order);
    order
}

fn by_length(lengths: &[usize], batch_size: usize, seed: u64, epoch: u64) -> Vec<usize> {
    let mut order = shuffled(lengths.len(), seed, epoch);
    // Stable: rows of the same length keep their random order.
    order.sort_by_key(|row| lengths[*row]);
    let mut noise = Rng::new("noise", &[seed, epoch]);
    let key = |(rank, row)| (rank as u64 + noise.below(batch_size as u64 / 2 + 1), row);
    let mut keys: Vec<(u64, usize)> = order.into_iter().enumerate().map(key).collect();
    keys.sort_by_key(|(key, _)| *key);
    keys.into_iter().map(|(_, row)| row).collect()
}

fn padding(batches: &[Vec<usize>], lengths: &[usize]) -> Padding {
    batches.iter().fold(Padding::default(), |sum, batch| {
        let longest = batch.iter().map(|r| lengths[*r] as u64).max().unwrap_or_default();
        let tokens = batch.iter().fold(0u64, |s, r| s.saturating_add(lengths[*r] as u64));
        Padding {
            tokens: sum.tokens.saturating_add(tokens),
            padded: sum.padded.saturating_add(longest.saturating_mul(batch.len() as u64)),
        }
    })
}
