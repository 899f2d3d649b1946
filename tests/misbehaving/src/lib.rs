//! Plugins whose only job is to misbehave.
