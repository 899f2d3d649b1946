//! Tables and text to batches.
