//! Batches and splits: every row once, the same on every machine, little padding.

#![allow(clippy::unwrap_used, reason = "a test stops where its helper stops")]

use std::collections::HashSet;

use graft_data::{Batches, DataError, Encoding, Order, PadOptions, Side, Split, TextBatch, split};
use proptest::prelude::*;

const ORDERS: [Order; 3] = [Order::Grouped, Order::Random, Order::InOrder];

fn lengths(rows: usize) -> Vec<usize> {
    (0..rows).map(|i| 5 + (i * 7919) % 60).collect()
}

fn encoding(ids: &[i64]) -> Encoding {
    Encoding { ids: ids.to_vec(), type_ids: vec![1; ids.len()], full_length: ids.len(), ..Default::default() }
}

proptest! {
    #[test]
    fn every_row_is_in_exactly_one_batch(
        lengths in prop::collection::vec(0usize..600, 0..300), size in 1usize..70, seed: u64, epoch in 0u64..5,
    ) {
        for order in ORDERS {
            let batches = Batches::new(&lengths, size, order, seed, epoch).unwrap();
            let mut rows: Vec<usize> = batches.iter().flatten().copied().collect();
            rows.sort_unstable();
            prop_assert_eq!(rows, (0..lengths.len()).collect::<Vec<_>>());
            prop_assert_eq!(batches.len(), lengths.len().div_ceil(size));
            prop_assert!(batches.iter().filter(|b| b.len() < size).count() <= 1);
            let padding = batches.padding();
            prop_assert_eq!(padding.tokens, lengths.iter().sum::<usize>() as u64);
            prop_assert!(padding.padded >= padding.tokens);
        }
    }

    #[test]
    fn a_split_is_a_partition_that_keeps_the_shares(
        labels in prop::collection::vec(0u8..4, 2..200), fraction in 0.01f64..0.99, seed: u64,
    ) {
        let names: Vec<&str> = labels.iter().map(|l| ["a", "b", "c", "d"][*l as usize]).collect();
        for given in [None, Some(names.as_slice())] {
            let Ok(parts) = split(names.len(), given, fraction, seed) else { continue };
            let mut rows = [parts.train.clone(), parts.held_out.clone()].concat();
            rows.sort_unstable();
            prop_assert_eq!(rows, (0..names.len()).collect::<Vec<_>>());
            if given.is_some() {
                for name in ["a", "b", "c", "d"] {
                    let all = names.iter().filter(|n| **n == name).count();
                    let held = parts.held_out.iter().filter(|r| names[**r] == name).count();
                    prop_assert!((held as f64 - all as f64 * fraction).abs() <= 1.0, "{} of {}", held, all);
                    prop_assert!(all == 0 || held < all);
                }
            }
        }
    }

    #[test]
    fn a_batch_holds_its_rows_and_padding_only(
        rows in prop::collection::vec(prop::collection::vec(1i64..1000, 0..20), 1..10), left: bool,
    ) {
        let encodings: Vec<Encoding> = rows.iter().map(|r| encoding(r)).collect();
        let side = if left { Side::Left } else { Side::Right };
        let pad = PadOptions { id: -5, side, length: None };
        let batch = TextBatch::new(&encodings.iter().collect::<Vec<_>>(), &pad).unwrap();
        let seq = rows.iter().map(Vec::len).max().unwrap();
        prop_assert_eq!(batch.ids.shape(), &[rows.len(), seq]);
        let (ids, mask) = (batch.ids.to_i64s().unwrap(), batch.mask.to_i64s().unwrap());
        let types = batch.type_ids.to_i64s().unwrap();
        prop_assert_eq!(&types, &mask);
        for (i, row) in rows.iter().enumerate() {
            let start = if left { seq - row.len() } else { 0 };
            for j in 0..seq {
                let token = j.checked_sub(start).and_then(|k| row.get(k));
                prop_assert_eq!(ids[i * seq + j], token.copied().unwrap_or(-5));
                prop_assert_eq!(mask[i * seq + j], token.is_some() as i64);
            }
        }
    }
}

