//! The engine side of Graft's plugin boundary: finding, checking, loading and isolating plugins.
//!
//! Loading a plugin runs native code of whoever wrote it. Reading its manifest does not. A panic on either side becomes
//! an error on the other; what cannot be contained is a plugin that ends the process, never returns, or breaks
//! its memory.

pub mod adapt;
mod callbacks;
mod dry_run;
mod error;
pub mod find;
mod handles;
mod host;
mod load;
mod made_up;
mod manifest;
mod tiny;
mod verify;

pub use adapt::{Adapted, adapt, adapt_beside, adapt_laid_out};
pub use dry_run::{Trial, without_data};
pub use error::{PluginError, Result};
pub use find::{Found, Kind};
pub use graft_plugin_api as api;
pub use handles::{BuiltValues, Method, Objective};
pub use host::{GraphHost, NoGraph, set_cancelled};
pub use load::Plugin;
pub use manifest::{MAX_FILE, MAX_MANIFEST, read_manifest};
pub use verify::{Check, Tried, Verified, verify};
