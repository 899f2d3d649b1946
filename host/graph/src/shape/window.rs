//! Shapes of operators that pad, repeat and resample.

use super::Rule;

pub(super) const RULES: &[(&str, Rule)] = &[];
