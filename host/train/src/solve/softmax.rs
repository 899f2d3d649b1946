//! Softmax regression: mean cross-entropy of a linear head, with an L2 penalty on its weight, in float64.

use std::collections::BTreeMap;
use std::ops::Range;

use ndarray::linalg::general_mat_mul;
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, s};

use super::inverse::factor_inverse;
use super::kernel::{self, LABELS};

/// Rows that are multiplied at once, so that they stay in the processor's cache from one product to the next.
const BLOCK: usize = 64;

/// Examples with what the loss makes of them.
pub struct Rows {
    /// `[rows, width + 1]`: features less their mean, then 1 for the bias.
    x: Array2<f64>,
    /// `[rows, labels]`, none negative.
    targets: Array2<f64>,
    /// `[rows]`: what a row counts in the mean.
    counts: Array1<f64>,
    /// `[width]`: the mean that was taken off.
    mean: Array1<f64>,
    /// `[width + 1, width + 1]`: mean of `xᵀx`.
    gram: Array2<f64>,
}

/// What a head makes of held-out rows.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Score {
    /// Mean loss, without penalty.
    pub loss: f64,
    /// Part of the rows whose likeliest label has the largest target.
    pub accuracy: f64,
}

impl Rows {
    /// Rows in a given order from features `[rows, width]`, targets `[rows, labels]` and counts `[rows]`.
    ///
    /// # Panics
    /// When the sizes do not fit `order`.
    pub fn new(features: &[f32], targets: &[f32], counts: &[f32], order: &[usize]) -> Rows {
        let n = order.len();
        let (width, labels) = (features.len() / n.max(1), targets.len() / n.max(1));
        let row = |all: &[f32], width: usize, r: usize, c: usize| f64::from(all[order[r] * width + c]);
        let mut x =
            Array2::from_shape_fn(
                (n, width + 1),
                |(r, c)| {
                    if c == width { 1.0 } else { row(features, width, r, c) }
                },
            );
        let mean: Array1<f64> = x.slice(s![.., ..width]).mean_axis(Axis(0)).unwrap_or_default();
        // Around their mean features and bias do not pull at each other, which is most of what makes the problem hard.
        x.slice_mut(s![.., ..width]).rows_mut().into_iter().for_each(|mut r| r -= &mean);
        let targets = Array2::from_shape_fn((n, labels), |(r, c)| row(targets, labels, r, c));
        let counts = order.iter().map(|r| f64::from(counts[*r])).collect();
        let mut gram = Array2::zeros((width + 1, width + 1));
        general_mat_mul(1.0 / n.max(1) as f64, &x.t(), &x, 0.0, &mut gram);
        Rows { x, targets, counts, mean, gram }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.counts.len()
    }

    /// Rows and columns of a head: labels, and width + 1.
    pub fn head(&self) -> (usize, usize) {
        (self.targets.ncols(), self.x.ncols())
    }

    /// Sum of the counts of these rows.
    pub fn count(&self, ranges: &[Range<usize>]) -> f64 {
        ranges.iter().map(|r| self.counts.slice(s![r.clone()]).sum()).sum()
    }

    /// Value and gradient of the mean loss over `ranges` plus `l2 / 2 · ‖weight‖²`. Heads are `[labels, width + 1]`, flat,
    /// the bias last.
    pub fn loss(&self, ranges: &[Range<usize>], l2: f64, head: &[f64], gradient: &mut [f64]) -> f64 {
        let (labels, columns) = self.head();
        let (Some(x), Some(targets)) = (self.x.as_slice(), self.targets.as_slice()) else { return f64::NAN };
        // Labels by eights, each group `[columns, 8]`; those beyond the last stay 0.
        let group = columns * LABELS;
        let mut w = vec![0.0; labels.div_ceil(LABELS) * group];
        let mut g = w.clone();
        let place = |k: usize, c: usize| k / LABELS * group + c * LABELS + k % LABELS;
        head.iter().enumerate().for_each(|(i, v)| w[place(i / columns, i % columns)] = *v);
        let mut z = vec![0.0; labels.div_ceil(LABELS) * BLOCK * LABELS];
        let (mut row, mut sum) = (vec![0.0; labels], 0.0);
        for block in blocks(ranges) {
            let rows = block.len();
            let x = &x[block.start * columns..block.end * columns];
            for (w, z) in w.chunks_exact(group).zip(z.chunks_exact_mut(BLOCK * LABELS)) {
                kernel::forward(x, columns, w, &mut z[..rows * LABELS]);
            }
            for r in 0..rows {
                let at = |k: usize| k / LABELS * BLOCK * LABELS + r * LABELS + k % LABELS;
                row.iter_mut().enumerate().for_each(|(k, v)| *v = z[at(k)]);
                let t = &targets[(block.start + r) * labels..(block.start + r + 1) * labels];
                let top = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let all: f64 = t.iter().sum();
                let chosen: f64 = t.iter().zip(&row).map(|(t, z)| t * (z - top)).sum();
                row.iter_mut().for_each(|v| *v = (*v - top).exp());
                let total: f64 = row.iter().sum();
                sum += all * total.ln() - chosen;
                for (k, (t, v)) in t.iter().zip(&row).enumerate() {
                    z[at(k)] = all * v / total - t;
                }
            }
            for (g, z) in g.chunks_exact_mut(group).zip(z.chunks_exact(BLOCK * LABELS)) {
                kernel::backward(x, columns, &z[..rows * LABELS], g);
            }
        }
        let scale = 1.0 / self.count(ranges);
        let mut norm = 0.0;
        for (i, (to, v)) in gradient.iter_mut().zip(head).enumerate() {
            let (k, c) = (i / columns, i % columns);
            let penalised = if c + 1 == columns { 0.0 } else { *v };
            *to = scale * g[place(k, c)] + l2 * penalised;
            norm += penalised * penalised;
        }
        sum * scale + 0.5 * l2 * norm
    }

