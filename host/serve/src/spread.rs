//! How long things took, as counts on a fixed scale.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Steps of the scale.
const STEPS: usize = 35;

/// The upper ends of the steps in seconds: from 15 µs to 15 s, each half as much again.
pub(crate) fn scale() -> [f64; STEPS] {
    let mut at = 1e-5;
    std::array::from_fn(|_| {
        at *= 1.5;
        at
    })
}

/// Counts of durations by the step of [`scale`] that they fall into; those beyond the last one are in the last place.
#[derive(Debug)]
pub struct Spread([AtomicU64; STEPS + 1]);

impl Default for Spread {
    fn default() -> Spread {
        Spread(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Spread {
    /// Counts one.
    pub fn add(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let step = scale().iter().position(|end| seconds <= *end).unwrap_or(STEPS);
        self.0[step].fetch_add(1, Ordering::Relaxed);
    }

    /// What was counted in each step.
    pub fn counts(&self) -> Vec<u64> {
        self.0.iter().map(|n| n.load(Ordering::Relaxed)).collect()
    }

    /// The seconds that a share of all were below, as near as the scale tells; `None` where nothing was counted.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let (counts, scale) = (self.counts(), scale());
        let wanted = share * counts.iter().sum::<u64>() as f64;
        let mut below = 0.0;
        for (step, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let count = *count as f64;
            if below + count >= wanted {
                let Some(end) = scale.get(step) else { break };
                return Some(end / 1.5 * 1.5f64.powf((wanted - below) / count));
            }
            below += count;
        }
        (below > 0.0 || counts[STEPS] > 0).then(|| scale[STEPS - 1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_a_step_of_what_was_counted() {
        let all = Spread::default();
        assert_eq!(all.quantile(0.5), None);
        (1..=100).for_each(|ms| all.add(Duration::from_millis(ms)));
        for (share, wanted) in [(0.5, 0.050), (0.99, 0.099)] {
            let found = all.quantile(share).expect("there are some");
            assert!((wanted / 1.5..wanted * 1.5).contains(&found), "{share}: {found}");
        }
        assert_eq!(all.counts().iter().sum::<u64>(), 100);
    }

    #[test]
    fn what_is_beyond_the_scale_is_at_its_end() {
        let all = Spread::default();
        all.add(Duration::from_secs(1000));
        assert_eq!(all.quantile(0.5), Some(scale()[STEPS - 1]));
    }
}
