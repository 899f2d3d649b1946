//! From a directory to an adapter.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use graft_graph::Tensor;
use indexmap::IndexMap;
use serde_json::{Map, Value};

use crate::digest::{FileDigest, digest_of};
use crate::error::{Error, Result};
use crate::finite::first_non_finite;
use crate::graft_file::{FORMAT, GraftFile};
use crate::hub::{self, HubConfig};
use crate::json::{self, MAX_JSON};
use crate::peft::{PeftConfig, Sorted};
use crate::stored::{Head, ParamKey, Parameters, StoredAdapter};
use crate::tensors::{self, MAX_OWNED, Tensors, read_limited};
use crate::{
    CONFIG_FILE, FILES, GRAFT_FILE, HEAD_FILE, HUB_FILE, HUB_HEAD_FILE, MODEL_FILE, PARAMETERS_FILE, files_of,
};

/// Loads an adapter directory, PEFT's or Graft's own, and checks that it is whole: settings that can be honoured, no
/// tensor missing, extra, misshapen or not finite, no mix of files of two adapters. The tensors are read into memory,
/// so that the directory may change afterwards. Nothing is written, even where a save was cut off.
///
/// # Errors
/// One variant of [`Error`] for each of these.
pub fn load(dir: &Path) -> Result<StoredAdapter> {
    Ok(load_digested(dir)?.0)
}

/// As [`load`]; and the digest of the very bytes that it was made of, as [`digest_adapter`](crate::digest_adapter) gives it.
///
/// # Errors
/// As [`load`].
pub fn load_digested(dir: &Path) -> Result<(StoredAdapter, String)> {
    // Whoever saves into this directory meanwhile may change it between the reading of two files.
    for _ in 0..2 {
        match load_once(dir) {
            Err(Error::FileDigest { .. } | Error::MissingFile { .. } | Error::Io { .. }) => {}
            other => return other,
        }
    }
    load_once(dir)
}

fn load_once(dir: &Path) -> Result<(StoredAdapter, String)> {
    let files = read_files(dir)?;
    let digests: Digests =
        files.iter().map(|(name, (_, bytes))| (*name, FileDigest::of_content(bytes))).collect();
    Ok((adapter_of(dir, &files, &digests)?, digest_of(digests.values())))
}

fn adapter_of(dir: &Path, files: &Files, digests: &Digests) -> Result<StoredAdapter> {
    let graft = files.get(GRAFT_FILE).map(|(path, bytes)| parse_graft(path, bytes)).transpose()?;
    if let Some(graft) = &graft {
        check_manifest(dir, graft, files, digests)?;
    }
    let (config, hub) = match files.get(CONFIG_FILE) {
        Some((path, bytes)) => parse_config(path, bytes)?,
        None => (None, None),
    };
    if let Some(hub) = hub {
        return load_hub(dir, hub, files, graft);
    }
    let sorted = match (&config, files.get(MODEL_FILE)) {
        (Some(config), Some((path, bytes))) => sort(dir, config, path, bytes.clone())?,
        (Some(config), None) => {
            refuse_unsupported(dir, config)?;
            return Err(no_model(dir));
        }
        (None, Some(_)) => return Err(Error::MissingFile { path: dir.join(CONFIG_FILE) }),
        (None, None) if graft.is_none() => return Err(Error::NotAnAdapter { dir: dir.to_path_buf() }),
        (None, None) => Sorted::default(),
    };
    let parameters = match files.get(PARAMETERS_FILE) {
        Some((path, bytes)) => own_parameters(path, bytes.clone(), graft.is_some() && config.is_none())?,
        None => sorted.parameters,
    };
    let own = files.get(HEAD_FILE).map(|(path, bytes)| parse_tensors(path, bytes.clone())).transpose()?;
    let head = match (sorted.head, own) {
        (Some(_), Some(_)) => {
            let why = "the head is in adapter_model.safetensors already".to_string();
            return Err(Error::ExtraTensor { path: dir.join(HEAD_FILE), tensor: "weight".into(), why });
        }
        (head, own) => head.or(own.map(|tensors| Head { module: None, tensors })),
    };
    let adapter = StoredAdapter { dir: dir.to_path_buf(), peft: config, hub: None, parameters, head, graft };
    check_head(&adapter)?;
    Ok(adapter)
}

