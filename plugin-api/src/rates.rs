//! Learning rates of single parameters.

use crate::wire::{self, host_op};
use crate::{Code, Error, Graph, Result, Value};

/// What a parameter learns with while the run's schedule stands at its peak; the schedule scales it as it does the run's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LearningRate {
    /// This multiple of the run's rate.
    Times(f64),
    /// This rate, whatever the run's is.
    Of(f64),
}

impl Default for LearningRate {
    fn default() -> LearningRate {
        LearningRate::Times(1.0)
    }
}

impl LearningRate {
    /// From the numbers of [`wire::LearningRate`].
    ///
    /// # Errors
    /// `UNSUPPORTED` for another kind, `REFUSED` for a number that is negative or none.
    pub fn from_wire(kind: u32, value: f64) -> Result<LearningRate> {
        if !(value.is_finite() && value >= 0.0) {
            let what = format!("{value} is no learning rate, and no multiple of one");
            return Err(Error::new(Code::REFUSED, what).help("it must be a finite number from 0 up"));
        }
        match kind {
            0 => Ok(LearningRate::Times(value)),
            1 => Ok(LearningRate::Of(value)),
            k => Err(Error::new(Code::UNSUPPORTED, format!("learning rate of kind {k} is unknown here"))),
        }
    }

    fn request(self, parameter: u64) -> wire::LearningRate {
        let (kind, value) = match self {
            LearningRate::Times(factor) => (0, factor),
            LearningRate::Of(rate) => (1, rate),
        };
        wire::LearningRate { parameter, kind, value }
    }
}

impl Graph<'_> {
    /// The parameter learns with a rate of its own. It is part of the training and not of the adapter.
    ///
    /// # Errors
    /// `REFUSED` for a value that is no parameter, and for a number that is negative or none; `UNSUPPORTED` where the host
    /// knows no such rates.
    #[track_caller]
    pub fn learning_rate(&self, parameter: Value, rate: LearningRate) -> Result<()> {
        self.call(host_op::LEARNING_RATE, &rate.request(parameter.id()))
    }

    /// Every trained vector (rank 1: biases, norms, magnitudes), the head's and the base's too, learns with this rate,
    /// unless it has one of its own.
    ///
    /// # Errors
    /// As [`Graph::learning_rate`].
    #[track_caller]
    pub fn learning_rate_of_vectors(&self, rate: LearningRate) -> Result<()> {
        self.call(host_op::LEARNING_RATE, &rate.request(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_survives_the_wire() {
        for rate in [LearningRate::Times(16.0), LearningRate::Of(1e-6)] {
            let sent = rate.request(7);
            assert_eq!(sent.parameter, 7);
            assert_eq!(LearningRate::from_wire(sent.kind, sent.value).unwrap(), rate);
        }
    }

    #[test]
    fn numbers_that_are_no_rate_are_refused() {
        assert_eq!(LearningRate::from_wire(0, -1.0).unwrap_err().code, Code::REFUSED);
        assert_eq!(LearningRate::from_wire(1, f64::NAN).unwrap_err().code, Code::REFUSED);
        assert_eq!(LearningRate::from_wire(2, 1.0).unwrap_err().code, Code::UNSUPPORTED);
    }
}
