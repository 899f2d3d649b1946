//! From an adapter to a directory.

use std::borrow::Cow;
use std::collections::HashSet;
use std::path::Path;

use graft_graph::Tensor;

use crate::atomic::{Content, create_whole, finish, move_files, replace_files};
use crate::digest::digest_pieces;
use crate::error::{Error, Result};
use crate::hub::HubConfig;
use crate::peft::PeftConfig;
use crate::stored::{ParamKey, StoredAdapter};
use crate::tensors::content;
use crate::{
    CONFIG_FILE, FILES, GRAFT_FILE, HEAD_FILE, HUB_HEAD_CONFIG, HUB_HEAD_FILE, PARAMETERS_FILE, files_of,
    json,
};

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

/// Puts the files of the adapter in the folder `from` in the place of those in `dir`, together or not at all, as [`save`].
/// `from` is on the same file system, holds nothing else, and is used up.
///
/// # Errors
/// [`Error::Io`] when writing fails.
pub fn install(from: &Path, dir: &Path) -> Result<()> {
    move_files(from, dir, &FILES)
}

/// Finishes a change of a directory that was cut off after the new files were whole. Readers need it not; it keeps the
/// directory tidy.
///
/// # Errors
/// [`Error::Io`] where it can't be written.
pub fn recover(dir: &Path) -> Result<()> {
    finish(dir, &FILES)
}

/// Keeps the files of the adapter in `dir` in the folder `to` as well, which appears whole. They are links where the file
/// system has them: what is then put in their place in `dir` does not change them.
///
/// # Errors
/// [`Error::Exists`] where there is something at `to`; [`Error::Io`].
pub fn keep(dir: &Path, to: &Path) -> Result<()> {
    create_whole(to, true, |aside| {
        for file in files_of(dir) {
            let copy = aside.join(file.file_name().unwrap_or_default());
            // A link to a link would lead elsewhere from there.
            let plain = file.symlink_metadata().is_ok_and(|m| m.is_file());
            if plain && std::fs::hard_link(&file, &copy).is_ok() {
                continue;
            }
            let copied = || {
                std::fs::copy(&file, &copy)?;
                std::fs::File::open(&copy)?.sync_all()
            };
            copied().map_err(Error::io(&file, "copying"))?;
        }
        Ok(())
    })
}

/// The content of each file; `graft.json` is last and has the digests of the others.
fn encode(adapter: &StoredAdapter) -> Result<Vec<(&'static str, Content<'_>)>> {
    let mut out = Vec::new();
    let whole = |bytes: Vec<u8>| vec![Cow::Owned(bytes)];
    if let Some(config) = &adapter.peft {
        out.push((CONFIG_FILE, whole(config.to_json()?)));
    }
    if let Some(hub) = &adapter.hub {
        out.push((CONFIG_FILE, whole(json::pretty_sorted(Path::new(CONFIG_FILE), hub)?)));
        out.extend(hub_head(adapter, hub)?);
    }
    let named = |key: &dyn Fn(&ParamKey) -> Vec<String>| -> Vec<(String, &Tensor)> {
        adapter.parameters.iter().flat_map(|(k, t)| key(k).into_iter().map(move |k| (k, t))).collect()
    };
    let tensors = match (&adapter.peft, &adapter.hub) {
        (Some(config), _) => model_tensors(adapter, config),
        (None, Some(hub)) => named(&|k| hub.keys(k)),
        (None, None) => named(&|k| vec![k.to_string()]),
    };
    let file = adapter.parameters_file();
    if !tensors.is_empty() {
        let tensors = tensors.iter().map(|(k, t)| (k.as_str(), *t));
        out.push((file, content(Path::new(file), tensors)?));
    }
    if let Some(head) = adapter.head.as_ref().filter(|h| h.module.is_none()) {
        let tensors = head.tensors.iter().map(|(k, t)| (k.as_str(), t));
        out.push((HEAD_FILE, content(Path::new(HEAD_FILE), tensors)?));
    }
    if let Some(graft) = &adapter.graft {
        let mut graft = graft.clone();
        graft.files = out.iter().map(|(name, bytes)| (name.to_string(), digest_pieces(bytes))).collect();
        out.push((GRAFT_FILE, whole(json::pretty(Path::new(GRAFT_FILE), &graft)?)));
    } else if let Some((name, _)) = out.iter().find(|(n, _)| [HEAD_FILE, PARAMETERS_FILE].contains(n)) {
        return Err(Error::Compose { reason: format!("{name} needs graft.json beside it") });
    }
    Ok(out)
}

/// The head in AdapterHub's files, where it is one that the library can rebuild.
fn hub_head<'a>(adapter: &'a StoredAdapter, hub: &HubConfig) -> Result<Vec<(&'static str, Content<'a>)>> {
    let Some((module, head)) = adapter.head.as_ref().and_then(|h| Some((h.module.as_ref()?, h))) else {
        return Ok(Vec::new());
    };
    let labels = adapter.graft.as_ref().map(|g| g.objective.labels.clone()).unwrap_or_default();
    let config = json::pretty_sorted(Path::new(HUB_HEAD_CONFIG), &hub.head_config(&labels))?;
    let keys: Vec<String> = head.tensors.keys().map(|name| format!("{module}.{name}")).collect();
    let tensors = keys.iter().map(String::as_str).zip(head.tensors.values());
    let tensors = content(Path::new(HUB_HEAD_FILE), tensors)?;
    Ok(vec![(HUB_HEAD_CONFIG, vec![Cow::Owned(config)]), (HUB_HEAD_FILE, tensors)])
}

fn model_tensors<'a>(adapter: &'a StoredAdapter, config: &PeftConfig) -> Vec<(String, &'a Tensor)> {
    let hooked: HashSet<String> = adapter.hooked().into_iter().collect();
    let keys = adapter.parameters.iter().map(|(k, t)| (config.key(k, hooked.contains(&k.path)), t));
    let mut out: Vec<_> = keys.collect();
    if let Some((module, head)) = adapter.head.as_ref().and_then(|h| Some((h.module.as_ref()?, h))) {
        let prefix = config.head_prefix();
        out.extend(head.tensors.iter().map(|(name, t)| (format!("{prefix}{module}.{name}"), t)));
    }
    out
}
