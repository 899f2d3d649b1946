//! Messages of heads that have an optimum.

use prost::Message;

/// A method's wish that the head be solved instead of stepped towards.
#[derive(Clone, PartialEq, Message)]
pub struct SolveHead {
    /// Strength of the L2 penalty; absent where cross-validation is to choose it.
    #[prost(double, optional, tag = "1")]
    pub l2: Option<f64>,
    /// Folds of the cross-validation.
    #[prost(uint32, tag = "2")]
    pub folds: u32,
}

/// An objective's word that its loss is a convex function of its head: cross-entropy of the softmax of a linear map.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct SoftmaxHead {
    /// `[batch, width]`, what the head reads.
    #[prost(uint64, tag = "1")]
    pub input: u64,
    /// The parameter `[labels, width]`.
    #[prost(uint64, tag = "2")]
    pub weight: u64,
    /// The parameter `[labels]`.
    #[prost(uint64, tag = "3")]
    pub bias: u64,
    /// `[batch, labels]`, none negative, from the objective's inputs alone.
    #[prost(uint64, tag = "4")]
    pub targets: u64,
    /// `[batch]`, what a row counts in the mean, from the objective's inputs alone.
    #[prost(uint64, tag = "5")]
    pub counts: u64,
}
