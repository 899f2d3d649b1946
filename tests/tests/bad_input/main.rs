//! Whatever is wrong with what a person gives: the command fails, says what is wrong, where and what to do, and leaves
//! nothing half-made behind.
#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod adapters;
mod bases;
mod data;
mod plugins;
mod runs;

use graft_tests::fixture::{Ended, House};

/// Trains a LoRA for one epoch into `out`, which must fail with a message that holds `words` and leave no `out`.
fn training_refused(house: &House, more: &str, words: &[&str]) -> Ended {
    let ended = house.run(&House::training("out", &format!("--method lora --epochs 1 {more}")));
    ended.refused(words);
    assert!(!house.path("out").exists(), "an output directory was left behind: {}", ended.err);
    ended
}
