//! Shapes of convolutions and poolings.

use super::Rule;

pub(super) const RULES: &[(&str, Rule)] = &[];
