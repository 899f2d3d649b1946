//! The schedule of a run that PyTorch did, from the shared data.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;

use graft_train::ScheduleKind;
use graft_train::schedule::Schedule;

/// The shared data, or `None` (with a word about it) where there is none.
fn shared(path: &str) -> Option<PathBuf> {
    let root = std::env::var_os("GRAFT_SHARED")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    let file = root.join(path);
    if file.exists() {
        return Some(file);
    }
    assert!(std::env::var_os("CI").is_none(), "no shared data at {}", file.display());
    println!("skipped: no shared data");
    None
}

#[test]
fn the_rates_are_those_of_the_recorded_run() {
    let Some(file) = shared("conformance/training/bert_lora/run.safetensors") else { return };
    let bytes = std::fs::read(file).unwrap();
    let all = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let lr = all.tensor("lr").unwrap();
    assert_eq!((lr.dtype(), lr.shape()), (safetensors::Dtype::F64, &[50][..]));
    // recipe.json beside it: lr 0.005, linear, 5 of 50 steps of warm-up.
    let schedule = Schedule { kind: ScheduleKind::Linear, warmup: 5, total: 50 };
    for (step, b) in lr.data().chunks_exact(8).enumerate() {
        let expected = f64::from_le_bytes(b.try_into().unwrap());
        let found = 0.005 * schedule.factor(step as u64);
        assert!((found - expected).abs() <= 1e-15, "step {step}: {found} instead of {expected}");
    }
}
