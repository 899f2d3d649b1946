//! `batch`: from the parameters of one adapter to a bank of many, each row of a batch with its own (vmap over
//! parameters).
//!
//! A graph that a method and an objective have written into a base is taken apart into [`Fragment`]s: pieces that read
//! values of the base and parameters, and that put something in the place of a value of the base or give an output
//! ([`take_apart`]). Pieces of one structure are alike whoever's they are, whatever the sizes of the axes are that may be
//! padded. [`join`] writes fragments of many adapters into one graph: parameters become banks, and each row of the batch
//! names the rows of the banks that are its own. Where several fragments stand in the place of one value, each row takes
//! that of its own adapter, and one without takes the base's value as it is.
//!
//! No method is known here; operators have a rule each in one table (`rules.rs`), and one without is told of.

mod build;
mod emit;
mod fragment;
mod fuse;
mod join;
mod rules;
mod slot;
mod take_apart;
#[cfg(test)]
mod tests;
pub mod virtual_tokens;

pub use fragment::{Fragment, Leaf, Neutral, Output, Signature};
pub use join::{Joined, Placed, join};
pub use rules::supported;
pub use slot::{Bank, Layout};
pub use take_apart::{Member, take_apart};

/// Why an adapter can't share a batch with others.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{op}{}: {why}", if .place.is_empty() { String::new() } else { format!(" ({})", .place) })]
pub struct Unbatchable {
    /// The operator.
    pub op: String,
    /// The module or the node.
    pub place: String,
    /// What stands in the way.
    pub why: String,
}
