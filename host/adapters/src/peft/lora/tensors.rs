//! The tensors of a LoRA: PEFT's keys, and what must be there in which shape.

use std::path::Path;

use graft_graph::Tensor;
use indexmap::{IndexMap, IndexSet};

use super::LoraConfig;
use crate::error::{Error, Result};
use crate::peft::{PREFIX, Sorted, head};
use crate::stored::ParamKey;
use crate::tensors::Tensors;

/// PEFT's key of a parameter; `hooked` says whether LoRA has wrapped the module.
pub(in crate::peft) fn key(key: &ParamKey, hooked: bool) -> String {
    // PEFT moves what it wraps one level down, so the bias of a hooked module is that of its base layer.
    let layer = if hooked && key.name == "bias" { "base_layer." } else { "" };
    format!("{PREFIX}{}.{layer}{}", key.path, key.name)
}

const A: &str = "lora_A.weight";
const B: &str = "lora_B.weight";
const TABLE_A: &str = "lora_embedding_A";
const TABLE_B: &str = "lora_embedding_B";
const MAGNITUDE: &str = "lora_magnitude_vector";

/// Sorts tensors by what they are for and checks them.
pub(in crate::peft) fn sort(config: &LoraConfig, path: &Path, tensors: Tensors) -> Result<Sorted> {
    config.check(path)?;
    let own = |rest: &str| {
        [".lora_A.", ".lora_B.", ".lora_embedding_", ".lora_magnitude_vector"]
            .iter()
            .any(|o| rest.contains(o))
    };
    let out = head::sort(&config.common, path, tensors, own, |rest| parameter(config, rest))?;
    check_modules(config, path, &out.parameters)?;
    Ok(out)
}

fn parameter(config: &LoraConfig, rest: &str) -> Result<ParamKey, &'static str> {
    for (suffix, name) in [
        (".lora_A.weight", A),
        (".lora_B.weight", B),
        (".lora_A.default.weight", A),
        (".lora_B.default.weight", B),
        (".lora_embedding_A", TABLE_A),
        (".lora_embedding_B", TABLE_B),
        (".lora_embedding_A.default", TABLE_A),
        (".lora_embedding_B.default", TABLE_B),
        (".lora_magnitude_vector", MAGNITUDE),
        (".lora_magnitude_vector.default.weight", MAGNITUDE),
    ] {
        if name == MAGNITUDE && !config.use_dora {
            continue;
        }
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
        // An embedding has tables in the place of layers.
        let table = [TABLE_A, TABLE_B].iter().any(|n| parameters.contains_key(&ParamKey::new(*module, *n)));
        let pair = if table { [TABLE_A, TABLE_B] } else { [A, B] };
        for name in pair.into_iter().chain(config.use_dora.then_some(MAGNITUDE)) {
            let wanted = ParamKey::new(*module, name);
            if !parameters.contains_key(&wanted) {
                return Err(missing(key(&wanted, true), "its partner is there"));
            }
        }
    }
    let rank_of = config.ranks();
    for (k, tensor) in parameters {
        let b =
            [B, TABLE_B].iter().find_map(|n| parameters.get(&ParamKey::new(&k.path, *n))).map(Tensor::shape);
        if let Some(expected) = misfit(rank_of(&k.path), &k.name, tensor.shape(), b) {
            let (tensor, found) = (key(k, hooked.contains(k.path.as_str())), tensor.shape().to_vec());
            return Err(Error::Shape { path: path.to_path_buf(), tensor, found, expected });
        }
    }
    Ok(())
}

/// What shape a parameter should have, if it has another; `b` is the shape of the module's `lora_B`, where it has
/// one.
fn misfit(r: usize, name: &str, shape: &[usize], b: Option<&[usize]>) -> Option<String> {
    let width = b.and_then(|b| b.first().copied());
    match (name, shape) {
        (TABLE_A, [n, rows]) if *n == r && *rows > 0 => None,
        (TABLE_B, [o, n]) if *n == r && *o > 0 => None,
        (TABLE_A, _) => Some(format!("[r = {r}, rows]")),
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
        // As it broadcasts to the output: of a convolution with axes around it.
        (MAGNITUDE, shape) => {
            let whole: Vec<usize> = match (width, b.map_or(2, <[usize]>::len)) {
                (Some(out), 2) => vec![out],
                (Some(out), axes) => (0..axes).map(|i| if i == 1 { out } else { 1 }).collect(),
                (None, _) => Vec::new(),
            };
            (shape != whole).then(|| format!("{whole:?}"))
        }
        (A, _) => Some(format!("[r = {r}, in]")),
        (B | TABLE_B, _) => Some(format!("[out, r = {r}]")),
        (_, [o]) if width.is_none_or(|w| w == *o) => None,
        _ => Some(width.map_or("[out]".into(), |w| format!("[{w}], the width of lora_B,"))),
    }
}
