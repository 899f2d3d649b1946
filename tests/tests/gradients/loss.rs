//! Cases of losses.

use crate::Row;

pub const CASES: &[Row] = &[];
