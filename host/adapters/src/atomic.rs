//! Writes that happen completely or not at all.
//!
//! A single file goes through a temporary file in its directory, fsync and rename. Several files of one directory go
//! through a journal ([`replace_files`]): they are written and synced in a hidden folder, which is renamed to
//! [`COMMITTED`] once it is whole. From that moment on the new files are the adapter, and [`locate`] finds them there;
//! moving them to their places can be cut off and finished later by [`finish`].

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The folder of a set of files that is whole and takes precedence over those beside it.
pub(crate) const COMMITTED: &str = ".graft-committed";
/// How the folders begin that are still being written.
const STAGING: &str = ".graft-staging-";

/// Writes a file through a temporary one in the same directory, fsync and rename: at any moment there is the old
/// content or the new one under `path`, and after this returns the new one survives a power cut.
///
/// # Errors
/// [`Error::Io`], and then the old file is as it was.
pub fn write_file(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    let dir = parent(path);
    let fail = Error::io(path, "writing");
    let run = || {
        let mut temp = builder(".graft-").tempfile_in(dir)?;
        let mut out = BufWriter::with_capacity(1 << 20, temp.as_file_mut());
        write(&mut out)?;
        out.flush()?;
        drop(out);
        temp.as_file().sync_all()?;
        temp.persist(path).map_err(|e| e.error)?;
        sync_dir(dir)
    };
    run().map_err(fail)
}

/// The directory that a path lies in.
pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Temporary files are private to their owner by default; what replaces a normal file must be as readable as one.
fn builder(prefix: &'static str) -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(prefix);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = if prefix == STAGING { 0o777 } else { 0o666 };
        builder.permissions(fs::Permissions::from_mode(mode));
    }
    builder
}

/// Makes renames inside a directory durable. Only Unix can open directories.
fn sync_dir(dir: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(dir)?.sync_all() } else { Ok(()) }
}

/// What a file is to hold, in pieces: large ones are borrowed from where they lie.
pub(crate) type Content<'a> = Vec<Cow<'a, [u8]>>;