/// `adapter_config.json` of either library; they are told apart by their schema.
fn parse_config(path: &Path, bytes: &[u8]) -> Result<(Option<PeftConfig>, Option<HubConfig>)> {
    let map: Map<String, Value> = json::parse(path, bytes)?;
    let typed = map.get("peft_type").is_some_and(|v| !v.is_null());
    if !typed && HubConfig::is(&map) {
        return Ok((None, Some(HubConfig::parse(path, map)?)));
    }
    Ok((Some(PeftConfig::of(path, map)?), None))
}

/// A directory in the format of AdapterHub's library.
fn load_hub(dir: &Path, hub: HubConfig, files: &Files, graft: Option<GraftFile>) -> Result<StoredAdapter> {
    let fields = hub.unsupported();
    if !fields.is_empty() {
        return Err(Error::Unsupported { path: dir.join(CONFIG_FILE), fields });
    }
    let foreign = [MODEL_FILE, PARAMETERS_FILE].into_iter().find_map(|name| files.get(name));
    if let Some((path, _)) = foreign {
        let why = "the configuration beside it is one of AdapterHub's library".to_string();
        return Err(Error::ExtraTensor { path: path.clone(), tensor: "of an adapter".into(), why });
    }
    let Some((path, bytes)) = files.get(HUB_FILE) else {
        return Err(missing_file(dir, HUB_FILE, "pytorch_adapter.bin"));
    };
    let parameters = hub.sort(path, parse_tensors(path, bytes.clone())?)?;
    let tensors = |name: &str| {
        let found = files.get(name);
        found.map(|(path, bytes)| Ok((path, parse_tensors(path, bytes.clone())?))).transpose()
    };
    let head = match (tensors(HUB_HEAD_FILE)?, tensors(HEAD_FILE)?) {
        (Some((path, tensors)), None) => Some(hub::head(path, tensors)?),
        (None, own) => own.map(|(_, tensors)| Head { module: None, tensors }),
        (Some(_), Some((path, _))) => {
            let why = format!("the head is in {HUB_HEAD_FILE} already");
            return Err(Error::ExtraTensor { path: path.clone(), tensor: "weight".into(), why });
        }
    };
    let adapter =
        StoredAdapter { dir: dir.to_path_buf(), peft: None, hub: Some(hub), parameters, head, graft };
    check_head(&adapter)?;
    Ok(adapter)
}

/// The parameters in Graft's own file, which only a method without PEFT's settings has.
fn own_parameters(path: &Path, bytes: Bytes, fits: bool) -> Result<Parameters> {
    let tensors = parse_tensors(path, bytes)?;
    if let Some(name) = tensors.keys().next().filter(|_| !fits) {
        let why = "such a file stands beside graft.json, without a configuration of PEFT's".to_string();
        return Err(Error::ExtraTensor { path: path.to_path_buf(), tensor: name.clone(), why });
    }
    Ok(tensors.into_iter().map(|(name, tensor)| (ParamKey::of_name(&name), tensor)).collect())
}

type Files = IndexMap<&'static str, (PathBuf, Bytes)>;
type Digests = IndexMap<&'static str, FileDigest>;

fn read_files(dir: &Path) -> Result<Files> {
    let mut out = Files::new();
    for path in files_of(dir) {
        let Some(name) = FILES.into_iter().find(|name| path.ends_with(name)) else { continue };
        let limit = if name.ends_with(".json") { MAX_JSON } else { MAX_OWNED };
        let bytes = read_limited(&path, "the file", limit)?;
        out.insert(name, (path, bytes));
    }
    Ok(out)
}

fn parse_graft(path: &Path, bytes: &[u8]) -> Result<GraftFile> {
    // The version decides whether the rest can be understood, and so is looked at first.
    #[derive(serde::Deserialize)]
    struct Version {
        format: u32,
    }
    let Version { format } = json::parse(path, bytes)?;
    if format > FORMAT {
        return Err(Error::FormatVersion { path: path.to_path_buf(), found: format, known: FORMAT });
    }
    json::parse(path, bytes)
}

