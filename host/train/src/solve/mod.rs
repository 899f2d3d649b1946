//! A convex head solved to its optimum: softmax regression by L-BFGS in float64, with the L2 penalty that
//! cross-validation on the training data chooses.

mod cross;
mod inverse;
mod kernel;
mod lbfgs;
mod softmax;
#[cfg(test)]
mod tests;
mod wolfe;

use std::time::Instant;

use crate::error::TrainError;
use crate::interrupt::Interrupt;
use crate::observe::PenaltyRecord;
use lbfgs::{Limits, minimise};
use softmax::Rows;

/// The optimum's gradient: largest absolute component that counts as zero.
const TOLERANCE: f64 = 1e-8;
/// Most iterations towards the optimum.
const ITERATIONS: usize = 1000;
/// Most bytes of features in float64.
const MAX_BYTES: u64 = 8 << 30;

/// The data of a convex head.
#[derive(Debug, Clone, Copy)]
pub struct Data<'a> {
    /// `[rows, width]`.
    pub features: &'a [f32],
    /// `[rows, labels]`, none negative.
    pub targets: &'a [f32],
    /// `[rows]`, none negative: what each counts in the mean.
    pub counts: &'a [f32],
}

/// How to solve.
#[derive(Debug, Clone, Copy)]
pub struct How {
    /// The strength of the penalty; cross-validation chooses it where none is given.
    pub l2: Option<f64>,
    /// Folds of the cross-validation; no more than rows are used.
    pub folds: usize,
    /// Deals the rows into folds.
    pub seed: u64,
    /// Folds that are worked on at once. The result does not depend on it.
    pub threads: usize,
}

/// A solved head.
#[derive(Debug, Clone, PartialEq)]
pub struct Optimum {
    /// `[labels, width]`.
    pub weight: Vec<f64>,
    /// `[labels]`.
    pub bias: Vec<f64>,
    /// Mean loss of the training rows, without the penalty.
    pub loss: f64,
    /// Strength of the penalty: `l2 / 2 · ‖weight‖²` beside the mean loss.
    pub l2: f64,
    /// Largest absolute component of the gradient at the end.
    pub gradient: f64,
    /// Iterations of the final solution.
    pub iterations: usize,
    /// Whether the gradient is zero within rounding. Without a penalty there may be no optimum.
    pub converged: bool,
    /// Folds of the cross-validation, 0 without one.
    pub folds: usize,
    /// What the cross-validation found, from the strongest penalty to the weakest.
    pub grid: Vec<PenaltyRecord>,
    /// Whether somebody asked to stop; weaker penalties were then not tried.
    pub interrupted: bool,
    /// Seconds from the features to the optimum.
    pub seconds: f64,
}

impl Data<'_> {
    /// Rows, width and labels.
    ///
    /// # Errors
    /// [`TrainError::Plan`] for sizes that do not fit and for numbers that are not finite.
    fn sizes(&self) -> Result<(usize, usize, usize), TrainError> {
        let bad = |m: String| Err(TrainError::Plan(format!("the head can't be solved: {m}")));
        let n = self.counts.len();
        let whole = |v: &[f32]| n > 0 && !v.is_empty() && v.len().is_multiple_of(n);
        if !whole(self.features) || !whole(self.targets) {
            let (f, t) = (self.features.len(), self.targets.len());
            return bad(format!("{n} rows have {f} features and {t} targets"));
        }
        let width = self.features.len() / n;
        if let Some(i) = self.features.iter().position(|v| !v.is_finite()) {
            return bad(format!("a feature of row {} is {}", i / width + 1, self.features[i]));
        }
        let sound = |v: &[f32]| v.iter().all(|v| v.is_finite() && *v >= 0.0);
        if !sound(self.targets) || !sound(self.counts) || self.counts.iter().all(|v| *v == 0.0) {
            return bad("its targets and counts must be numbers from 0 up, and not all 0".into());
        }
        Ok((n, width, self.targets.len() / n))
    }
}

impl Data<'_> {
    /// The mean loss of a head, weight `[labels, width]` and bias `[labels]`, in float64.
    pub fn loss(&self, weight: &[f32], bias: &[f32]) -> f64 {
        let rows = self.counts.len().max(1);
        let (width, labels) = (self.features.len() / rows, self.targets.len() / rows);
        let mut sum = 0.0;
        for (x, t) in self.features.chunks_exact(width.max(1)).zip(self.targets.chunks_exact(labels.max(1))) {
            let logit = |(w, b): (&[f32], &f32)| {
                let products = w.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x));
                products.sum::<f64>() + f64::from(*b)
            };
            let z: Vec<f64> = weight.chunks_exact(width.max(1)).zip(bias).map(logit).collect();
            let norm = softmax::log_norm(ndarray::ArrayView1::from(&z));
            sum += t.iter().zip(&z).map(|(t, z)| f64::from(*t) * (norm - z)).sum::<f64>();
        }
        sum / self.counts.iter().map(|c| f64::from(*c)).sum::<f64>()
    }
}

/// Whether there is room to solve a head over so many rows of this width.
pub fn has_room(rows: usize, width: usize) -> bool {
    let bytes = (rows as u64).saturating_mul(width as u64 + 1).saturating_mul(8);
    bytes <= MAX_BYTES
}

/// Solves a head. `told` learns of each penalty that was tried.
///
/// # Errors
/// [`TrainError::Plan`] for data without an optimum to look for; what `told` says.
pub fn solve(
    data: &Data<'_>,
    how: &How,
    told: &mut dyn FnMut(&PenaltyRecord) -> Result<(), TrainError>,
    interrupt: &Interrupt,
) -> Result<Optimum, TrainError> {
    let clock = Instant::now();
    let (n, _, labels) = data.sizes()?;
    let (order, folds) = cross::deal(data.targets, n, labels, how.folds, how.seed);
    let rows = Rows::new(data.features, data.targets, data.counts, &order);
    let whole = 0..n;
    let whole = std::slice::from_ref(&whole);
    let mut grid = Vec::new();
    let chosen = match how.l2 {
        Some(l2) => cross::Chosen { l2, head: vec![0.0; rows.head().0 * rows.head().1] },
        None if folds.len() < 2 => {
            let m = "cross-validation needs two rows at least; give the penalty with method.l2";
            return Err(TrainError::Plan(m.into()));
        }
        None => cross::choose(&rows, &folds, how.threads, &mut grid, told, interrupt)?,
    };
    let mut head = chosen.head;
    let curvature = rows.curvature(chosen.l2, &head);
    let mut f = |head: &[f64], gradient: &mut [f64]| rows.loss(whole, chosen.l2, head, gradient);
    let limits = Limits { tolerance: TOLERANCE, iterations: ITERATIONS };
    let end = minimise(&mut head, &mut f, &|v| curvature.apply(v), limits);
    let mut gradient = vec![0.0; head.len()];
    let value = f(&head, &mut gradient);
    let (weight, bias, gradient) = rows.plain(&head, &gradient);
    if !value.is_finite() || weight.iter().chain(&bias).any(|v| !v.is_finite()) {
        return Err(TrainError::Plan("the head can't be solved: its loss is no number".into()));
    }
    Ok(Optimum {
        loss: value - 0.5 * chosen.l2 * weight.iter().map(|v| v * v).sum::<f64>(),
        weight,
        bias,
        l2: chosen.l2,
        gradient,
        iterations: end.iterations,
        converged: end.converged,
        folds: if how.l2.is_none() { folds.len() } else { 0 },
        grid,
        interrupted: interrupt.requested(),
        seconds: clock.elapsed().as_secs_f64(),
    })
}
