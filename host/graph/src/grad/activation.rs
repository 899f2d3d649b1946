//! Gradients of activation functions.

use super::Row;

pub(super) const RULES: &[Row] = &[];
