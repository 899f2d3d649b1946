//! From an adapter to a directory.

use std::collections::HashSet;
use std::path::Path;

use crate::atomic::replace_files;
use crate::digest::digest_bytes;
use crate::error::{Error, Result};
use crate::peft::PREFIX;
use crate::stored::StoredAdapter;
use crate::tensors::tensor_bytes;
use crate::{CONFIG_FILE, FILES, GRAFT_FILE, HEAD_FILE, MODEL_FILE, json};

/// Saves an adapter into a directory, which is made if it is not there; other files in it (metrics, recipe) stay.
///
/// The files appear together or not at all: a new directory gets its name when it is whole, and in an existing one the
/// new files wait in a folder of their own until all of them are on disk. If the disk is full, or the process is
/// killed, the adapter that was there is still there.
///
/// # Errors
/// [`Error::Io`] when writing fails, [`Error::Compose`] for an adapter that the formats cannot hold.
pub fn save(dir: &Path, adapter: &StoredAdapter) -> Result<()> {
    replace_files(dir, &FILES, &encode(adapter)?)
}

/// The content of each file; `graft.json` is last and has the digests of the others.
fn encode(adapter: &StoredAdapter) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let mut out = Vec::new();
    if let Some(config) = &adapter.peft {
        out.push((CONFIG_FILE, config.to_json()?));
    }
    let model = model_tensors(adapter)?;
    if !model.is_empty() {
        let tensors = model.iter().map(|(k, t)| (k.as_str(), *t));
        out.push((MODEL_FILE, tensor_bytes(Path::new(MODEL_FILE), tensors)?));
    }
    if let Some(head) = adapter.head.as_ref().filter(|h| h.module.is_none()) {
        let tensors = head.tensors.iter().map(|(k, t)| (k.as_str(), t));
        out.push((HEAD_FILE, tensor_bytes(Path::new(HEAD_FILE), tensors)?));
    }
    if let Some(graft) = &adapter.graft {
        let mut graft = graft.clone();
        graft.files = out.iter().map(|(name, bytes)| (name.to_string(), digest_bytes(bytes))).collect();
        out.push((GRAFT_FILE, json::pretty(Path::new(GRAFT_FILE), &graft)?));
    } else if adapter.head.as_ref().is_some_and(|h| h.module.is_none()) {
        return Err(Error::Compose {
            reason: "a head in a file of its own needs graft.json beside it".into(),
        });
    }
    Ok(out)
}

fn model_tensors(adapter: &StoredAdapter) -> Result<Vec<(String, &graft_graph::Tensor)>> {
    let Some(config) = &adapter.peft else {
        let reason = "tensors of a method need its settings in PEFT's terms".to_string();
        return if adapter.parameters.is_empty() { Ok(Vec::new()) } else { Err(Error::Compose { reason }) };
    };
    let hooked: HashSet<String> = adapter.hooked().into_iter().collect();
    let keys = adapter.parameters.iter().map(|(k, t)| (config.key(k, hooked.contains(&k.path)), t));
    let mut out: Vec<_> = keys.collect();
    if let Some((module, head)) = adapter.head.as_ref().and_then(|h| Some((h.module.as_ref()?, h))) {
        out.extend(head.tensors.iter().map(|(name, t)| (format!("{PREFIX}{module}.{name}"), t)));
    }
    Ok(out)
}
