//! Shapes of operators that take and place elements by index.

use super::Rule;

pub(super) const RULES: &[(&str, Rule)] = &[];
