//! Where plugins are looked for.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use graft_plugin_api::Code;
use graft_plugin_api::config::nearest;
use graft_plugin_api::manifest::{Item, Manifest};

use crate::{PluginError, Result, read_manifest};

/// Colon-separated plugin folders.
pub const PATH_ENV: &str = "GRAFT_PLUGIN_PATH";

/// Most entries of one folder that are looked at.
const MAX_ENTRIES: usize = 10_000;

/// A library in a plugin folder: its manifest, or why it cannot be used.
#[derive(Debug)]
pub struct Found {
    /// The file.
    pub path: PathBuf,
    /// What it says of itself.
    pub manifest: Result<Manifest>,
}

/// What is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A method.
    Method,
    /// An objective.
    Objective,
}

impl Kind {
    /// The word for messages and tables.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Method => "method",
            Kind::Objective => "objective",
        }
    }

    /// The items of this kind in a manifest.
    pub fn items(self, manifest: &Manifest) -> &[Item] {
        match self {
            Kind::Method => &manifest.methods,
            Kind::Objective => &manifest.objectives,
        }
    }
}

/// The folders, in the order in which they are searched: the given ones, those of `GRAFT_PLUGIN_PATH`, the executable's
/// and its `plugins`, the user's data folder. Each once, whether it exists or not.
pub fn folders(explicit: &[PathBuf]) -> Vec<PathBuf> {
    let mut all = explicit.to_vec();
    if let Some(list) = std::env::var_os(PATH_ENV) {
        all.extend(std::env::split_paths(&list).filter(|p| !p.as_os_str().is_empty()));
    }
    if let Some(dir) = std::env::current_exe().ok().as_deref().and_then(Path::parent) {
        all.push(dir.to_owned());
        all.push(dir.join("plugins"));
    }
    let set = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(data) = set("XDG_DATA_HOME").or_else(|| set("HOME").map(|h| h.join(".local/share"))) {
        all.push(data.join("graft/plugins"));
    }
    let mut seen = BTreeSet::new();
    all.retain(|p| seen.insert(p.clone()));
    all
}

/// Every plugin library in the folders, in their order and within one by name. Libraries without a manifest are not
/// plugins and left out; those of another version are listed with their error.
///
/// # Errors
/// `LOAD` when an explicit folder cannot be read. The others may be absent.
pub fn list(explicit: &[PathBuf]) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    for folder in folders(explicit) {
        match libraries(&folder) {
            Ok(paths) => {
                found.extend(paths.into_iter().map(|path| Found { manifest: read_manifest(&path), path }))
            }
            Err(e) if explicit.contains(&folder) => {
                let help = "Name a folder that holds plugin libraries";
                return Err(PluginError::file(Code::LOAD, &folder, format!("cannot be read: {e}"), help));
            }
            Err(_) => {}
        }
    }
    let foreign = |f: &Found| {
        f.manifest.as_ref().is_err_and(|e| e.code == Code::LOAD && e.message.starts_with("has no manifest"))
    };
    found.retain(|f| !foreign(f));
    Ok(found)
}

fn libraries(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder)?.take(MAX_ENTRIES) {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == std::env::consts::DLL_EXTENSION) && path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// The library that has the method or objective `id`: the first one in the order of the folders.
///
/// # Errors
/// `NOT_FOUND` with the nearest names and the folders that were searched; the library's own error if there is one that
/// cannot be used and no other.
pub fn find(explicit: &[PathBuf], kind: Kind, id: &str) -> Result<(PathBuf, Manifest)> {
    let mut broken = Vec::new();
    let mut names = BTreeSet::new();
    for Found { path, manifest } in list(explicit)? {
        match manifest {
            Ok(m) if kind.items(&m).iter().any(|i| i.id == id) => return Ok((path, m)),
            Ok(m) => names.extend(kind.items(&m).iter().map(|i| i.id.clone())),
            Err(e) => broken.push((path, e)),
        }
    }
    // A plugin of another version cannot say what it has, but its file is usually named after it.
    let is_it = |p: &Path| {
        p.file_stem().is_some_and(|s| s.to_string_lossy().replace('-', "_").contains(&id.replace('-', "_")))
    };
    if let Some(i) = broken.iter().position(|(p, _)| is_it(p)) {
        return Err(broken.swap_remove(i).1);
    }
    let near = nearest(id, names.iter().map(String::as_str), 1);
    let suggestion = near.first().map(|n| format!("Did you mean `{n}`? ")).unwrap_or_default();
    let known = names.iter().cloned().collect::<Vec<_>>().join(", ");
    let searched: Vec<String> = folders(explicit).iter().map(|p| p.display().to_string()).collect();
    let help = format!(
        "{suggestion}There are: {}. Searched: {}",
        if known.is_empty() { "none" } else { &known },
        searched.join(", ")
    );
    let mut e = PluginError::from_error(
        graft_plugin_api::Error::new(Code::NOT_FOUND, format!("no plugin has a {} `{id}`", kind.name())),
        "",
        "",
        "",
    );
    e.help = help;
    Err(e)
}
