//! Shapes of recurrent operators.

use super::Rule;

pub(super) const RULES: &[(&str, Rule)] = &[];
