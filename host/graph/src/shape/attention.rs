//! Shapes of attention and rotary positions.

use super::Rule;

pub(super) const RULES: &[(&str, Rule)] = &[];