/// The files must be those that `graft.json` was written with, no fewer and no more.
fn check_manifest(dir: &Path, graft: &GraftFile, files: &Files, digests: &Digests) -> Result<()> {
    for (name, digest) in &graft.files {
        if name == GRAFT_FILE || !FILES.contains(&name.as_str()) {
            return Err(Error::ManifestName { path: dir.join(GRAFT_FILE), name: name.clone() });
        }
        let Some((path, _)) = files.get(name.as_str()) else {
            return Err(Error::MissingFile { path: dir.join(name) });
        };
        if digests.get(name.as_str()).is_none_or(|found| found.text() != *digest) {
            return Err(Error::FileDigest { path: path.clone() });
        }
    }
    match files.iter().find(|(name, _)| **name != GRAFT_FILE && !graft.files.contains_key(**name)) {
        Some((_, (path, _))) => Err(Error::FileDigest { path: path.clone() }),
        None => Ok(()),
    }
}

fn refuse_unsupported(dir: &Path, config: &PeftConfig) -> Result<()> {
    let fields = config.unsupported();
    if fields.is_empty() { Ok(()) } else { Err(Error::Unsupported { path: dir.join(CONFIG_FILE), fields }) }
}

fn sort(dir: &Path, config: &PeftConfig, path: &Path, bytes: Bytes) -> Result<Sorted> {
    refuse_unsupported(dir, config)?;
    config.sort(path, parse_tensors(path, bytes)?)
}

fn parse_tensors(path: &Path, bytes: Bytes) -> Result<Tensors> {
    let all = tensors::parse(path, bytes)?;
    all.iter().try_for_each(|(name, tensor)| check_numbers(path, name, tensor))?;
    Ok(all)
}

fn check_numbers(path: &Path, name: &str, tensor: &Tensor) -> Result<()> {
    let (path, name) = (path.to_path_buf(), name.to_string());
    if !tensor.dtype().is_float() {
        return Err(Error::NotFloat { path, tensor: name, found: tensor.dtype() });
    }
    match first_non_finite(tensor) {
        Some((index, value)) => Err(Error::NonFinite { path, tensor: name, index, value }),
        None => Ok(()),
    }
}

fn no_model(dir: &Path) -> Error {
    missing_file(dir, MODEL_FILE, "adapter_model.bin")
}

fn missing_file(dir: &Path, file: &str, pickled: &'static str) -> Error {
    if dir.join(pickled).exists() {
        return Error::Pickled { dir: dir.to_path_buf(), file: pickled };
    }
    Error::MissingFile { path: dir.join(file) }
}

/// The head must be where `graft.json` says, and a linear one must agree with itself and with the labels.
fn check_head(adapter: &StoredAdapter) -> Result<()> {
    let info = adapter.graft.as_ref().and_then(|g| g.head.as_ref());
    let Some(head) = &adapter.head else {
        return match info {
            Some(i) => Err(missing_head(adapter, i.module.as_deref())),
            None => Ok(()),
        };
    };
    let path = adapter.dir.join(adapter.head_file());
    let labels = adapter.graft.as_ref().map_or(0, |g| g.objective.labels.len());
    let (Some(weight), bias) = (head.tensors.get("weight"), head.tensors.get("bias")) else { return Ok(()) };
    let fail = |tensor: &str, found: &Tensor, expected: String| {
        let (tensor, found) = (tensor.to_string(), found.shape().to_vec());
        Err(Error::Shape { path: path.clone(), tensor, found, expected })
    };
    match weight.shape() {
        [rows, _] if labels == 0 || *rows == labels => {}
        [_, hidden] => return fail("weight", weight, format!("[{labels} labels, {hidden}]")),
        _ => return fail("weight", weight, "[labels, hidden]".into()),
    }
    match bias {
        Some(b) if b.shape() != &weight.shape()[..1] => fail("bias", b, format!("[{}]", weight.shape()[0])),
        _ => Ok(()),
    }
}

fn missing_head(adapter: &StoredAdapter, module: Option<&str>) -> Error {
    match module {
        None => Error::MissingFile { path: adapter.dir.join(HEAD_FILE) },
        Some(m) => Error::MissingTensor {
            path: adapter.dir.join(if adapter.hub.is_some() { HUB_HEAD_FILE } else { MODEL_FILE }),
            tensor: format!("{m}.weight"),
            why: "graft.json says that the head is kept there".into(),
        },
    }
}
