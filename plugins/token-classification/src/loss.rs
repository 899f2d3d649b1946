//! Cross-entropy over the pieces that have a label, as `torch.nn.CrossEntropyLoss` with `ignore_index = -100` has it.

use graft_plugin_api::*;

/// What pieces without a label have in the place of its number.
pub const IGNORED: i64 = -100;

/// The loss of a batch, a scalar, from logits `[batch, seq, labels]` and the input `labels` `[batch, seq]` i64: the mean
/// over the pieces whose label is not negative, 0 where there is none.
pub fn build(g: &Graph<'_>, logits: Value, classes: usize) -> Result<Value> {
    let axis = |n: usize| -> Result<Dim> {
        Ok(g.fact(logits)?.shape.and_then(|s| s.get(n).cloned()).unwrap_or(Dim::Unknown))
    };
    let labels = g.input("labels", DType::I64, &[axis(0)?, axis(1)?])?;
    // A number outside of the range equals none of it, so such a piece has a row of zeros.
    let range: Vec<i64> = (0..classes as i64).collect();
    let range = g.constant(Tensor::i64s("", &[1, 1, classes], &range))?;
    let hot = g.cast(g.equal(g.unsqueeze(labels, &[2])?, range)?, DType::F32)?;
    let sum = g.reduce_sum(g.mul(hot, g.log_softmax(logits, -1)?)?, &[], false)?;
    let count = g.max(g.reduce_sum(hot, &[], false)?, g.scalar(1.0)?)?;
    g.neg(g.div(sum, count)?)
}

/// Logarithms of the probabilities of a row.
pub fn log_softmax(row: &[f32]) -> Vec<f64> {
    let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let shifted: Vec<f64> = row.iter().map(|v| f64::from(*v) - f64::from(top)).collect();
    let norm = shifted.iter().map(|v| v.exp()).sum::<f64>().ln();
    shifted.into_iter().map(|v| v - norm).collect()
}
