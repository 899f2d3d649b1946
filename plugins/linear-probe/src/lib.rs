//! Graft plugin: linear-probe.
