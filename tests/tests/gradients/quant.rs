//! Cases of quantised operators.

use crate::Row;

pub const CASES: &[Row] = &[];
