//! The tensors of a LoRA: PEFT's keys, and what must be there in which shape.

use std::path::Path;

use graft_graph::Tensor;
use indexmap::{IndexMap, IndexSet};

use super::LoraConfig;
use crate::error::{Error, Result};
use crate::peft::{PREFIX, Sorted};
use crate::stored::{Head, ParamKey};
use crate::tensors::Tensors;

/// PEFT's key of a parameter; `hooked` says whether LoRA has wrapped the module.
pub(in crate::peft) fn key(key: &ParamKey, hooked: bool) -> String {
    // PEFT moves what it wraps one level down, so the bias of a hooked module is that of its base layer.
    let layer = if hooked && key.name == "bias" { "base_layer." } else { "" };
    format!("{PREFIX}{}.{layer}{}", key.path, key.name)
}

const A: &str = "lora_A.weight";
const B: &str = "lora_B.weight";

/// Sorts tensors by what they are for and checks them.
pub(in crate::peft) fn sort(config: &LoraConfig, path: &Path, tensors: Tensors) -> Result<Sorted> {
    config.check(path)?;
    let mut out = Sorted::default();
    for (name, tensor) in tensors {
        let extra = |why: &str| Error::ExtraTensor {
            path: path.to_path_buf(),
            tensor: name.clone(),
            why: why.into(),
        };
        let Some(rest) = name.strip_prefix(PREFIX) else {
            return Err(extra("keys of a LoRA begin with `base_model.model.`"));
        };
        if let Some((module, inner)) = saved_module(config, rest) {
            add_head(&mut out.head, module, inner, tensor).map_err(|why| extra(&why))?;
        } else {
            let key = parameter(config, rest).map_err(extra)?;
            if out.parameters.insert(key, tensor).is_some() {
                return Err(extra("another key stands for the same parameter"));
            }
        }
    }
    out.parameters.sort_unstable_keys();
    check_modules(config, path, &out.parameters)?;
    check_head(config, path, out.head.as_ref())?;
    Ok(out)
}

/// Splits a key below a module of `modules_to_save` into the module's path and the tensor's name inside.
fn saved_module<'a>(config: &LoraConfig, rest: &'a str) -> Option<(&'a str, &'a str)> {
    let names = config.common.modules_to_save.as_ref()?;
    if rest.contains(".lora_A.") || rest.contains(".lora_B.") {
        return None;
    }
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

fn parameter(config: &LoraConfig, rest: &str) -> Result<ParamKey, &'static str> {
    for (suffix, name) in [
        (".lora_A.weight", A),
        (".lora_B.weight", B),
        (".lora_A.default.weight", A),
        (".lora_B.default.weight", B),
    ] {
        if let Some(path) = rest.strip_suffix(suffix) {
            return Ok(ParamKey::new(path, name));
        }
    }
    if let Some(path) = rest.strip_suffix(".bias") {
        let hooked = path.strip_suffix(".base_layer");
        if config.bias == "all" || (config.bias == "lora_only" && hooked.is_some()) {
            return Ok(ParamKey::new(hooked.unwrap_or(path), "bias"));
        }
        return Err("it is no part of a LoRA with this setting of `bias`");
    }
    if rest.contains(".lora_embedding_") {
        return Err("LoRA on embeddings is not supported yet");
    }
    if rest.contains(".lora_magnitude_vector") {
        return Err("it belongs to DoRA, but use_dora is not set");
    }
    Err("it is neither a LoRA matrix nor in a module of `modules_to_save`")
}

fn check_modules(config: &LoraConfig, path: &Path, parameters: &IndexMap<ParamKey, Tensor>) -> Result<()> {
    let hooked: IndexSet<&str> =
        parameters.keys().filter(|k| k.name != "bias").map(|k| k.path.as_str()).collect();
    let missing = |tensor: String, why: &str| Error::MissingTensor {
        path: path.to_path_buf(),
        tensor,
        why: why.into(),
    };
    if hooked.is_empty() {
        return Err(missing(format!("{PREFIX}….{A}"), "the file has no LoRA matrix at all"));
    }
    for module in &hooked {
        for name in [A, B] {
            let wanted = ParamKey::new(*module, name);
            if !parameters.contains_key(&wanted) {
                return Err(missing(key(&wanted, true), "its partner is there"));
            }
        }
    }
    for (k, tensor) in parameters {
        let width = parameters.get(&ParamKey::new(&k.path, B)).and_then(|b| b.shape().first().copied());
        if let Some(expected) = misfit(config.r, &k.name, tensor.shape(), width) {
            let (tensor, found) = (key(k, hooked.contains(k.path.as_str())), tensor.shape().to_vec());
            return Err(Error::Shape { path: path.to_path_buf(), tensor, found, expected });
        }
    }
    Ok(())
}

/// What shape a parameter should have, if it has another; `width` is that of the module's output where it is known.
fn misfit(r: usize, name: &str, shape: &[usize], width: Option<usize>) -> Option<String> {
    match (name, shape) {
        (A, [n, i]) if *n == r && *i > 0 => None,
        (B, [o, n]) if *n == r && *o > 0 => None,
        // Of a convolution: its kernel's extents behind, and in `lora_B` the rank over the groups.
        (A, [n, i, kernel @ ..]) if *n == r && *i > 0 && kernel.iter().all(|k| *k > 0) => None,
        (B, [o, n, ones @ ..])
            if *n > 0
                && r.is_multiple_of(*n)
                && *o > 0
                && !ones.is_empty()
                && ones.iter().all(|k| *k == 1) =>
        {
            None
        }
        (A, _) => Some(format!("[r = {r}, in]")),
        (B, _) => Some(format!("[out, r = {r}]")),
        (_, [o]) if width.is_none_or(|w| w == *o) => None,
        _ => Some(width.map_or("[out]".into(), |w| format!("[{w}], the width of lora_B,"))),
    }
}

fn check_head(config: &LoraConfig, path: &Path, head: Option<&Head>) -> Result<()> {
    let missing =
        |tensor: String, why: String| Err(Error::MissingTensor { path: path.to_path_buf(), tensor, why });
    let task = config.common.task_type.as_deref().unwrap_or_default();
    let needs_head = ["SEQ_CLS", "TOKEN_CLS"].contains(&task);
    match (head, config.common.modules_to_save.as_deref()) {
        (None, Some([first, ..])) if needs_head => {
            missing(format!("{PREFIX}{first}.weight"), format!("an adapter for {task} keeps its head"))
        }
        _ => Ok(()),
    }
}