    /// How good a head is on a range of rows.
    pub fn score(&self, range: Range<usize>, head: &[f64]) -> Score {
        let (Ok(w), false) = (ArrayView2::from_shape(self.head(), head), range.is_empty()) else {
            return Score::default();
        };
        let rows = range.len() as f64;
        let count = self.count(std::slice::from_ref(&range));
        let (mut sum, mut right) = (0.0, 0usize);
        for block in blocks(&[range]) {
            let z = self.x.slice(s![block.clone(), ..]).dot(&w.t());
            for (z, t) in z.rows().into_iter().zip(self.targets.slice(s![block, ..]).rows()) {
                sum += t.sum() * log_norm(z) - t.dot(&z);
                right += usize::from(largest(z) == largest(t));
            }
        }
        Score { loss: sum / count.max(f64::MIN_POSITIVE), accuracy: right as f64 / rows }
    }

    /// What the Hessian at `head` is roughly, block by block: for label k the mean of `pₖ(1 − pₖ)` over the rows times the
    /// mean of `xᵀx`, and the penalty. Its inverse makes L-BFGS quick.
    pub fn curvature(&self, l2: f64, head: &[f64]) -> Preconditioner {
        let (labels, columns) = self.head();
        let mut sums = Array1::<f64>::zeros(labels);
        if let Ok(w) = ArrayView2::from_shape((labels, columns), head) {
            for block in blocks(std::slice::from_ref(&(0..self.len()))) {
                let z = self.x.slice(s![block.clone(), ..]).dot(&w.t());
                for (z, t) in z.rows().into_iter().zip(self.targets.slice(s![block, ..]).rows()) {
                    let (norm, all) = (log_norm(z), t.sum());
                    let p = z.iter().map(|z| (z - norm).exp());
                    sums.iter_mut().zip(p).for_each(|(s, p)| *s += all * p * (1.0 - p));
                }
            }
        }
        // By powers of two, so that there are few factors however many labels there are.
        let count = self.counts.sum();
        let power = |s: &f64| (s / count).log2().round().clamp(-40.0, 0.0) as i32;
        let powers: Vec<i32> = sums.iter().map(power).collect();
        let mut groups: BTreeMap<i32, Vec<usize>> = BTreeMap::new();
        powers.iter().enumerate().for_each(|(k, p)| groups.entry(*p).or_default().push(k));
        let factor = |p: i32| {
            let mut m = &self.gram * 2f64.powi(p);
            let floor = m.diag().sum() / columns as f64 * 1e-9 + f64::MIN_POSITIVE;
            m.diag_mut().slice_mut(s![..columns - 1]).mapv_inplace(|v| v + l2 + floor);
            factor_inverse(&m)
        };
        Preconditioner { groups: groups.into_iter().map(|(p, rows)| (rows, factor(p))).collect() }
    }

    /// Weight `[labels, width]` and bias `[labels]` for features as they are, and the largest absolute component of a
    /// gradient with respect to these.
    pub fn plain(&self, head: &[f64], gradient: &[f64]) -> (Vec<f64>, Vec<f64>, f64) {
        let columns = self.head().1;
        let (mut weight, mut bias, mut largest) = (Vec::new(), Vec::new(), 0f64);
        for (w, g) in head.chunks_exact(columns).zip(gradient.chunks_exact(columns)) {
            let (Some((b, w)), Some((of_bias, of_weight))) = (w.split_last(), g.split_last()) else {
                continue;
            };
            bias.push(b - w.iter().zip(&self.mean).map(|(w, m)| w * m).sum::<f64>());
            weight.extend_from_slice(w);
            let plain = of_weight.iter().zip(&self.mean).map(|(g, m)| (g + of_bias * m).abs());
            largest = plain.fold(largest.max(of_bias.abs()), f64::max);
        }
        (weight, bias, largest)
    }
}

/// Labels that share a curvature, with the factor `L⁻¹` of its inverse.
pub struct Preconditioner {
    groups: Vec<(Vec<usize>, Array2<f64>)>,
}

impl Preconditioner {
    /// The inverse curvature times a flat head.
    pub fn apply(&self, head: &[f64]) -> Vec<f64> {
        let mut out = head.to_vec();
        for (labels, inverse) in &self.groups {
            let columns = inverse.ncols();
            let rows = Array2::from_shape_fn((labels.len(), columns), |(r, c)| head[labels[r] * columns + c]);
            for (k, row) in labels.iter().zip(rows.dot(&inverse.t()).dot(inverse).rows()) {
                out[k * columns..].iter_mut().zip(row).for_each(|(o, v)| *o = *v);
            }
        }
        out
    }
}

fn blocks(ranges: &[Range<usize>]) -> impl Iterator<Item = Range<usize>> + '_ {
    ranges.iter().flat_map(|r| r.clone().step_by(BLOCK).map(|b| b..(b + BLOCK).min(r.end)))
}

/// Logarithm of the sum of exponentials.
pub(super) fn log_norm(row: ArrayView1<'_, f64>) -> f64 {
    let top = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    top + row.iter().map(|v| (v - top).exp()).sum::<f64>().ln()
}

/// The place of the largest number; the first one of several.
pub(super) fn largest(row: ArrayView1<'_, f64>) -> usize {
    row.iter().enumerate().fold(0, |best, (i, v)| if *v > row[best] { i } else { best })
}
