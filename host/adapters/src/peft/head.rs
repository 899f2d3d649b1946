//! Telling the tensors of an adapter apart: parameters of the method, and heads under PEFT's `modules_to_save`, which
//! every PEFT type keeps alike.

use std::path::Path;

use graft_graph::Tensor;

use super::{Common, PREFIX, Sorted};
use crate::error::{Error, Result};
use crate::stored::{Head, ParamKey};
use crate::tensors::Tensors;

/// Sorts tensors by what they are for. `own` knows keys that are the method's even below a module to save; `parameter`
/// reads the key of a parameter, behind [`PREFIX`], or says why it is none.
pub(super) fn sort(
    common: &Common,
    path: &Path,
    tensors: Tensors,
    own: impl Fn(&str) -> bool,
    parameter: impl Fn(&str) -> Result<ParamKey, &'static str>,
) -> Result<Sorted> {
    sort_below(PREFIX, common, path, tensors, own, parameter)
}

/// As [`sort`], where keys begin with `prefix`.
pub(super) fn sort_below(
    prefix: &str,
    common: &Common,
    path: &Path,
    tensors: Tensors,
    own: impl Fn(&str) -> bool,
    parameter: impl Fn(&str) -> Result<ParamKey, &'static str>,
) -> Result<Sorted> {
    let mut out = Sorted::default();
    for (name, tensor) in tensors {
        let extra = |why: &str| Error::ExtraTensor {
            path: path.to_path_buf(),
            tensor: name.clone(),
            why: why.into(),
        };
        let Some(rest) = name.strip_prefix(prefix) else {
            return Err(extra(&format!("keys of such an adapter begin with `{prefix}`")));
        };
        if let Some((module, inner)) = saved_module(common, rest).filter(|_| !own(rest)) {
            add_head(&mut out.head, module, inner, tensor).map_err(|why| extra(&why))?;
        } else {
            let key = parameter(rest).map_err(extra)?;
            if out.parameters.insert(key, tensor).is_some() {
                return Err(extra("another key stands for the same parameter"));
            }
        }
    }
    out.parameters.sort_unstable_keys();
    check_head(common, path, out.head.as_ref())?;
    Ok(out)
}

/// Splits a key below a module of `modules_to_save` into the module's path and the tensor's name inside.
fn saved_module<'a>(common: &Common, rest: &'a str) -> Option<(&'a str, &'a str)> {
    let names = common.modules_to_save.as_ref()?;
    let ends = rest.match_indices('.').map(|(i, _)| i);
    let is_saved = |path: &str| {
        names.iter().any(|n| path == n || path.strip_suffix(n.as_str()).is_some_and(|p| p.ends_with('.')))
    };
    let end = ends.into_iter().find(|i| is_saved(&rest[..*i]))?;
    Some((&rest[..end], &rest[end + 1..]))
}

/// Adds a tensor to the head. PEFT's older names are `modules_to_save.default.weight`; with `bias = all` it also keeps
/// copies of the head's bias (`modules_to_save.bias`, and the untrained `original_module.bias`), which say nothing new.
fn add_head(head: &mut Option<Head>, module: &str, inner: &str, tensor: Tensor) -> Result<(), String> {
    if inner.starts_with("original_module.") {
        return Ok(());
    }
    let name = inner.strip_prefix("modules_to_save.default.").or(inner.strip_prefix("modules_to_save."));
    let name = name.unwrap_or(inner);
    let head = head.get_or_insert_with(|| Head { module: Some(module.to_string()), tensors: Tensors::new() });
    if head.module.as_deref() != Some(module) {
        let first = head.module.as_deref().unwrap_or_default();
        return Err(format!("`{first}` is the head; a second module that was trained whole cannot be used"));
    }
    match head.tensors.insert(name.to_string(), tensor.clone()) {
        Some(before) if before != tensor => Err("another key gives the same head tensor other values".into()),
        _ => Ok(()),
    }
}

/// An adapter for a classifier that names modules to save must have one of them.
fn check_head(common: &Common, path: &Path, head: Option<&Head>) -> Result<()> {
    let missing =
        |tensor: String, why: String| Err(Error::MissingTensor { path: path.to_path_buf(), tensor, why });
    let task = common.task_type.as_deref().unwrap_or_default();
    let needs_head = ["SEQ_CLS", "TOKEN_CLS"].contains(&task);
    match (head, common.modules_to_save.as_deref()) {
        (None, Some([first, ..])) if needs_head => {
            missing(format!("{PREFIX}{first}.weight"), format!("an adapter for {task} keeps its head"))
        }
        _ => Ok(()),
    }
}
