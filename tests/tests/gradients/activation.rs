//! Cases of activation functions.

use crate::Row;

pub const CASES: &[Row] = &[];
