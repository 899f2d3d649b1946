//! From Graft's directories to plain ones of PEFT's.

use crate::error::{Error, Result};
use crate::graft_file::GraftFile;
use crate::stored::StoredAdapter;

/// An adapter as PEFT alone would have written it.
#[derive(Debug, Clone, PartialEq)]
pub struct Plain {
    /// The adapter, without Graft's file.
    pub adapter: StoredAdapter,
    /// What PEFT's format has no place for, in words.
    pub left_out: Vec<String>,
}

/// Leaves out of an adapter what only Graft reads. A head that PEFT has no place for goes only where `without_head` says
/// so.
///
/// # Errors
/// [`Error::NotPeft`] for a method that PEFT has no format for, and for such a head.
pub fn to_peft(adapter: &StoredAdapter, without_head: bool) -> Result<Plain> {
    let refuse =
        |what: String, help: &'static str| Err(Error::NotPeft { dir: adapter.dir.clone(), what, help });
    let graft = adapter.graft.as_ref();
    if adapter.peft.is_none() {
        let method = graft.map_or("", |g| g.method.id.as_str());
        let what = format!("PEFT has no format for what the method `{method}` trains");
        return refuse(what, "merge it into the base instead: graft merge");
    }
    let mut left_out = Vec::new();
    let mut plain = StoredAdapter { graft: None, ..adapter.clone() };
    if adapter.head.as_ref().is_some_and(|h| h.module.is_none()) {
        let head = graft.and_then(|g| g.head.as_ref());
        let why = head.and_then(|h| h.not_stock.as_deref()).unwrap_or("it has no module in PEFT's model");
        if !without_head {
            let what = format!("PEFT has no place for its head: {why}");
            return refuse(what, "give --without-head to convert what changes the base alone");
        }
        left_out.push(format!("the head: {why}"));
        plain.head = None;
    }
    left_out.extend(graft.into_iter().flat_map(described));
    Ok(Plain { adapter: plain, left_out })
}

/// What only `graft.json` says.
fn described(g: &GraftFile) -> Vec<String> {
    let mut said = vec![format!("the objective `{}` and its settings", g.objective.id)];
    if !g.objective.labels.is_empty() {
        said.push(format!("the labels {}", g.objective.labels.join(", ")));
    }
    said.push(format!("the digest of the base, {}", g.base.digest));
    if g.training.is_some() {
        said.push("how it was trained".into());
    }
    said
}
