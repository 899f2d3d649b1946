//! What crosses crates: conformance, ABI compatibility, end to end.
