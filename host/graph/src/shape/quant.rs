//! Shapes of quantised operators.

use super::Rule;

pub(super) const RULES: &[(&str, Rule)] = &[];
