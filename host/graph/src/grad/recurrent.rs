//! Gradients of recurrent operators.

use super::Row;

pub(super) const RULES: &[Row] = &[];
