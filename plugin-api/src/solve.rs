//! Heads that have an optimum: how a method asks for it, and how an objective says that there is one.

use crate::wire::{self, host_op};
use crate::{Code, Graph, Result, Value};

/// How a method wants the head solved.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeadSolver {
    /// Strength λ of the penalty λ/2·‖weight‖² beside the mean loss; without it cross-validation chooses.
    pub l2: Option<f64>,
    /// Folds of that cross-validation, at least 2.
    pub folds: u32,
}

/// A loss that is convex in a linear head: with `logits = input · weightᵀ + bias` it is
/// `−Σᵢₖ targets[i,k] · log softmax(logits)[i,k] / Σᵢ counts[i]`, and nothing else of the graph is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SoftmaxHead {
    /// `[batch, width]` f32, what the head reads.
    pub input: Value,
    /// The parameter `[labels, width]` f32.
    pub weight: Value,
    /// The parameter `[labels]` f32.
    pub bias: Value,
    /// `[batch, labels]` f32, none negative; made from the objective's inputs and constants alone.
    pub targets: Value,
    /// `[batch]` f32, what a row counts in the mean; made likewise.
    pub counts: Value,
}

impl Graph<'_> {
    /// Asks the host to solve the head to its optimum, for a method that trains nothing itself. Where the objective
    /// declares no convex head, or the host knows no solver, it is trained step by step as any other.
    ///
    /// # Errors
    /// `REFUSED` for a strength that is negative or no number, and for fewer than 2 folds.
    #[track_caller]
    pub fn solve_head(&self, how: HeadSolver) -> Result<()> {
        optional(self.call(host_op::SOLVE_HEAD, &wire::SolveHead { l2: how.l2, folds: how.folds }))
    }

    /// Declares that the loss being built is convex in the head. The host tries on a batch whether it is what is said.
    ///
    /// # Errors
    /// `REFUSED` when the values are no such head, for example a weight that is no parameter.
    #[track_caller]
    pub fn declare_softmax_head(&self, head: SoftmaxHead) -> Result<()> {
        let SoftmaxHead { input, weight, bias, targets, counts } = head;
        let request = wire::SoftmaxHead {
            input: input.id(),
            weight: weight.id(),
            bias: bias.id(),
            targets: targets.id(),
            counts: counts.id(),
        };
        optional(self.call(host_op::SOFTMAX_HEAD, &request))
    }
}

/// A host that lacks the operation trains as it always did.
fn optional(answer: Result<()>) -> Result<()> {
    match answer {
        Err(e) if e.code == Code::UNSUPPORTED => Ok(()),
        other => other,
    }
}
