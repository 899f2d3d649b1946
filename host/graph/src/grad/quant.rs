//! Gradients of quantised operators.

use super::Row;

pub(super) const RULES: &[Row] = &[];
