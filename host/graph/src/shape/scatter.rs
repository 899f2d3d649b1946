//! Shapes of operators that take and place elements by index.

use super::{Infer, Rule, one};
use crate::ir::Fact;

pub(super) const RULES: &[(&str, Rule)] =
    &[("Compress", compress), ("ReverseSequence", |i| one(i.dtype(0), i.shape(0).cloned()))];

/// How many elements are taken is known at run time only.
fn compress(i: &Infer<'_>) -> Option<Vec<Fact>> {
    let mut shape = i.shape(0)?.clone();
    match i.node.attrs.contains_key("axis") {
        true => {
            let axis = i.axis(i.node.int("axis", 0), shape.len())?;
            shape[axis] = i.unknown(axis);
        }
        false => shape = vec![i.unknown(0)],
    }
    one(i.dtype(0), Some(shape))
}
