//! What crosses crates: conformance, ABI compatibility, end to end. Here: what those tests share.

pub mod browser;
pub mod differences;
mod draw;
pub mod fixture;
pub mod fixture_base;
pub mod fixture_images;
pub mod outside;
mod places;
pub mod served;
pub mod server;

pub use draw::{Array, Draw};
pub use places::{clients, on_provider, runtime, shared};
