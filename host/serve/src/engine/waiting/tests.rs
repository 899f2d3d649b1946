//! What is taken: nothing lost, nothing twice, within the limits, in turn.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;

use super::*;

/// Whose it is, its length, its number among those of the same owner and length.
type Row = (u8, usize, usize);

fn owner(n: u8) -> Owner {
    (n > 0).then(|| format!("tenant-{n}").into())
}

fn limits(batch_rows: usize, batch_tokens: usize) -> Limits {
    Limits { batch_rows, batch_tokens, ..Limits::default() }
}

fn of(rows: &[Row], who: u8) -> usize {
    rows.iter().filter(|r| r.0 == who).count()
}

#[derive(Debug, Clone)]
enum Step {
    Push(u8, usize),
    /// Removes the row that was pushed as the n-th, if it waits.
    Remove(usize),
    Take,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0u8..5, 1usize..80).prop_map(|(who, length)| Step::Push(who, length)),
        1 => (0usize..400).prop_map(Step::Remove),
        1 => Just(Step::Take),
    ];
    prop::collection::vec(step, 0..400)
}

proptest! {
    #[test]
    fn nothing_is_lost_or_taken_twice_and_limits_and_order_are_kept(
        steps in steps(),
        batch_rows in 1usize..12,
        batch_tokens in 80usize..500,
        gone in prop::collection::hash_set(0usize..400, 0..40),
    ) {
        let limits = limits(batch_rows, batch_tokens);
        let mut waiting: Waiting<(usize, Row)> = Waiting::default();
        let mut places = Vec::new();
        // By number in the order of arrival: what waits or was dropped.
        let mut left: BTreeMap<usize, Row> = BTreeMap::new();
        let mut counts: HashMap<(u8, usize), usize> = HashMap::new();
        let mut next_taken: HashMap<(u8, usize), usize> = HashMap::new();
        let steps = steps.into_iter().chain(std::iter::repeat_n(Step::Take, 400));
        for step in steps {
            match step {
                Step::Push(who, length) => {
                    let number = counts.entry((who, length)).or_default();
                    let row = (who, length, *number);
                    *number += 1;
                    left.insert(places.len(), row);
                    places.push(waiting.push(&owner(who), length, (places.len(), row)));
                }
                Step::Remove(n) => {
                    if let Some(place) = places.get(n) {
                        let found = waiting.remove(*place);
                        prop_assert!(found.is_none() || left.remove(&n).is_some());
                        prop_assert_eq!(waiting.remove(*place), None);
                    }
                }
                Step::Take => {
                    let batch = waiting.take(&limits, |(n, _)| !gone.contains(n));
                    let longest = batch.iter().map(|(_, r)| r.1).max().unwrap_or(0);
                    let tokens: usize = batch.iter().map(|(_, r)| r.1).sum();
                    let padded = longest * batch.len();
                    prop_assert!(batch.len() <= batch_rows && padded <= batch_tokens);
                    prop_assert!(padded - tokens <= SLACK + padded / PADDED);
                    let mut own = batch.clone();
                    own.sort_unstable();
                    for (n, row) in own {
                        prop_assert!(!gone.contains(&n));
                        prop_assert_eq!(left.remove(&n), Some(row));
                        // Of rows of one owner and length the older ones come first.
                        let next = next_taken.entry((row.0, row.1)).or_default();
                        prop_assert!(row.2 >= *next);
                        *next = row.2 + 1;
                    }
                }
            }
            prop_assert_eq!(waiting.by_length.len(), waiting.owners.values().map(BTreeSet::len).sum::<usize>());
            prop_assert_eq!(waiting.busy, waiting.owners.values().filter(|r| !r.is_empty()).count());
            prop_assert_eq!(waiting.turns.len(), waiting.owners.len());
        }
        prop_assert_eq!(waiting.len(), 0);
        prop_assert!(left.keys().all(|n| gone.contains(n)), "{:?} are lost", left);
        prop_assert!(waiting.owners.is_empty() && waiting.turns.is_empty());
    }

    #[test]
    fn a_row_waits_for_no_more_batches_than_there_are_owners_and_older_rows_of_its_own(
        lengths in prop::collection::vec((0u8..5, 1usize..400), 1..120),
        pick in any::<prop::sample::Index>(),
    ) {
        let limits = limits(8, 400);
        let mut waiting: Waiting<(usize, u8)> = Waiting::default();
        for (n, (who, length)) in lengths.iter().enumerate() {
            waiting.push(&owner(*who), *length, (n, *who));
        }
        let wanted = pick.index(lengths.len());
        let who = lengths[wanted].0;
        let older = lengths[..wanted].iter().filter(|(w, _)| *w == who).count();
        let mut batches = 0;
        loop {
            let batch = waiting.take(&limits, |_| true);
            batches += 1;
            if batch.iter().any(|(n, _)| *n == wanted) {
                break;
            }
            prop_assert!(batches < 5 * (older + 1));
            // A flood that never ends changes nothing.
            for _ in 0..8 {
                waiting.push(&owner(0), 17, (usize::MAX, 0));
            }
        }
    }
}

