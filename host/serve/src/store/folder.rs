//! The folder of the adapters: what lies in it, and changes of it that happen completely or not at all.
//!
//! | below the root | what |
//! |---|---|
//! | `NAME/` | an adapter |
//! | `.graft-upload-…/` | what is being received or removed; `.graft-upload-….lock` is locked by the process that does |
//! | `.graft-former/NAME/DIGEST/` | the files that those of this digest were put in the place of |
//!
//! A former revision is known by what replaced it. So it is none where somebody else has put other files in the place of
//! those, and it does not matter at which step a process dies.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use graft_adapters::{digest_adapter, files_of};
use tempfile::NamedTempFile;

use super::StoreError;

/// How the folders begin in which something is made.
const ASIDE: &str = ".graft-upload-";
/// How the files end that say whether somebody still works in such a folder.
const LOCK: &str = ".lock";
/// Where the files are kept of what was replaced.
const FORMER: &str = ".graft-former";

/// What is seen of an adapter's files without reading them. It differs where the files do, unless somebody writes the same
/// number of bytes within one tick of the clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp(Vec<Seen>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    path: PathBuf,
    bytes: u64,
    modified: Option<SystemTime>,
    inode: u64,
}

impl Stamp {
    /// That of the files in a folder; `None` where there is no file of an adapter.
    pub fn of(dir: &Path) -> Option<Stamp> {
        let seen = |path: PathBuf| {
            let meta = path.metadata().ok()?;
            Some(Seen { bytes: meta.len(), modified: meta.modified().ok(), inode: inode(&meta), path })
        };
        let all: Vec<Seen> = files_of(dir).into_iter().filter_map(seen).collect();
        (!all.is_empty()).then_some(Stamp(all))
    }
}

#[cfg(unix)]
fn inode(meta: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(meta)
}

#[cfg(not(unix))]
fn inode(_: &fs::Metadata) -> u64 {
    0
}

/// A hidden folder in which something is made or unmade; removed when this is dropped.
pub struct Aside {
    dir: PathBuf,
    /// Beside the folder, so that it is there first and goes last; locked as long as this process works here.
    _lock: NamedTempFile,
}

