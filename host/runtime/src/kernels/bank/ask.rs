//! Asking for rows of a bank before they are needed.

use super::super::simd::{Cache, ask_for};
use super::tiles::Rows;

/// What to ask for while rows of a bank are used. A product with few positions takes less than its rows take to come from
/// memory.
#[derive(Clone, Copy)]
pub(super) enum Ask<'a> {
    Nothing,
    /// The same bank's next rows or columns, which were not read yet.
    Own,
    /// Those that the next row of the batch uses: these ones are all in a cache.
    Next(Rows<'a>),
}

impl<'a> Ask<'a> {
    /// What to ask for from position `at` on, if `then` comes after these positions.
    #[inline(always)]
    pub(super) fn at(at: usize, then: Option<Rows<'a>>) -> Ask<'a> {
        match then {
            _ if at == 0 => Ask::Own,
            Some(next) => Ask::Next(next),
            None => Ask::Nothing,
        }
    }

    /// Where to ask while a column of a row of `w` is used; so many rows and columns behind, if it is for its own.
    #[inline(always)]
    pub(super) fn place(
        self,
        w: Rows<'_>,
        (row, column): (usize, usize),
        behind: (usize, usize),
    ) -> *const f32 {
        match self {
            Ask::Nothing => std::ptr::null(),
            Ask::Own => w.place(row + behind.0, column + behind.1),
            Ask::Next(next) => next.place(row, column),
        }
    }

    /// Asks for a place: its own for the nearest cache, another's for the next, as it is not needed so soon.
    #[inline(always)]
    pub(super) fn ask(self, place: *const f32) {
        match self {
            Ask::Nothing => {}
            Ask::Own => ask_for(place, Cache::Nearest),
            Ask::Next(_) => ask_for(place, Cache::Next),
        }
    }
}
