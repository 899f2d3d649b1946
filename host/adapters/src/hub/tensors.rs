//! The tensors of a bottleneck adapter: AdapterHub's keys, and what must be there.

use std::path::Path;

use graft_graph::Tensor;

use super::HubConfig;
use crate::error::{Error, Result};
use crate::stored::{Head, ParamKey, Parameters};
use crate::tensors::Tensors;

/// The norm in front of the adapter, and the name that it also has as the first of a list of modules.
const NORM: &str = "adapter_norm_before.";
const FIRST: &str = "adapter_down.0.";

impl HubConfig {
    /// What stands between a module's path and the names of an adapter's own parameters.
    fn infix(&self) -> String {
        format!(".adapters.{}.", self.name)
    }

    /// Whether the norm in front of the adapter is also the first of a list of modules.
    fn numbers_norm(&self) -> bool {
        self.config.get("ln_before").and_then(serde_json::Value::as_bool) == Some(true)
    }

    /// The library's keys of a parameter: the norm in front is kept under both of its names.
    pub(crate) fn keys(&self, key: &ParamKey) -> Vec<String> {
        let whole = |name: &str| format!("{}{}{name}", key.path, self.infix());
        let second = key.name.strip_prefix(NORM).filter(|_| self.numbers_norm());
        let second = second.map(|part| whole(&format!("{FIRST}{part}")));
        std::iter::once(whole(&key.name)).chain(second).collect()
    }

    /// The parameters of `adapter.safetensors` by module.
    pub(crate) fn sort(&self, path: &Path, tensors: Tensors) -> Result<Parameters> {
        let mut out = Parameters::new();
        let infix = self.infix();
        for (name, tensor) in tensors {
            let extra =
                |why: String| Error::ExtraTensor { path: path.to_path_buf(), tensor: name.clone(), why };
            let Some((module, own)) = name.split_once(&infix) else {
                return Err(extra(format!("it is none of the adapter `{}`", self.name)));
            };
            let own = match own.strip_prefix(FIRST).filter(|_| self.numbers_norm()) {
                Some(part) => format!("{NORM}{part}"),
                None => own.to_string(),
            };
            match out.insert(ParamKey::new(module, own), tensor.clone()) {
                Some(before) if before != tensor => {
                    return Err(extra("another key gives the same parameter other values".into()));
                }
                _ => {}
            }
        }
        out.sort_unstable_keys();
        let Some(first) = out.keys().next() else {
            let (tensor, why) =
                (format!("…{infix}adapter_up.weight"), "the file has no tensor at all".into());
            return Err(Error::MissingTensor { path: path.to_path_buf(), tensor, why });
        };
        let missing = out.keys().map(|k| ParamKey::new(&k.path, "adapter_up.weight"));
        match missing.into_iter().find(|k| !out.contains_key(k)) {
            Some(key) => Err(Error::MissingTensor {
                path: path.to_path_buf(),
                tensor: self.keys(&key).swap_remove(0),
                why: format!("others of this adapter are there, such as {first}"),
            }),
            None => Ok(out),
        }
    }
}

/// The head of `model_head.safetensors`: the one linear layer of a stock classifier.
pub(crate) fn head(path: &Path, tensors: Tensors) -> Result<Head> {
    let mut head: Option<Head> = None;
    for (name, tensor) in tensors {
        let (module, inner) = name.rsplit_once('.').unwrap_or(("", &name));
        let head =
            head.get_or_insert_with(|| Head { module: Some(module.to_string()), tensors: Tensors::new() });
        if module.is_empty() || module.contains('.') || head.module.as_deref() != Some(module) {
            let why = "only the head of a stock classifier, one linear layer, can be read".to_string();
            return Err(Error::ExtraTensor { path: path.to_path_buf(), tensor: name.clone(), why });
        }
        head.tensors.insert(inner.to_string(), tensor);
    }
    let whole = head.filter(|h| h.tensors.get("weight").is_some_and(|w: &Tensor| w.shape().len() == 2));
    whole.ok_or_else(|| Error::MissingTensor {
        path: path.to_path_buf(),
        tensor: "classifier.weight".into(),
        why: "a head is one linear layer".into(),
    })
}
