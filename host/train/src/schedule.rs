//! Learning rate schedules with a linear warm-up.
//!
//! The arithmetic is that of `get_constant_schedule_with_warmup`, `get_linear_schedule_with_warmup` and
//! `get_cosine_schedule_with_warmup` of the library transformers under torch's `LambdaLR`: step 0, the first one,
//! uses `lr · factor(0)`, which is 0 with a warm-up.

use serde::{Deserialize, Serialize};

/// What happens after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleKind {
    /// The rate stays.
    Constant,
    /// The rate falls in a straight line to 0 at the end.
    #[default]
    Linear,
    /// The rate falls to 0 along half a cosine.
    Cosine,
}

/// A schedule of a known length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// What happens after the warm-up.
    pub kind: ScheduleKind,
    /// Steps of the warm-up; 0 for none.
    pub warmup: u64,
    /// Steps altogether, the warm-up included.
    pub total: u64,
}

impl Schedule {
    /// What the learning rate is multiplied by at `step`, counted from 0.
    pub fn factor(&self, step: u64) -> f64 {
        if step < self.warmup {
            return step as f64 / self.warmup.max(1) as f64;
        }
        let rest = self.total.saturating_sub(self.warmup).max(1) as f64;
        match self.kind {
            ScheduleKind::Constant => 1.0,
            ScheduleKind::Linear => self.total.saturating_sub(step) as f64 / rest,
            ScheduleKind::Cosine => {
                let progress = (step - self.warmup) as f64 / rest;
                (0.5 * (1.0 + libm::cos(std::f64::consts::PI * progress))).max(0.0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(kind: ScheduleKind, warmup: u64) -> Vec<f64> {
        let s = Schedule { kind, warmup, total: 10 };
        (0..12).map(|i| 0.5 * s.factor(i)).collect()
    }

    fn close(found: Vec<f64>, expected: [f64; 12]) {
        for (i, (a, b)) in found.iter().zip(expected).enumerate() {
            assert!((a - b).abs() < 1e-15, "step {i}: {a} instead of {b}");
        }
    }

    #[test]
    fn linear_is_that_of_transformers() {
        let e = [
            0.0,
            0.16666666666666666,
            0.3333333333333333,
            0.5,
            0.42857142857142855,
            0.35714285714285715,
            0.2857142857142857,
            0.21428571428571427,
            0.14285714285714285,
            0.07142857142857142,
            0.0,
            0.0,
        ];
        close(rates(ScheduleKind::Linear, 3), e);
        close(
            rates(ScheduleKind::Linear, 0),
            [0.5, 0.45, 0.4, 0.35, 0.3, 0.25, 0.2, 0.15, 0.1, 0.05, 0.0, 0.0],
        );
    }

    #[test]
    fn cosine_is_that_of_transformers_even_behind_its_end() {
        let e = [
            0.0,
            0.16666666666666666,
            0.3333333333333333,
            0.5,
            0.47524221697560476,
            0.4058724504646834,
            0.3056302334890786,
            0.19436976651092142,
            0.09412754953531663,
            0.02475778302439524,
            0.0,
            0.024757783024395214,
        ];
        close(rates(ScheduleKind::Cosine, 3), e);
        let e = [
            0.5,
            0.4877641290737884,
            0.45225424859373686,
            0.3969463130731183,
            0.32725424859373686,
            0.25,
            0.17274575140626316,
            0.10305368692688174,
            0.047745751406263165,
            0.012235870926211617,
            0.0,
            0.012235870926211617,
        ];
        close(rates(ScheduleKind::Cosine, 0), e);
    }

    #[test]
    fn constant_warms_up_and_stays() {
        let e = [0.0, 0.16666666666666666, 0.3333333333333333, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5];
        close(rates(ScheduleKind::Constant, 3), e);
        close(rates(ScheduleKind::Constant, 0), [0.5; 12]);
    }

    #[test]
    fn lengths_that_make_no_sense_divide_by_nothing() {
        for kind in [ScheduleKind::Constant, ScheduleKind::Linear, ScheduleKind::Cosine] {
            for (warmup, total) in [(0, 0), (5, 2), (1, 1), (u64::MAX, u64::MAX)] {
                let s = Schedule { kind, warmup, total };
                for step in [0, 1, 7, u64::MAX] {
                    assert!((0.0..=1.0).contains(&s.factor(step)), "{s:?} at {step}");
                }
            }
        }
    }
}
