//! Graft plugin: lora.
