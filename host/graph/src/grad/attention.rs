//! Gradients of attention and rotary positions.

use super::Row;

pub(super) const RULES: &[Row] = &[];
