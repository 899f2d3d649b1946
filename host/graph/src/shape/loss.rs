//! Shapes of losses.

use super::{Infer, Rule};
use crate::dim::Shape;
use crate::ir::Fact;

pub(super) const RULES: &[(&str, Rule)] = &[
    ("NegativeLogLikelihoodLoss", |i| Some(vec![loss(i)])),
    ("SoftmaxCrossEntropyLoss", |i| {
        let log_prob = Fact { dtype: i.dtype(0), shape: i.shape(0).cloned(), elements: None };
        Some(vec![loss(i), log_prob])
    }),
];

/// One number, or one a target.
fn loss(i: &Infer<'_>) -> Fact {
    let shape = match i.node.text("reduction") {
        Some("none") => i.shape(1).cloned(),
        _ => Some(Shape::new()),
    };
    Fact { dtype: i.dtype(0), shape, elements: None }
}
