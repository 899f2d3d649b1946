//! Cross-entropy as `torch.nn.CrossEntropyLoss` defines it (class weights, label smoothing, mean), in the graph and over
//! numbers.

use graft_plugin_api::*;

use crate::Classification;

/// What is built of the loss.
pub struct Loss {
    /// The loss of the batch, a scalar.
    pub loss: Value,
    /// Of a softmax regression `[batch, labels]`, the weight of each label times its share of the target, and `[batch]`,
    /// what each row counts in the mean.
    pub softmax: Option<(Value, Value)>,
}

/// The loss of a batch from logits `[batch, labels]` and the input `labels` `[batch]`.
pub fn build(c: &Classification, g: &Graph<'_>, logits: Value) -> Result<Loss> {
    let classes = c.labels()?.len();
    if c.multi_label {
        return binary(g, logits, classes);
    }
    let batch = g.fact(logits)?.shape.and_then(|s| s.first().cloned()).unwrap_or(Dim::Unknown);
    let labels = g.input("labels", DType::I64, &[batch])?;
    let hot = g.one_hot(labels, classes)?;
    let weighted = |x: Value| match c.weights() {
        Some(w) => g.mul(x, g.constant(Tensor::f32s("", &[classes], w))?),
        None => Ok(x),
    };
    let mut target = hot;
    if c.label_smoothing > 0.0 {
        target = g.mul(target, g.scalar(1.0 - c.label_smoothing)?)?;
        target = g.add(target, g.scalar(c.label_smoothing / classes as f32)?)?;
    }
    let targets = weighted(target)?;
    let counts = g.reduce_sum(weighted(hot)?, &[1], false)?;
    let rows = g.reduce_sum(g.mul(targets, g.log_softmax(logits, -1)?)?, &[1], false)?;
    let mean = if c.weights().is_none() {
        g.reduce_mean(rows, &[], false)?
    } else {
        g.div(g.reduce_sum(rows, &[], false)?, g.reduce_sum(counts, &[], false)?)?
    };
    Ok(Loss { loss: g.neg(mean)?, softmax: Some((targets, counts)) })
}

/// The binary cross-entropy as `torch.nn.BCEWithLogitsLoss` defines it, mean over rows and labels: logits and the input
/// `labels` are `[batch, labels]`, the latter f32 of 0 and 1.
fn binary(g: &Graph<'_>, logits: Value, classes: usize) -> Result<Loss> {
    let batch = g.fact(logits)?.shape.and_then(|s| s.first().cloned()).unwrap_or(Dim::Unknown);
    let labels = g.input("labels", DType::F32, &[batch, Dim::Known(classes as u64)])?;
    // −t·ln σ(x) − (1 − t)·ln(1 − σ(x)) = softplus(x) − t·x, which is finite for every x.
    let soft = g.emit("Softplus", &[logits], &[])?;
    let loss = g.reduce_mean(g.sub(soft, g.mul(labels, logits)?)?, &[], false)?;
    Ok(Loss { loss, softmax: None })
}

/// The same over all rows of an evaluation set, in f64.
pub fn over(c: &Classification, logits: &[f32], labels: &[usize], classes: usize) -> f64 {
    let weight = |k: usize| c.weights().and_then(|w| w.get(k)).map_or(1.0, |w| f64::from(*w));
    let smooth = f64::from(c.label_smoothing);
    let (mut sum, mut total) = (0.0, 0.0);
    for (row, label) in logits.chunks_exact(classes).zip(labels) {
        let logs = log_softmax(row);
        let spread: f64 = logs.iter().enumerate().map(|(k, l)| weight(k) * l).sum::<f64>() / classes as f64;
        sum -= (1.0 - smooth) * weight(*label) * logs[*label] + smooth * spread;
        total += weight(*label);
    }
    sum / total
}

/// The binary cross-entropy of numbers, in f64: the mean.
pub fn binary_over(logits: &[f32], labels: &[bool]) -> f64 {
    let one = |(x, t): (&f32, &bool)| {
        let x = f64::from(*x);
        x.max(0.0) + (-x.abs()).exp().ln_1p() - if *t { x } else { 0.0 }
    };
    logits.iter().zip(labels).map(one).sum::<f64>() / logits.len() as f64
}

/// Logarithms of the probabilities of a row.
pub fn log_softmax(row: &[f32]) -> Vec<f64> {
    let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let shifted: Vec<f64> = row.iter().map(|v| f64::from(*v) - f64::from(top)).collect();
    let norm = shifted.iter().map(|v| v.exp()).sum::<f64>().ln();
    shifted.into_iter().map(|v| v - norm).collect()
}
