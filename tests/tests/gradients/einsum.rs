//! Cases of Einsum.

use crate::Row;

pub const CASES: &[Row] = &[];
