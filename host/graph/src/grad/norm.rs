//! Gradients of normalisations.

use super::Row;

pub(super) const RULES: &[Row] = &[];
