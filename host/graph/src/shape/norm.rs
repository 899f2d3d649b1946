//! Shapes of normalisations.

use super::Rule;

pub(super) const RULES: &[(&str, Rule)] = &[];
