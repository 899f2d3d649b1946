//! Cases of attention and rotary positions.

use crate::Row;

pub const CASES: &[Row] = &[];