#[test]
fn batches_are_the_same_on_every_platform() {
    let of = |order| {
        let batches = Batches::new(&[3, 9, 4, 8, 3, 20, 5], 2, order, 7, 1).unwrap();
        batches.iter().map(<[usize]>::to_vec).collect::<Vec<_>>()
    };
    assert_eq!(of(Order::InOrder), [vec![0, 1], vec![2, 3], vec![4, 5], vec![6]]);
    assert_eq!(of(Order::Random), [vec![1, 3], vec![0, 5], vec![4, 2], vec![6]]);
    assert_eq!(of(Order::Grouped), [vec![2], vec![0, 4], vec![1, 5], vec![6, 3]]);
}

#[test]
fn seed_and_epoch_change_the_batches_and_nothing_else_does() {
    let lengths = lengths(500);
    for order in [Order::Grouped, Order::Random] {
        let of = |seed, epoch| Batches::new(&lengths, 32, order, seed, epoch).unwrap();
        assert_eq!(of(1, 0), of(1, 0));
        assert_ne!(of(1, 0), of(1, 1));
        assert_ne!(of(1, 0), of(2, 0));
    }
}

#[test]
fn grouping_saves_most_of_the_padding() {
    let lengths = lengths(2000);
    let waste = |order| Batches::new(&lengths, 32, order, 0, 0).unwrap().padding().waste();
    assert!(waste(Order::Random) > 0.3, "{}", waste(Order::Random));
    assert!(waste(Order::Grouped) < 0.03, "{}", waste(Order::Grouped));
}

#[test]
fn the_same_rows_do_not_always_meet() {
    // All lengths differ: without noise, sorting would give the same batches in every epoch.
    let lengths: Vec<usize> = (10..330).collect();
    let groups = |epoch| -> HashSet<Vec<usize>> {
        let batches = Batches::new(&lengths, 16, Order::Grouped, 0, epoch).unwrap();
        let sorted = |b: &[usize]| {
            let mut b = b.to_vec();
            b.sort_unstable();
            b
        };
        batches.iter().map(sorted).collect()
    };
    let always = (1..6).fold(groups(0), |met, epoch| &met & &groups(epoch));
    assert!(always.is_empty(), "{always:?}");
}

#[test]
fn batch_size_zero_is_refused() {
    assert!(matches!(Batches::new(&[1], 0, Order::Random, 0, 0), Err(DataError::BatchSize)));
}

#[test]
fn a_split_is_deterministic_and_exact() {
    let labels: Vec<&str> = (0..100).map(|i| if i % 10 == 0 { "rare" } else { "common" }).collect();
    let parts = split(100, Some(&labels), 0.2, 3).unwrap();
    assert_eq!(parts, split(100, Some(&labels), 0.2, 3).unwrap());
    assert_ne!(parts, split(100, Some(&labels), 0.2, 4).unwrap());
    assert_eq!(parts.held_out.len(), 20);
    assert_eq!(parts.held_out.iter().filter(|r| labels[**r] == "rare").count(), 2);
    assert_eq!(split(3, None, 0.4, 0).unwrap(), Split { train: vec![0, 1], held_out: vec![2] });
}

#[test]
fn a_split_that_leaves_a_part_empty_is_refused() {
    assert!(matches!(split(3, None, 0.1, 0), Err(DataError::EmptySplit { rows: 3, .. })));
    assert!(matches!(split(2, Some(&["a", "b"]), 0.5, 0), Err(DataError::EmptySplit { .. })));
    for fraction in [0.0, 1.0, -1.0, f64::NAN] {
        assert!(matches!(split(10, None, fraction, 0), Err(DataError::BadFraction { .. })));
    }
    assert!(matches!(split(2, Some(&["a"]), 0.5, 0), Err(DataError::LabelCount { found: 1, rows: 2 })));
}

#[test]
fn a_batch_can_be_padded_further_but_not_cut() {
    let rows = [encoding(&[1, 2, 3])];
    let rows: Vec<&Encoding> = rows.iter().collect();
    let to = |length| PadOptions { length: Some(length), ..Default::default() };
    assert_eq!(TextBatch::new(&rows, &to(64)).unwrap().mask.shape(), [1, 64]);
    assert!(matches!(
        TextBatch::new(&rows, &to(2)),
        Err(DataError::LongerThanPadding { length: 3, limit: 2, .. })
    ));
    assert!(matches!(TextBatch::new(&rows, &to(usize::MAX)), Err(DataError::BatchTooLarge { .. })));
    assert!(matches!(TextBatch::new(&[], &to(2)), Err(DataError::EmptyBatch)));
}
