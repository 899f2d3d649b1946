//! The `graft` binary.
fn main() {}
