//! Shapes of activation functions.

use super::Rule;

pub(super) const RULES: &[(&str, Rule)] = &[];
