//! Cases of recurrent operators.

use crate::Row;

pub const CASES: &[Row] = &[];
