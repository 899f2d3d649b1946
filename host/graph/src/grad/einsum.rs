//! Gradients of Einsum.

use super::Row;

pub(super) const RULES: &[Row] = &[];