impl Aside {
    /// A new one below the folder of the adapters.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn new(root: &Path) -> io::Result<Aside> {
        let lock = tempfile::Builder::new().prefix(ASIDE).suffix(LOCK).tempfile_in(root)?;
        match lock.as_file().try_lock() {
            Ok(()) if lock.path().exists() => {}
            // Some file systems have no locks; what is there is then left alone for an hour.
            Err(TryLockError::Error(e)) => tracing::debug!("{}: no lock: {e}", root.display()),
            _ => return Err(io::Error::other("somebody clears up here at this moment; try again")),
        }
        let dir = lock.path().with_extension("");
        fs::create_dir(&dir)?;
        Ok(Aside { dir, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // What stays is cleared at the next start.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// The folders below `root` that hold an adapter, by name.
///
/// # Errors
/// When the folder can't be listed.
pub fn folders(root: &Path) -> Result<Vec<(String, PathBuf)>, StoreError> {
    Ok(stamped(root)?.into_iter().map(|(name, dir, _)| (name, dir)).collect())
}

/// As [`folders`], with what is seen of the files.
pub(super) fn stamped(root: &Path) -> Result<Vec<(String, PathBuf, Stamp)>, StoreError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root).map_err(StoreError::io(root))? {
        let path = entry.map_err(StoreError::io(root))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !name.starts_with('.')
            && let Some(stamp) = Stamp::of(&path)
        {
            found.push((name, path, stamp));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

/// Whether a file of an adapter lies in a folder.
pub fn holds_adapter(dir: &Path) -> bool {
    !files_of(dir).is_empty()
}

/// Where the files are kept that those with this digest were put in the place of.
pub(super) fn former(root: &Path, name: &str, digest: &str) -> PathBuf {
    let digits = digest.rsplit(':').next().unwrap_or(digest);
    root.join(FORMER).join(name).join(digits)
}

/// Whatever is kept of a name.
pub(super) fn formers(root: &Path, name: &str) -> Vec<PathBuf> {
    let listed = fs::read_dir(root.join(FORMER).join(name));
    listed.map(|l| l.flatten().map(|e| e.path()).collect()).unwrap_or_default()
}

/// Puts the files in `from`, whose digest is given, in the place of an adapter's, which are kept.
pub(super) fn replace(root: &Path, name: &str, from: &Path, digest: &str) -> Result<(), StoreError> {
    let (place, kept) = (root.join(name), former(root, name, digest));
    if holds_adapter(&place) {
        clear(&kept)?;
        graft_adapters::keep(&place, &kept)?;
    }
    graft_adapters::install(from, &place)?;
    // What can't be removed is of no effect.
    let _ = forget(root, name, Some(digest));
    Ok(())
}

/// Removes what is kept of a name, but for what those files replaced.
fn forget(root: &Path, name: &str, replaced_by: Option<&str>) -> Result<(), StoreError> {
    let kept = replaced_by.map(|digest| former(root, name, digest));
    for path in formers(root, name) {
        if Some(&path) != kept.as_ref() {
            clear(&path)?;
        }
    }
    // Only if nothing is left there.
    let _ = fs::remove_dir(root.join(FORMER).join(name));
    let _ = fs::remove_dir(root.join(FORMER));
    Ok(())
}

fn clear(dir: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(StoreError::io(dir)(e)),
        _ => Ok(()),
    }
}

/// Removes an adapter's folder, out of sight at once and then for good, and what is kept of it. Says whether there was one.
pub(super) fn remove(root: &Path, name: &str) -> Result<bool, StoreError> {
    let place = root.join(name);
    let Ok(meta) = place.symlink_metadata() else { return Ok(false) };
    if meta.is_symlink() {
        fs::remove_file(&place).map_err(StoreError::io(&place))?;
    } else if holds_adapter(&place) {
        let aside = Aside::new(root).map_err(StoreError::io(root))?;
        fs::rename(&place, aside.path().join(name)).map_err(StoreError::io(&place))?;
    } else {
        return Ok(false);
    }
    forget(root, name, None)?;
    Ok(true)
}

/// Clears up after a process that died while it changed the folder: finishes what was begun and whole, removes the rest.
/// Where it may not write it leaves everything as it is: adapters are whole all the same.
///
/// # Errors
/// When the folder can't be listed.
pub fn clear_leftovers(root: &Path) -> io::Result<()> {
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let done = if name.starts_with(ASIDE) {
            clear_aside(&path)
        } else if name == FORMER {
            clear_formers(root).map_err(io::Error::other)
        } else if !name.starts_with('.') && path.is_dir() {
            graft_adapters::recover(&path).map_err(io::Error::other)
        } else {
            Ok(())
        };
        if let Err(e) = done {
            tracing::warn!("{} can't be cleared up: {e}", path.display());
        }
    }
    Ok(())
}

/// Removes a folder that nobody works in any more, or the lock of such a one and its folder.
fn clear_aside(path: &Path) -> io::Result<()> {
    if path.extension().is_none_or(|e| !LOCK.ends_with(&*e.to_string_lossy())) {
        let locked = path.with_extension(LOCK.trim_start_matches('.')).exists();
        return if locked { Ok(()) } else { fs::remove_dir_all(path) };
    }
    let lock = File::options().write(true).open(path)?;
    match lock.try_lock() {
        Err(TryLockError::WouldBlock) => return Ok(()),
        Err(TryLockError::Error(_)) if !is_old(path) => return Ok(()),
        _ => {}
    }
    match fs::remove_dir_all(path.with_extension("")) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => fs::remove_file(path),
    }
}

fn is_old(path: &Path) -> bool {
    let age = path.metadata().and_then(|m| m.modified()).ok().and_then(|m| m.elapsed().ok());
    age.is_some_and(|a| a.as_secs() > 3600)
}

/// Leaves one former revision of each adapter that is there.
fn clear_formers(root: &Path) -> Result<(), StoreError> {
    let listed = fs::read_dir(root.join(FORMER)).map_err(StoreError::io(root))?;
    for name in listed.flatten().map(|e| e.file_name().to_string_lossy().into_owned()) {
        let place = root.join(&name);
        if !holds_adapter(&place) {
            forget(root, &name, None)?;
        } else if formers(root, &name).len() != 1 {
            forget(root, &name, Some(&digest_adapter(&place)?))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
