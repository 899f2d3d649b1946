//! The banks of one fragment.

use std::collections::HashMap;
use std::sync::Arc;

use graft_graph::batch::{Bank, Layout, Placed};
use graft_runtime::{DeviceMemory, View};

use super::Tenant;
use super::feed::Said;
use super::mirror::Mirror;
use super::parts::Rows;
use crate::error::{Result, TaskError};

/// Rows of a bank that nobody has, from which on it may be worth moving the others together.
const SPARSE: usize = 256;

fn bad(detail: &str) -> TaskError {
    TaskError::Input { what: "a bank".into(), detail: detail.into() }
}

/// One bank's rows.
struct Stored {
    bank: Bank,
    /// `[rows, …]`, the first one nobody's.
    values: Vec<f32>,
    shape: Vec<usize>,
    /// Which of the indices says which rows are whose.
    index: Option<usize>,
    /// The same numbers on the device, where sessions run on one.
    mirror: Option<Mirror>,
}

impl Stored {
    fn width(&self) -> usize {
        self.bank.row.iter().product()
    }

    fn bring(&mut self) -> Result<()> {
        let Stored { values, mirror, index: Some(_), .. } = self else { return Ok(()) };
        mirror.as_mut().map_or(Ok(()), |m| m.bring(values, values.capacity()))
    }

    fn view(&self) -> Option<View<'_>> {
        match &self.mirror {
            Some(mirror) => mirror.view(&self.shape),
            None => View::new(&self.shape, &self.values).ok(),
        }
    }
}

/// Rows that are given out in step over several banks.
#[derive(Default)]
struct Index {
    name: String,
    whole: bool,
    rows: usize,
    free: Vec<usize>,
}

/// What an adapter has here.
struct Lease {
    /// For each index the rows.
    rows: Vec<Vec<usize>>,
    /// The number in each bank of numbers, in their order.
    numbers: Vec<f32>,
}

/// The banks of a fragment, and which adapter has which of their rows.
pub(super) struct Shelf {
    banks: Vec<Stored>,
    indices: Vec<Index>,
    leases: HashMap<u64, Lease>,
}

impl Shelf {
    /// Empty banks; with a device's memory they are kept there as well.
    pub(super) fn new(placed: &Placed, memory: Option<&Arc<DeviceMemory>>) -> Shelf {
        let mut indices: Vec<Index> = Vec::new();
        let mut banks = Vec::new();
        for bank in &placed.banks {
            let index = (bank.layout != Layout::Number).then(|| {
                indices.iter().position(|i| i.name == bank.index).unwrap_or_else(|| {
                    let whole = bank.layout == Layout::Row;
                    indices.push(Index { name: bank.index.clone(), whole, rows: 1, free: Vec::new() });
                    indices.len() - 1
                })
            });
            let values = vec![bank.null; bank.row.iter().product()];
            let shape = std::iter::once(1).chain(bank.row.iter().copied()).collect();
            let mirror = memory.map(|m| Mirror::new(Arc::clone(m)));
            banks.push(Stored { bank: bank.clone(), values, shape, index, mirror });
        }
        Shelf { banks, indices, leases: HashMap::new() }
    }

    /// The same banks under the names that another room has for them.
    pub(super) fn renamed(mut self, placed: &Placed) -> Shelf {
        for (stored, bank) in self.banks.iter_mut().zip(&placed.banks) {
            if let Some(i) = stored.index {
                self.indices[i].name.clone_from(&bank.index);
            }
            stored.bank = bank.clone();
        }
        self
    }

    pub(super) fn bytes_leased(&self) -> usize {
        let rows = |b: &Stored| b.index.map_or(0, |i| self.indices[i].rows - 1 - self.indices[i].free.len());
        self.banks.iter().map(|b| rows(b) * b.width() * size_of::<f32>()).sum()
    }

    pub(super) fn bytes(&self) -> usize {
        self.banks.iter().map(|b| b.values.capacity() * size_of::<f32>()).sum()
    }

    pub(super) fn holds(&self, id: u64) -> bool {
        self.leases.contains_key(&id)
    }

    /// Writes the rows that an adapter has in each bank, a number in those of numbers.
    pub(super) fn put(&mut self, id: u64, values: &Rows) -> Result<()> {
        let mut counts: Vec<Option<usize>> = vec![None; self.indices.len()];
        let mut numbers = Vec::new();
        for (stored, rows) in self.banks.iter().zip(values.iter()) {
            let Some(index) = stored.index else {
                let number = rows.first().copied().ok_or_else(|| bad("a number is missing"))?;
                numbers.push(number);
                continue;
            };
            let count = rows.len() / stored.width().max(1);
            if counts[index].is_some_and(|c| c != count) || count == 0 {
                return Err(bad("values that are kept in step have different numbers of rows"));
            }
            counts[index] = Some(count);
        }
        let leased: Vec<Vec<usize>> =
            self.indices.iter_mut().zip(&counts).map(|(i, n)| i.take(n.unwrap_or(0))).collect();
        for (stored, rows) in self.banks.iter_mut().zip(values.iter()) {
            let Some(index) = stored.index else { continue };
            let width = stored.width();
            let needed = self.indices[index].rows;
            if stored.shape[0] < needed {
                // A little at a time: doubling would hold as much again as the adapters take.
                let room = needed.next_multiple_of(64).max(needed + needed / 16);
                stored.values.reserve_exact((room * width).saturating_sub(stored.values.len()));
                stored.values.resize(needed * width, stored.bank.null);
                stored.shape[0] = needed;
            }
            for (row, at) in rows.chunks_exact(width.max(1)).zip(&leased[index]) {
                stored.values[at * width..][..width].copy_from_slice(row);
                if let Some(mirror) = &mut stored.mirror {
                    mirror.changed(at * width..(at + 1) * width);
                }
            }
        }
        self.leases.insert(id, Lease { rows: leased, numbers });
        Ok(())
    }

