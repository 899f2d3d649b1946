//! Whether a step along the gradient changes the loss by as much as the gradient says.

use graft_tests::fixture::House;

use super::number;

/// Largest part by which the change may differ: of single precision, and of what is left of the loss's curvature.
const TOLERANCE: f64 = 0.01;

/// Trains two epochs of one batch each by plain gradient descent. Of the loss L at rate r, (L₁ − L₂) / (r·‖∇L‖²) is
/// 1 + c·r + O(r²); two rates do away with c.
///
/// `line` is a training run without optimiser, epochs and output, in which all rows are one batch.
pub fn check(house: &House, name: &str, line: &str) {
    let run = |rate: f64, out: &str| {
        let plain =
            "--optimizer sgd --weight-decay 0 --schedule constant --warmup-steps 0 --epochs 2 --patience 0";
        house.run(&format!("{line} {plain} --lr {rate:e} --out {name}-{out}")).succeeded();
        let steps = house.metrics(&format!("{name}-{out}"), "step");
        assert_eq!(steps.len(), 2, "{name}: all rows are one batch");
        (number(&steps[0], "loss"), number(&steps[1], "loss"), number(&steps[0], "grad_norm"))
    };
    let (loss, _, norm) = run(1e-20, "still");
    let rate = 0.02 * loss / (norm * norm);
    let ratio = |rate: f64, out: &str| {
        let (before, after, norm) = run(rate, out);
        (before - after) / (rate * norm * norm)
    };
    let found = 2.0 * ratio(rate / 2.0, "half") - ratio(rate, "whole");
    assert!((found - 1.0).abs() < TOLERANCE, "{name}: {found}");
}
