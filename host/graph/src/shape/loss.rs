//! Shapes of losses.

use super::Rule;

pub(super) const RULES: &[(&str, Rule)] = &[];