fn filled(rows: impl IntoIterator<Item = (u8, usize)>) -> Waiting<Row> {
    let mut waiting = Waiting::default();
    for (n, (who, length)) in rows.into_iter().enumerate() {
        waiting.push(&owner(who), length, (who, length, n));
    }
    waiting
}

#[test]
fn a_flood_leaves_half_of_a_batch_to_the_one_other_who_waits() {
    let flood = std::iter::repeat_n((1, 12), 4000);
    let mut waiting = filled(flood.chain(std::iter::repeat_n((2, 13), 40)));
    let taken: Vec<Vec<Row>> = (0..4).map(|_| waiting.take(&limits(32, 8192), |_| true)).collect();
    let shares: Vec<(usize, usize)> = taken.iter().map(|b| (of(b, 1), of(b, 2))).collect();
    assert_eq!(shares, [(16, 16), (16, 16), (24, 8), (32, 0)]);
    assert!(taken.iter().flatten().filter(|r| r.0 == 2).map(|r| r.2).is_sorted(), "in order");
}

#[test]
fn rows_of_other_lengths_come_in_turn_and_not_in_the_same_batch() {
    let mut waiting = filled((0..100).map(|_| (1, 10)).chain([(2, 300), (3, 300)]));
    let limits = limits(32, 8192);
    let first = waiting.take(&limits, |_| true);
    assert_eq!((first.len(), of(&first, 1)), (32, 32), "nobody else is near");
    let second = waiting.take(&limits, |_| true);
    assert_eq!((second.len(), of(&second, 2), of(&second, 3)), (2, 1, 1));
}

#[test]
fn many_who_wait_are_taken_by_length_as_if_they_were_one() {
    let mut waiting = filled((0..64u8).map(|n| (n + 1, if n % 2 == 0 { 10 } else { 100 })));
    for length in [10, 100] {
        let batch = waiting.take(&limits(32, 8192), |_| true);
        assert!(batch.len() == 32 && batch.iter().all(|r| r.1 == length), "{batch:?}");
    }
    assert_eq!(waiting.len(), 0);
}

#[test]
fn a_row_of_more_tokens_than_a_batch_has_is_taken_alone() {
    let mut waiting = filled([(1, 900), (1, 900)]);
    assert_eq!(waiting.take(&limits(32, 512), |_| true).len(), 1);
    assert_eq!(waiting.take(&limits(32, 512), |_| true).len(), 1);
}

#[test]
fn rows_join_up_to_the_tokens_of_a_pass_and_a_longer_one_is_taken_alone() {
    let limits = Limits { pass_tokens: Some(100), ..limits(32, 8192) };
    let mut waiting = filled((0..9).map(|_| (1, 25)));
    let taken: Vec<usize> = (0..3).map(|_| waiting.take(&limits, |_| true).len()).collect();
    assert_eq!(taken, [4, 4, 1]);
    let mut waiting = filled([(1, 300), (1, 300)]);
    assert_eq!(waiting.take(&limits, |_| true).len(), 1);
}
