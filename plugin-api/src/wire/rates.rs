//! Messages about learning rates.

use prost::Message;

/// What a parameter learns with. A side that does not know the operation refuses it: with other rates than those asked for
/// it would be another training.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct LearningRate {
    /// The parameter; 0 for every trained vector (rank 1) of method, objective and base that has no rate of its own.
    #[prost(uint64, tag = "1")]
    pub parameter: u64,
    /// See [`crate::LearningRate`]: 0 a multiple of the run's rate, 1 this rate.
    #[prost(uint32, tag = "2")]
    pub kind: u32,
    /// The multiple, or the rate.
    #[prost(double, tag = "3")]
    pub value: f64,
}
