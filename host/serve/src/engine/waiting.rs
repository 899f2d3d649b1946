//! Rows that wait, and which of them a batch takes: turn by turn between those whose rows they are, by length.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use super::Limits;

/// Whose a row is: an adapter, or the base.
pub(super) type Owner = Option<Arc<str>>;

/// The place of a row: its length in tokens, then the order of arrival.
pub(super) type Place = (usize, u64);

/// Tokens of padding that cost about as much as another batch. With 32 instead, 4 to 32 clients that send short texts get 10
/// to 19 % less (`docs/benchmarks.md`).
const SLACK: usize = 4;
/// Beyond [`SLACK`], a batch is padded by at most one in so many of its tokens.
const PADDED: usize = 16;
/// Rows whose length differs by at most one in so many of its tokens, or by [`NEAR`], stand in for each other.
const NEAR_PART: usize = 4;
const NEAR: usize = 4;
/// While others wait, an owner has at most its share of a batch, which is never less than one in so many rows.
const SMALLEST_SHARE: usize = 8;

struct Entry<T> {
    owner: Owner,
    row: T,
}

/// Rows by length and by owner. Adding and removing one takes logarithmic time.
pub(super) struct Waiting<T> {
    by_length: BTreeMap<Place, Entry<T>>,
    /// The rows of each owner by order of arrival, with their lengths. An owner without rows stays until its turn comes.
    owners: HashMap<Owner, BTreeSet<(u64, usize)>>,
    /// Whose turn comes when: each owner once.
    turns: VecDeque<Owner>,
    /// Owners that have rows.
    busy: usize,
    arrived: u64,
}

impl<T> Default for Waiting<T> {
    fn default() -> Waiting<T> {
        let (by_length, owners, turns) = (BTreeMap::new(), HashMap::new(), VecDeque::new());
        Waiting { by_length, owners, turns, busy: 0, arrived: 0 }
    }
}

/// The rows of a batch that is being put together.
struct Batch {
    places: Vec<Place>,
    tokens: usize,
    longest: usize,
}

impl Batch {
    /// Takes a row in, unless the batch would have too many tokens or too much padding.
    fn admit(&mut self, place: Place, most_tokens: usize) -> bool {
        let longest = self.longest.max(place.0);
        let padded = longest.saturating_mul(self.places.len() + 1);
        let padding = padded - (self.tokens + place.0);
        if padded > most_tokens || padding > SLACK + padded / PADDED {
            return false;
        }
        self.places.push(place);
        (self.tokens, self.longest) = (self.tokens + place.0, longest);
        true
    }
}

impl<T> Waiting<T> {
    /// Rows that wait.
    pub(super) fn len(&self) -> usize {
        self.by_length.len()
    }

    /// Rows of an owner that wait.
    pub(super) fn len_of(&self, owner: &Owner) -> usize {
        self.owners.get(owner).map_or(0, BTreeSet::len)
    }

    /// Takes a row in.
    pub(super) fn push(&mut self, owner: &Owner, length: usize, row: T) -> Place {
        let place = (length, self.arrived);
        self.arrived += 1;
        if !self.owners.contains_key(owner) {
            self.turns.push_back(owner.clone());
        }
        let rows = self.owners.entry(owner.clone()).or_default();
        self.busy += usize::from(rows.is_empty());
        rows.insert((place.1, length));
        self.by_length.insert(place, Entry { owner: owner.clone(), row });
        place
    }

    /// Takes a row out, if it is still there.
    pub(super) fn remove(&mut self, place: Place) -> Option<T> {
        let Entry { owner, row } = self.by_length.remove(&place)?;
        if let Some(rows) = self.owners.get_mut(&owner) {
            rows.remove(&(place.1, place.0));
            self.busy -= usize::from(rows.is_empty());
        }
        Some(row)
    }

