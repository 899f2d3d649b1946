//! Gradients of losses.

use super::Row;

pub(super) const RULES: &[Row] = &[];
