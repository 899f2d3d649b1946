//! Gradients of operators that pad, repeat and resample.

use super::Row;

pub(super) const RULES: &[Row] = &[];
