//! Cases of operators that take and place elements by index.

use crate::Row;

pub const CASES: &[Row] = &[];
