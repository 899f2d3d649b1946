//! The stable plugin boundary of Graft and the author's SDK over it.
//!
//! A plugin is one shared library that depends on this crate alone. Its author declares a config, implements
//! [`Method`] or [`Objective`] on it,
//!
//! ```
//! use graft_plugin_api::*;
//!
//! config! {
//!     /// Scales the output of each chosen module by a learned number per feature.
//!     pub struct Scale {
//!         /// Module names, or a pattern.
//!         target_modules: Option<Names> = None,
//!     }
//! }
//!
//! impl Method for Scale {
//!     const ID: &'static str = "scale";
//!     const SUMMARY: &'static str = "learned scale of each output feature";
//!
//!     fn apply(&self, g: &Graph<'_>) -> Result<()> {
//!         let sites = g.select(&Selection {
//!             targets: self.target_modules.as_ref(),
//!             exclude: None,
//!             kinds: &[SiteKind::LINEAR],
//!         })?;
//!         g.each(&sites, |site| {
//!             let spec = ParamSpec::new("scale", &[site.out_features]).init(Init::Ones).neutral(Init::Ones);
//!             let scale = g.param(spec.site(&site.path))?;
//!             g.replace_output(site, g.mul(site.output()?, scale)?)
//!         })
//!     }
//! }
//!
//! ```
//!
//! and exports it with `export_plugin! { id: "scale", methods: [Scale], objectives: [] }`.
//!
//! What crosses the boundary are two function pointers over bytes ([`abi`]); the bytes are messages that grow
//! ([`wire`]). Plugins must be built with unwinding panics (Rust's default): a panic is then an error that names plugin
//! and operation, and that instance is not used again.

// The derives of `config!` name this crate as authors see it.
extern crate self as graft_plugin_api;

pub mod abi;
pub mod config;
pub mod correlation;
mod error;
pub mod export;
mod graph;
pub mod guard;
mod layers;
mod macros;
pub mod manifest;
mod method;
mod objective;
mod ops;
mod params;
mod patterns;
mod pooling;
mod rates;
mod sites;
mod solve;
mod summary;
mod tensor;
mod tokens;
mod virtual_tokens;
pub mod wire;

#[doc(hidden)]
pub use abi_stable;
pub use schemars;
pub use serde;
pub use serde_json;
pub use serde_json::{Value as Json, json};

pub use config::Names;
pub use error::{Code, Error, Result};
pub use graph::{Graph, Host, Level, Value, attr};
pub use layers::LinearHead;
pub use method::Method;
pub use objective::{Built, Cell, Field, FieldKind, Metric, Objective, Row};
pub use params::{Course, Decay, Distribution, Init, ParamSpec, Role};
pub use patterns::Patterns;
pub use pooling::Pooling;
pub use rates::LearningRate;
pub use sites::{
    Attention, Residual, Selection, Site, SiteKind, Sublayer, choose, default_targets, matches_end, matching,
    names_of,
};
pub use solve::{HeadSolver, SoftmaxHead};
pub use summary::{Numbers, Summary};
pub use tensor::{DType, Dim, Fact, Tensor, tensor};
pub use tokens::{Piece, Tokens};
pub use virtual_tokens::VirtualTokens;