    /// What [`Shelf::put`] takes of an adapter that is here.
    pub(super) fn rows_of(&self, id: u64) -> Option<Rows> {
        let lease = self.leases.get(&id)?;
        let mut all = Rows::default();
        let mut numbers = lease.numbers.iter();
        for stored in &self.banks {
            let Some(index) = stored.index else {
                all.push(&[*numbers.next()?]);
                continue;
            };
            let width = stored.width();
            let row = |at: &usize| stored.values.get(at * width..(at + 1) * width);
            all.push(&lease.rows[index].iter().map(row).collect::<Option<Vec<_>>>()?.concat());
        }
        Some(all)
    }

    pub(super) fn remove(&mut self, id: u64) {
        if let Some(lease) = self.leases.remove(&id) {
            for (index, rows) in self.indices.iter_mut().zip(lease.rows) {
                index.free.extend(rows);
            }
        }
        for k in 0..self.indices.len() {
            if self.indices[k].free.len() >= SPARSE.max(self.indices[k].rows / 2) {
                self.close_ranks(k);
            }
        }
    }

    /// Moves the rows of an index together, so that those that nobody has take no memory.
    fn close_ranks(&mut self, k: usize) {
        let mut next = 1;
        // Rows go to places that are never behind their own, in order.
        let mut moves: Vec<(usize, u64, usize)> = Vec::new();
        for (id, lease) in &self.leases {
            moves.extend(lease.rows[k].iter().enumerate().map(|(n, at)| (*at, *id, n)));
        }
        moves.sort_unstable();
        for (from, id, n) in moves {
            for stored in self.banks.iter_mut().filter(|b| b.index == Some(k)) {
                let width = stored.width();
                stored.values.copy_within(from * width..(from + 1) * width, next * width);
            }
            if let Some(lease) = self.leases.get_mut(&id) {
                lease.rows[k][n] = next;
            }
            next += 1;
        }
        for stored in self.banks.iter_mut().filter(|b| b.index == Some(k)) {
            let width = stored.width();
            stored.values.truncate(next * width);
            stored.values.shrink_to_fit();
            stored.shape[0] = next;
            if let Some(mirror) = &mut stored.mirror {
                mirror.forget();
            }
        }
        let index = &mut self.indices[k];
        (index.rows, index.free) = (next, Vec::new());
    }

    /// The inputs that [`Shelf::say`] makes, in its order.
    pub(super) fn said(&self) -> impl Iterator<Item = &str> {
        let numbers = self.banks.iter().filter(|b| b.index.is_none());
        self.indices.iter().map(|i| i.name.as_str()).chain(numbers.map(|b| b.bank.input.as_str()))
    }

    /// The indices and numbers of a batch; `has` says which rows have this fragment.
    pub(super) fn say(&self, rows: &[Tenant<'_>], has: &[bool], said: &mut Said) -> Result<()> {
        let lease = |t: &Tenant<'_>, has: bool| match (has, self.leases.get(&t.id)) {
            (false, _) => Ok(None),
            (true, Some(lease)) => Ok(Some(lease)),
            // Never an answer from rows that are somebody else's by now.
            (true, None) => Err(TaskError::Input {
                what: t.parts.name.clone(),
                detail: "it is not in its banks any more".into(),
            }),
        };
        let leases: Vec<Option<&Lease>> =
            rows.iter().zip(has).map(|(t, has)| lease(t, *has)).collect::<Result<_>>()?;
        for (k, index) in self.indices.iter().enumerate() {
            let of = |l: &Option<&Lease>| l.map_or(0, |l| l.rows[k].len());
            let most = leases.iter().map(of).max().unwrap_or(0).max(1);
            if index.whole && most != 1 {
                return Err(bad("an adapter has several rows where one is read"));
            }
            let places = said.places(rows.len(), (!index.whole).then_some(most));
            for (to, lease) in places.chunks_exact_mut(most).zip(&leases) {
                let Some(lease) = lease else { continue };
                to.iter_mut().zip(&lease.rows[k]).for_each(|(to, row)| *to = *row as i64);
            }
        }
        for (k, Stored { bank, .. }) in self.banks.iter().filter(|b| b.index.is_none()).enumerate() {
            let number = |l: &Option<&Lease>| l.and_then(|l| l.numbers.get(k)).copied().unwrap_or(bank.null);
            said.numbers(leases.iter().map(number));
        }
        Ok(())
    }

    /// The banks of rows, with the names of their inputs.
    pub(super) fn banks(&self) -> impl Iterator<Item = (usize, &str)> {
        let of_rows = self.banks.iter().enumerate().filter(|(_, b)| b.index.is_some());
        of_rows.map(|(k, b)| (k, b.bank.input.as_str()))
    }

    /// A bank of rows.
    pub(super) fn bank(&self, k: usize) -> Option<View<'_>> {
        self.banks.get(k)?.view()
    }

    /// Sends what changed to the device, where sessions run on one.
    pub(super) fn bring(&mut self) -> Result<()> {
        self.banks.iter_mut().try_for_each(Stored::bring)
    }
}

impl Index {
    fn take(&mut self, count: usize) -> Vec<usize> {
        let mut rows = Vec::with_capacity(count);
        for _ in 0..count {
            rows.push(self.free.pop().unwrap_or_else(|| {
                self.rows += 1;
                self.rows - 1
            }));
        }
        rows
    }
}
