//! Cases of normalisations.

use crate::Row;

pub const CASES: &[Row] = &[];
