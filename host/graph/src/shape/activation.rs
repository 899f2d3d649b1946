//! Shapes of activation functions.

use super::{Infer, Rule, one};
use crate::ir::Fact;

pub(super) const RULES: &[(&str, Rule)] = &[("Swish", same)];

fn same(i: &Infer<'_>) -> Option<Vec<Fact>> {
    one(i.dtype(0), i.shape(0).cloned())
}
