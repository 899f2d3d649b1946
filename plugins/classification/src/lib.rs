//! Graft plugin: classification.
