//! Gradients of convolutions and poolings.

use super::Row;

pub(super) const RULES: &[Row] = &[];
