//! Thresholds of probabilities, tuned for F1.

/// The threshold with the best F1 of `probability ≥ threshold` against `truth`: in the middle between two of the
/// probabilities, or between the lowest one and 0. The highest of equally good ones; 0.5 where nothing is true.
pub fn tuned(probabilities: &[f64], truth: &[bool]) -> f64 {
    let mut order: Vec<(f64, bool)> = probabilities.iter().copied().zip(truth.iter().copied()).collect();
    order.sort_by(|a, b| b.0.total_cmp(&a.0));
    let positives = truth.iter().filter(|t| **t).count();
    let (mut hits, mut best, mut threshold) = (0usize, 0.0, 0.5);
    for (said, (p, right)) in order.iter().enumerate() {
        hits += usize::from(*right);
        let next = order.get(said + 1).map(|o| o.0);
        // Equal probabilities are all above a threshold or all below it.
        if next == Some(*p) {
            continue;
        }
        let next = next.unwrap_or(0.0);
        let f1 = 2.0 * hits as f64 / (said + 1 + positives) as f64;
        if f1 > best {
            let middle = next + (p - next) / 2.0;
            (best, threshold) = (f1, if middle > next { middle } else { *p });
        }
    }
    threshold
}

#[cfg(test)]
mod tests {
    use super::*;

    fn f1(probabilities: &[f64], truth: &[bool], threshold: f64) -> f64 {
        let said: Vec<bool> = probabilities.iter().map(|p| *p >= threshold).collect();
        let hits = said.iter().zip(truth).filter(|(s, t)| **s && **t).count() as f64;
        let total = said.iter().chain(truth).filter(|x| **x).count() as f64;
        if total == 0.0 { 0.0 } else { 2.0 * hits / total }
    }

    #[test]
    fn no_other_threshold_has_a_better_f1() {
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f64 / (1u64 << 24) as f64
        };
        for _ in 0..200 {
            // Coarse, so that some are equal.
            let p: Vec<f64> = (0..12).map(|_| (next() * 8.0).round() / 8.0).collect();
            let truth: Vec<bool> = p.iter().map(|p| next() < 0.2 + 0.6 * p).collect();
            let best = f1(&p, &truth, tuned(&p, &truth));
            let grid = (0..=1000).map(|k| f64::from(k) / 1000.0);
            assert!(grid.into_iter().all(|t| f1(&p, &truth, t) <= best + 1e-12), "{p:?} {truth:?} {best}");
        }
    }

    #[test]
    fn a_threshold_lies_between_what_it_parts() {
        assert_eq!(tuned(&[0.9, 0.2, 0.6], &[true, false, true]), 0.4);
        assert_eq!(tuned(&[0.9, 0.2], &[true, true]), 0.1);
        assert_eq!(tuned(&[0.9, 0.2], &[false, false]), 0.5);
        assert_eq!(tuned(&[], &[]), 0.5);
    }
}
