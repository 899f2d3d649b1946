//! The penalty by stratified k-fold cross-validation, over the grid of scikit-learn's `LogisticRegressionCV`.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use ndarray::ArrayView1;

use super::lbfgs::{Limits, minimise};
use super::softmax::{Preconditioner, Rows, Score, largest};
use crate::error::TrainError;
use crate::interrupt::Interrupt;
use crate::observe::PenaltyRecord;
use crate::random;

/// Strengths that are tried: as scikit-learn's `C`, the weight of the loss beside the penalty, from 1e-4 to 1e4.
const GRID: usize = 10;
/// A fold's head need not be the optimum to the last digit: what it makes of other rows is what counts. As scikit-learn
/// has it.
const LIMITS: Limits = Limits { tolerance: 1e-4, iterations: 100 };
/// Weaker penalties are not tried once the held-out loss rose so often in a row.
const RISES: usize = 1;

/// The penalty that was chosen, and a head to start from.
pub(super) struct Chosen {
    pub(super) l2: f64,
    pub(super) head: Vec<f64>,
}

/// An order of the rows in which each fold lies together, and the folds. Each label is dealt out over the folds in turn;
/// the label of a row is its largest target.
pub(super) fn deal(
    targets: &[f32],
    rows: usize,
    labels: usize,
    folds: usize,
    seed: u64,
) -> (Vec<usize>, Vec<Range<usize>>) {
    let folds = folds.min(rows);
    let mut by_label = vec![Vec::new(); labels];
    for (r, t) in targets.chunks_exact(labels).enumerate() {
        let t: Vec<f64> = t.iter().map(|v| f64::from(*v)).collect();
        by_label[largest(ArrayView1::from(&t))].push(r);
    }
    let mut dealt = vec![Vec::new(); folds];
    let mut next = 0;
    for (label, members) in by_label.iter_mut().enumerate() {
        random::shuffle(seed, &format!("folds of label {label}"), members);
        for r in members {
            dealt[next % folds].push(*r);
            next += 1;
        }
    }
    let mut start = 0;
    let ranges = dealt.iter().map(|f| {
        start += f.len();
        start - f.len()..start
    });
    let ranges = ranges.collect();
    (dealt.concat(), ranges)
}

/// One fold's head, and what it makes of the rows that were held out.
struct Fold {
    held_out: Range<usize>,
    rest: [Range<usize>; 2],
    head: Vec<f64>,
    score: Score,
    iterations: usize,
}

impl Fold {
    /// Goes on from the head of the stronger penalty before.
    fn fit(&mut self, rows: &Rows, c: f64, curvature: &Preconditioner) {
        let l2 = 1.0 / (c * rows.count(&self.rest));
        let mut f = |head: &[f64], gradient: &mut [f64]| rows.loss(&self.rest, l2, head, gradient);
        let end = minimise(&mut self.head, &mut f, &|v| curvature.apply(v), LIMITS);
        self.iterations = end.iterations;
        self.score = rows.score(self.held_out.clone(), &self.head);
    }
}

/// Tries the grid from the strongest penalty to the weakest and chooses the one of the least mean loss on held-out rows.
///
/// # Errors
/// What `told` says.
pub(super) fn choose(
    rows: &Rows,
    folds: &[Range<usize>],
    threads: usize,
    grid: &mut Vec<PenaltyRecord>,
    told: &mut dyn FnMut(&PenaltyRecord) -> Result<(), TrainError>,
    interrupt: &Interrupt,
) -> Result<Chosen, TrainError> {
    let size = rows.head().0 * rows.head().1;
    let fold = |held_out: &Range<usize>| Fold {
        rest: [0..held_out.start, held_out.end..rows.len()],
        held_out: held_out.clone(),
        head: vec![0.0; size],
        score: Score::default(),
        iterations: 0,
    };
    let folds: Vec<Mutex<Fold>> = folds.iter().map(|f| Mutex::new(fold(f))).collect();
    let of = |f: &Mutex<Fold>, g: fn(&Fold) -> f64| g(&f.lock().unwrap_or_else(PoisonError::into_inner));
    let all = rows.count(std::slice::from_ref(&(0..rows.len())));
    let mut best: Option<(f64, Chosen)> = None;
    let (mut rises, mut before) = (0, f64::INFINITY);
    for i in 0..GRID {
        let c = 10f64.powf(-4.0 + 8.0 * i as f64 / (GRID - 1) as f64);
        let l2 = 1.0 / (c * all);
        let curvature = rows.curvature(l2, &mean_head(&folds, size));
        each(&folds, threads, &|f| f.fit(rows, c, &curvature));
        let mean = |g: fn(&Fold) -> f64| folds.iter().map(|f| of(f, g)).sum::<f64>() / folds.len() as f64;
        let record = PenaltyRecord {
            l2,
            loss: mean(|f| f.score.loss),
            accuracy: mean(|f| f.score.accuracy),
            iterations: folds.iter().map(|f| of(f, |f| f.iterations as f64)).sum::<f64>() as usize,
        };
        told(&record)?;
        grid.push(record);
        if best.as_ref().is_none_or(|(least, _)| record.loss < *least) {
            best = Some((record.loss, Chosen { l2, head: mean_head(&folds, size) }));
        }
        rises = if record.loss > before { rises + 1 } else { 0 };
        before = record.loss;
        if rises == RISES || interrupt.requested() {
            break;
        }
    }
    let (_, chosen) =
        best.ok_or_else(|| TrainError::Plan("no penalty gives a loss that is a number".into()))?;
    Ok(chosen)
}

fn mean_head(folds: &[Mutex<Fold>], size: usize) -> Vec<f64> {
    let mut head = vec![0.0; size];
    for f in folds {
        let f = f.lock().unwrap_or_else(PoisonError::into_inner);
        head.iter_mut().zip(&f.head).for_each(|(m, v)| *m += v / folds.len() as f64);
    }
    head
}

/// Works on every fold, several at once.
fn each(folds: &[Mutex<Fold>], threads: usize, work: &(dyn Fn(&mut Fold) + Sync)) {
    let next = AtomicUsize::new(0);
    let run = || {
        while let Some(f) = folds.get(next.fetch_add(1, Ordering::Relaxed)) {
            work(&mut f.lock().unwrap_or_else(PoisonError::into_inner));
        }
    };
    std::thread::scope(|s| {
        for _ in 1..threads.min(folds.len()) {
            s.spawn(run);
        }
        run();
    });
}
