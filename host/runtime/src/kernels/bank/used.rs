//! Which rows of a bank a batch uses, and how its work is cut.

use std::ops::Range;

use ort::value::Shape;

use super::super::par::error;
use super::tiles::{BLOCK, Rows};

/// Multiplications that one task takes, about.
const TASK: usize = 1 << 18;

/// A bank, `[any, width]`, and the rows of it that a batch uses, `[batch, rank]`.
pub(super) struct Bank<'a> {
    pub(super) names: [&'static str; 2],
    pub(super) shape: &'a Shape,
    pub(super) values: &'a [f32],
    pub(super) rows_shape: &'a Shape,
    pub(super) rows: &'a [i64],
}

impl Bank<'_> {
    /// The rows' width and the rank, once shapes are as they must be for a batch of `batch`.
    pub(super) fn sizes(&self, kernel: &str, batch: i64) -> ort::Result<(usize, usize)> {
        let [bank, rows] = self.names;
        let [_, width] = self.shape[..] else {
            return Err(error(kernel, &format!("{bank} is {:?}, not [rows, width]", self.shape)));
        };
        match self.rows_shape[..] {
            [b, rank] if b == batch => Ok((width as usize, rank as usize)),
            _ => Err(error(kernel, &format!("{rows} is {:?}, not [{batch}, rank]", self.rows_shape))),
        }
    }

    /// The number of a row, checked.
    fn number(&self, kernel: &str, at: usize) -> ort::Result<usize> {
        let (row, all) = (self.rows[at], self.shape[0]);
        usize::try_from(row).ok().filter(|_| row < all).ok_or_else(|| {
            let [bank, rows] = self.names;
            error(kernel, &format!("{rows} has {row}, but {bank} has {all} rows"))
        })
    }
}

/// The rows that each row of a batch uses of `N` banks, without those of which one is the null row.
pub(super) struct Used<'a, const N: usize> {
    banks: [(&'a [f32], usize); N],
    starts: Vec<usize>,
    places: Vec<usize>,
    rows: [Vec<usize>; N],
}

impl<'a, const N: usize> Used<'a, N> {
    /// Reads the numbers of the rows; the shapes of the banks were checked and are of one batch and rank.
    pub(super) fn read(
        kernel: &str,
        banks: [Bank<'a>; N],
        batch: usize,
        rank: usize,
    ) -> ort::Result<Used<'a, N>> {
        let mut used = Used {
            banks: std::array::from_fn(|k| (banks[k].values, banks[k].shape[1] as usize)),
            starts: vec![0],
            places: Vec::new(),
            rows: std::array::from_fn(|_| Vec::new()),
        };
        for row in 0..batch {
            for place in 0..rank {
                let mut numbers = [0; N];
                for (number, bank) in numbers.iter_mut().zip(&banks) {
                    *number = bank.number(kernel, row * rank + place)?;
                }
                if numbers.iter().all(|n| *n != 0) {
                    used.places.push(place);
                    used.rows.iter_mut().zip(numbers).for_each(|(rows, n)| rows.push(n));
                }
            }
            used.starts.push(used.places.len());
        }
        Ok(used)
    }

    /// What row `row` of the batch uses: the places below the rank, and the rows of each bank.
    pub(super) fn of(&self, row: usize) -> (&[usize], [Rows<'_>; N]) {
        let range = self.starts[row]..self.starts[row + 1];
        let rows = std::array::from_fn(|k| {
            let (bank, width) = self.banks[k];
            Rows { bank, width, rows: &self.rows[k][range.clone()] }
        });
        (&self.places[range], rows)
    }

    /// The rows of each bank, where the batch has such a row and it uses any.
    pub(super) fn any_of(&self, row: usize) -> Option<[Rows<'_>; N]> {
        let any = row + 1 < self.starts.len() && self.starts[row] < self.starts[row + 1];
        any.then(|| self.of(row).1)
    }
}

/// Positions that one task takes, of `positions` in all, of which each needs `each` multiplications. Where there are many,
/// a task has all positions of a short row: what it reads of a bank, it reads once.
pub(super) fn task(each: usize, positions: usize) -> usize {
    const MOST: usize = 4 * BLOCK;
    let least = if positions < 8 * MOST { BLOCK } else { MOST };
    (TASK / each.max(1) / BLOCK * BLOCK).clamp(least, MOST)
}

/// Cuts positions of a batch, of which each row has `per_row`, at its rows: the row, and the positions within `range`.
pub(super) fn by_row(range: Range<usize>, per_row: usize) -> impl Iterator<Item = (usize, Range<usize>)> {
    let start = range.start;
    let mut at = start;
    std::iter::from_fn(move || {
        let row = at / per_row;
        let piece = at..range.end.min((row + 1) * per_row);
        at = piece.end;
        (!piece.is_empty()).then(|| (row, piece.start - start..piece.end - start))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_position_of_a_task_is_in_one_piece() {
        let pieces = |range, per_row| by_row(range, per_row).collect::<Vec<_>>();
        assert_eq!(pieces(0..4, 4), [(0, 0..4)]);
        assert_eq!(pieces(6..13, 4), [(1, 0..2), (2, 2..6), (3, 6..7)]);
        assert_eq!(pieces(5..5, 4), []);
        assert_eq!((task(0, 16), task(1 << 30, 16), task(6144, 16), task(1 << 30, 512)), (32, 8, 32, 32));
    }
}
