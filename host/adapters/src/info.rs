//! What an adapter is, in a few lines.

use serde::Serialize;

use crate::graft_file::{BaseRef, Training};
use crate::stored::StoredAdapter;

/// How much of an adapter stock PEFT can load.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PeftSupport {
    /// Everything: hidden states and head.
    Whole,
    /// What changes the base; not the head.
    HiddenStates,
    /// Nothing.
    No,
}

/// The summary of an adapter.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AdapterInfo {
    /// The method's id (`lora`, `linear-probe`).
    pub method: String,
    /// The PEFT type, if it is an adapter in PEFT's format.
    pub peft_type: Option<String>,
    /// The task that PEFT loads it for.
    pub task_type: Option<String>,
    /// The modules that the method hooks.
    pub modules: usize,
    /// Trained numbers of the method.
    pub parameters: usize,
    /// Trained numbers of the head.
    pub head_parameters: usize,
    /// Bytes of all tensors.
    pub bytes: usize,
    /// The base, where it is known; an adapter of PEFT's has a name at most.
    pub base: Option<BaseRef>,
    /// The objective's id, where it is known.
    pub objective: Option<String>,
    /// How the objective pools, where it says so.
    pub pooling: Option<String>,
    /// The labels.
    pub labels: Vec<String>,
    /// How much of it stock PEFT can load.
    pub peft: PeftSupport,
    /// Why not everything, where it is not.
    pub peft_why_not: Option<String>,
    /// How it was trained, where that is known.
    pub training: Option<Training>,
}

/// Sums an adapter up.
pub fn info(adapter: &StoredAdapter) -> AdapterInfo {
    let graft = adapter.graft.as_ref();
    let head = graft.and_then(|g| g.head.as_ref());
    let config = adapter.peft.as_ref();
    let method = graft.map(|g| g.method.id.clone()).or(config.map(|c| c.method().to_string()));
    let method = method.or(adapter.hub.as_ref().map(|h| h.method().to_string()));
    let own_head = adapter.head.as_ref().is_some_and(|h| h.module.is_none());
    let head_tensors = || adapter.head.iter().flat_map(|h| h.tensors.values());
    let (peft, peft_why_not) = match config {
        None if adapter.parameters.is_empty() => {
            (PeftSupport::No, Some("PEFT has no adapters that leave the base as it is".to_string()))
        }
        None if adapter.hub.is_some() => {
            (PeftSupport::No, Some("it is in the format of AdapterHub's library, which loads it".to_string()))
        }
        None => (PeftSupport::No, Some("PEFT has no format for this method's parameters".to_string())),
        Some(_) if own_head => (PeftSupport::HiddenStates, head.and_then(|h| h.not_stock.clone())),
        Some(_) => (PeftSupport::Whole, None),
    };
    let named = || {
        let name = config?.common().base_model_name_or_path.clone()?;
        Some(BaseRef { name, ..Default::default() })
    };
    AdapterInfo {
        method: method.unwrap_or_default(),
        peft_type: config.map(|c| c.common().peft_type.name().to_string()),
        task_type: config.and_then(|c| c.common().task_type.clone()),
        modules: if config.is_some() { adapter.hooked().len() } else { adapter.paths().len() },
        parameters: adapter.parameters.values().map(|t| t.len()).sum(),
        head_parameters: head_tensors().map(|t| t.len()).sum(),
        bytes: adapter.parameters.values().chain(head_tensors()).map(|t| t.bytes().len()).sum(),
        base: graft.map(|g| g.base.clone()).or_else(named),
        objective: graft.map(|g| g.objective.id.clone()),
        pooling: head.and_then(|h| h.pooling.clone()),
        labels: graft.map(|g| g.objective.labels.clone()).unwrap_or_default(),
        peft,
        peft_why_not,
        training: graft.and_then(|g| g.training.clone()),
    }
}
