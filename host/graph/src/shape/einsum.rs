//! Shapes of Einsum.

use super::Rule;

pub(super) const RULES: &[(&str, Rule)] = &[];
