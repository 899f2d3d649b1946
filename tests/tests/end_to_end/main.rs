//! The main job through the binary, on a tiny base and a tiny task.
#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod answers;
mod chosen;
mod conformance;
mod embedding;
mod images;
mod methods;
mod multi_label;
mod pairs;
mod probe;
mod regression;
mod reproduced;
mod settings;
mod slopes;
mod stored;
mod together;
mod trained;
mod training;
mod words;

use graft_tests::fixture::House;

/// A number in a command's JSON.
fn number(json: &serde_json::Value, key: &str) -> f64 {
    json[key].as_f64().unwrap_or_else(|| panic!("no {key} in {json}"))
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Mean loss of the first and the last four steps.
fn ends(house: &House, adapter: &str) -> (f64, f64) {
    let losses = house.losses(adapter);
    (mean(&losses[..4]), mean(&losses[losses.len() - 4..]))
}

/// Largest difference relative to the larger of both.
fn relative(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).fold(0f64, |m, (a, b)| m.max((a - b).abs() / a.abs().max(b.abs()).max(1e-12)))
}
