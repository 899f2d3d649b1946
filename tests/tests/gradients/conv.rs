//! Cases of convolutions and poolings.

use crate::Row;

pub const CASES: &[Row] = &[];