    /// The next batch: the oldest row of the owner whose turn it is, and those nearest to its length. Rows that nobody
    /// wants any more are dropped. Empty where no row is left.
    pub(super) fn take(&mut self, limits: &Limits, wanted: impl Fn(&T) -> bool) -> Vec<T> {
        while let Some(owner) = self.turns.pop_front() {
            let oldest = self.owners.get(&owner).and_then(BTreeSet::first).copied();
            let Some((arrived, length)) = oldest else {
                self.owners.remove(&owner);
                continue;
            };
            let first = (length, arrived);
            if !self.by_length.get(&first).is_some_and(|e| wanted(&e.row)) {
                self.remove(first);
                self.turns.push_front(owner);
                continue;
            }
            let (places, unwanted) = self.around(first, limits, wanted);
            unwanted.into_iter().for_each(|p| drop(self.remove(p)));
            let rows = places.into_iter().filter_map(|p| self.remove(p)).collect();
            match self.len_of(&owner) {
                0 => drop(self.owners.remove(&owner)),
                _ => self.turns.push_back(owner),
            }
            return rows;
        }
        Vec::new()
    }

    /// The rows of a batch around one of them, and rows that were met that nobody wants.
    fn around(&self, first: Place, limits: &Limits, wanted: impl Fn(&T) -> bool) -> (Vec<Place>, Vec<Place>) {
        let share = (limits.batch_rows / self.busy.max(1)).max(limits.batch_rows / SMALLEST_SHARE).max(1);
        let near = (first.0 / NEAR_PART).max(NEAR);
        let mut batch = Batch { places: vec![first], tokens: first.0, longest: first.0 };
        let mut unwanted = Vec::new();
        let mut taken: HashMap<&Owner, usize> = HashMap::new();
        if let Some(entry) = self.by_length.get(&first) {
            taken.insert(&entry.owner, 1);
        }
        // Rows of those who have their share already, for places that nobody else takes.
        let mut spare = Vec::new();
        let mut is_near = true;
        let (mut below, mut above) = (self.below(first).peekable(), self.above(first).peekable());
        // Where a row does not fit, those behind it do not either.
        let (mut down_ends, mut up_ends) = (false, false);
        loop {
            let down = below.peek().filter(|_| !down_ends).map(|(p, _)| first.0 - p.0);
            let up = above.peek().filter(|_| !up_ends).map(|(p, _)| p.0 - first.0);
            let goes_up = up.is_some_and(|u| down.is_none_or(|d| u <= d));
            let next = if goes_up { above.next() } else { below.next().filter(|_| down.is_some()) };
            let Some((place, entry)) = next else { break };
            if is_near && place.0.abs_diff(first.0) > near {
                is_near = false;
                fill(&mut batch, &mut spare, limits);
            }
            if batch.places.len() >= limits.batch_rows {
                break;
            }
            if !wanted(&entry.row) {
                unwanted.push(*place);
                continue;
            }
            let count = taken.entry(&entry.owner).or_default();
            if is_near && *count >= share {
                if spare.len() < limits.batch_rows {
                    spare.push(*place);
                }
            } else if batch.admit(*place, limits.pass_tokens()) {
                *count += 1;
            } else if goes_up {
                up_ends = true;
            } else {
                down_ends = true;
            }
        }
        fill(&mut batch, &mut spare, limits);
        (batch.places, unwanted)
    }

    /// The shorter rows, the longest first; of one length the oldest first.
    fn below(&self, first: Place) -> impl Iterator<Item = (&Place, &Entry<T>)> {
        let shorter = |length: usize| self.by_length.range(..(length, 0)).next_back().map(|(p, _)| p.0);
        let lengths = std::iter::successors(shorter(first.0), move |length| shorter(*length));
        lengths.flat_map(|length| self.by_length.range((length, 0)..=(length, u64::MAX)))
    }

    /// The other rows, the shortest first; of one length the oldest first.
    fn above(&self, first: Place) -> impl Iterator<Item = (&Place, &Entry<T>)> {
        self.by_length.range((first.0, 0)..).filter(move |(p, _)| **p != first)
    }
}

/// Gives the places that are left to the spare rows.
fn fill(batch: &mut Batch, spare: &mut Vec<Place>, limits: &Limits) {
    for place in spare.drain(..) {
        if batch.places.len() >= limits.batch_rows {
            return;
        }
        batch.admit(place, limits.pass_tokens());
    }
}

#[cfg(test)]
mod tests;
