//! Gradients of operators that take and place elements by index.

use super::Row;

pub(super) const RULES: &[Row] = &[];
