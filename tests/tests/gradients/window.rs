//! Cases of operators that pad, repeat and resample.

use crate::Row;

pub const CASES: &[Row] = &[];