/// Replaces the files `known` of a directory by `files`, all or none; known files that are not among the new ones are
/// removed. Other files are left alone. The directory is made if it is not there.
pub(crate) fn replace_files(dir: &Path, known: &[&str], files: &[(&str, Content<'_>)]) -> Result<()> {
    if !dir.exists() {
        return create(dir, files);
    }
    finish(dir, known)?;
    remove_leftovers(dir)?;
    stage(dir, known, files)?;
    finish(dir, known)
}

/// A new directory appears under its name only when it is whole.
fn create(dir: &Path, files: &[(&str, Content<'_>)]) -> Result<()> {
    let above = parent(dir);
    fs::create_dir_all(above).map_err(Error::io(above, "creating"))?;
    let temp = write_all(above, files)?;
    fs::rename(temp.path(), dir).map_err(Error::io(dir, "creating"))?;
    let _ = temp.keep();
    sync_dir(above).map_err(Error::io(above, "syncing"))
}

/// Makes something new out of what `fill` writes into a hidden folder beside it: the folder itself under the name of
/// `target` if `folder` is set, else the files in it, of which the one of that name comes last. It appears whole or not
/// at all, and nothing is written over.
///
/// # Errors
/// [`Error::Exists`], I/O errors, and what `fill` says.
pub fn create_whole<T, E: From<Error>>(
    target: &Path,
    folder: bool,
    fill: impl FnOnce(&Path) -> Result<T, E>,
) -> Result<T, E> {
    let free = |p: &Path| match p.symlink_metadata() {
        Ok(_) => Err(Error::Exists { path: p.to_path_buf() }),
        Err(_) => Ok(()),
    };
    free(target)?;
    let above = parent(target);
    fs::create_dir_all(above).map_err(Error::io(above, "creating"))?;
    let temp = builder(STAGING).tempdir_in(above).map_err(Error::io(above, "writing"))?;
    let value = fill(temp.path())?;
    let moved = |from: &Path, to: &Path| {
        free(to)?;
        fs::rename(from, to).map_err(Error::io(to, "creating"))
    };
    if folder {
        moved(temp.path(), target)?;
        let _ = temp.keep();
    } else {
        let listed = fs::read_dir(temp.path()).map_err(Error::io(temp.path(), "listing"))?;
        let mut files: Vec<PathBuf> = listed.flatten().map(|e| e.path()).collect();
        files.sort_by_key(|f| f.file_name() == target.file_name());
        for file in files {
            moved(&file, &above.join(file.file_name().unwrap_or_default()))?;
        }
    }
    sync_dir(above).map_err(Error::io(above, "syncing"))?;
    Ok(value)
}

/// Writes the new set beside the old one and declares it committed. For each known file of the old set that the new one
/// lacks it holds a tombstone.
fn stage(dir: &Path, known: &[&str], files: &[(&str, Content<'_>)]) -> Result<()> {
    let gone: Vec<String> = gone(dir, known, |k| files.iter().any(|f| f.0 == k)).collect();
    let mut all: Vec<(&str, Content<'_>)> = gone.iter().map(|t| (t.as_str(), Vec::new())).collect();
    all.extend(files.iter().cloned());
    let temp = write_all(dir, &all)?;
    commit(temp.path(), dir)?;
    let _ = temp.keep();
    Ok(())
}

/// From here on the files of the folder `whole`, which are on disk, are those of `dir`.
fn commit(whole: &Path, dir: &Path) -> Result<()> {
    let committed = dir.join(COMMITTED);
    fs::rename(whole, &committed).map_err(Error::io(&committed, "writing"))?;
    sync_dir(dir).map_err(Error::io(dir, "syncing"))
}

/// As [`replace_files`], with files that lie in a folder of the same file system, which is used up.
pub(crate) fn move_files(from: &Path, dir: &Path, known: &[&str]) -> Result<()> {
    let sync = |path: &Path| File::open(path).and_then(|f| f.sync_all()).map_err(Error::io(path, "writing"));
    let there = |name: &str| from.join(name).is_file();
    known.iter().filter(|name| there(name)).try_for_each(|name| sync(&from.join(name)))?;
    if dir.symlink_metadata().is_err() {
        sync_dir(from).map_err(Error::io(from, "syncing"))?;
        fs::rename(from, dir).map_err(Error::io(dir, "creating"))?;
        return sync_dir(parent(dir)).map_err(Error::io(dir, "syncing"));
    }
    finish(dir, known)?;
    for name in gone(dir, known, there) {
        let path = from.join(name);
        File::create(&path).map_err(Error::io(&path, "writing"))?;
    }
    sync_dir(from).map_err(Error::io(from, "syncing"))?;
    commit(from, dir)?;
    finish(dir, known)
}

fn tombstone(name: &str) -> String {
    format!("{name}.removed")
}

/// The tombstones of the files of a directory that are not to be there any more.
fn gone(dir: &Path, known: &[&str], stays: impl Fn(&str) -> bool) -> impl Iterator<Item = String> {
    let goes = move |name: &&&str| !stays(name) && dir.join(name).symlink_metadata().is_ok();
    known.iter().filter(goes).map(|name| tombstone(name))
}

/// A temporary folder in `dir` with the files, synced; removed again if anything fails.
fn write_all(dir: &Path, files: &[(&str, Content<'_>)]) -> Result<tempfile::TempDir> {
    let temp = builder(STAGING).tempdir_in(dir).map_err(Error::io(dir, "writing"))?;
    for (name, pieces) in files {
        let path = temp.path().join(name);
        let run = || {
            let mut file = File::create(&path)?;
            pieces.iter().try_for_each(|p| file.write_all(p))?;
            file.sync_all()
        };
        run().map_err(Error::io(&dir.join(name), "writing"))?;
    }
    sync_dir(temp.path()).map_err(Error::io(dir, "writing"))?;
    Ok(temp)
}

/// Removes what a process left that died while writing.
fn remove_leftovers(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).map_err(Error::io(dir, "listing"))? {
        let entry = entry.map_err(Error::io(dir, "listing"))?;
        if entry.file_name().to_string_lossy().starts_with(STAGING) {
            fs::remove_dir_all(entry.path()).map_err(Error::io(&entry.path(), "removing"))?;
        }
    }
    Ok(())
}

/// Moves the files of a committed set to their places, where a set was left behind; can be repeated at will.
pub(crate) fn finish(dir: &Path, known: &[&str]) -> Result<()> {
    let committed = dir.join(COMMITTED);
    if !committed.is_dir() {
        return Ok(());
    }
    for name in known {
        let (new, to) = (committed.join(name), dir.join(name));
        if committed.join(tombstone(name)).exists() && to.exists() {
            fs::remove_file(&to).map_err(Error::io(&to, "removing"))?;
        } else if new.exists() {
            fs::rename(&new, &to).map_err(Error::io(&to, "writing"))?;
        }
    }
    // The new names must be durable before the set that they came from disappears; whether that is, is of no effect.
    sync_dir(dir).map_err(Error::io(dir, "syncing"))?;
    fs::remove_dir_all(&committed).map_err(Error::io(&committed, "removing"))
}

/// Where a file of a directory is, if it is there: in a committed set that is not finished yet, or in the directory.
/// Nothing is written, so that adapters can be read from where one may not write.
pub(crate) fn locate(dir: &Path, name: &str) -> Option<PathBuf> {
    let committed = dir.join(COMMITTED);
    if committed.join(tombstone(name)).exists() {
        return None;
    }
    [committed.join(name), dir.join(name)].into_iter().find(|p| p.exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 3] = ["a", "b", "c"];

    fn set(dir: &Path, files: &[(&str, &str)]) {
        let files: Vec<_> = files.iter().map(|(n, t)| (*n, vec![Cow::Borrowed(t.as_bytes())])).collect();
        replace_files(dir, &KNOWN, &files).unwrap();
    }

    fn read(dir: &Path) -> Vec<(String, String)> {
        let found = KNOWN.iter().filter_map(|n| Some((n.to_string(), locate(dir, n)?)));
        found.map(|(n, p)| (n, fs::read_to_string(p).unwrap())).collect()
    }

    fn pairs(files: &[(&str, &str)]) -> Vec<(String, String)> {
        files.iter().map(|(n, t)| (n.to_string(), t.to_string())).collect()
    }

    #[test]
    fn a_set_replaces_the_old_one_and_leaves_other_files_alone() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("new/adapter");
        set(&dir, &[("a", "1"), ("b", "1")]);
        fs::write(dir.join("metrics.jsonl"), "kept").unwrap();
        set(&dir, &[("a", "2"), ("c", "2")]);
        assert_eq!(read(&dir), pairs(&[("a", "2"), ("c", "2")]));
        assert!(!dir.join("b").exists());
        assert_eq!(fs::read_to_string(dir.join("metrics.jsonl")).unwrap(), "kept");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 3);
        assert_eq!(fs::read_dir(root.path().join("new")).unwrap().count(), 1);
    }

    /// Cuts a replacement off after each of its steps: a reader sees the old set or the new one, never a mix, and
    /// the next save finishes what was begun.
    #[test]
    fn a_process_that_dies_at_any_step_leaves_one_whole_set() {
        let new = pairs(&[("a", "2"), ("c", "2")]);
        for steps_done in 0..=3 {
            let root = tempfile::tempdir().unwrap();
            let dir = root.path();
            set(dir, &[("a", "1"), ("b", "1")]);
            fs::create_dir(dir.join(".graft-staging-dead")).unwrap();
            fs::write(dir.join(".graft-staging-dead/a"), "half").unwrap();
            assert_eq!(read(dir), pairs(&[("a", "1"), ("b", "1")]));
            let two = || vec![Cow::Borrowed(&b"2"[..])];
            stage(dir, &KNOWN, &[("a", two()), ("c", two())]).unwrap();
            let steps: [&dyn Fn(); 3] = [
                &|| fs::rename(dir.join(COMMITTED).join("a"), dir.join("a")).unwrap(),
                &|| fs::remove_file(dir.join("b")).unwrap(),
                &|| fs::rename(dir.join(COMMITTED).join("c"), dir.join("c")).unwrap(),
            ];
            steps[..steps_done].iter().for_each(|s| s());
            assert_eq!(read(dir), new, "after {steps_done} steps");
            finish(dir, &KNOWN).unwrap();
            assert_eq!(read(dir), new);
            set(dir, &[("b", "3")]);
            assert_eq!(read(dir), pairs(&[("b", "3")]));
            assert_eq!(fs::read_dir(dir).unwrap().count(), 1);
        }
    }

    #[test]
    fn only_what_was_there_is_marked_as_gone() {
        let (root, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (dir, from) = (root.path().join("adapter"), new.path().join("set"));
        set(&dir, &[("a", "1")]);
        set(&from, &[("c", "2")]);
        let marked: Vec<String> = gone(&dir, &KNOWN, |name| from.join(name).exists()).collect();
        assert_eq!(marked, [tombstone("a")]);
        move_files(&from, &dir, &KNOWN).unwrap();
        assert_eq!(read(&dir), pairs(&[("c", "2")]));
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_file_and_no_rubbish() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("f");
        write_file(&path, |out| out.write_all(b"old")).unwrap();
        let failing = |out: &mut dyn Write| {
            out.write_all(b"new")?;
            Err(io::Error::other("full"))
        };
        assert!(write_file(&path, failing).unwrap_err().to_string().contains("full"));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }
}
