//! An uploaded adapter: received and unpacked in a hidden folder beside the others, then put in its place, see
//! [`Store::replace`].

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Seek, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use graft_adapters::FILES;
use http_body_util::BodyExt;

use crate::ask::Refusal;
use crate::patience::in_time;
use crate::store::{Aside, Resident, Store, StoreError};

/// Bytes of a file that are written at once.
const PIECE: usize = 128 << 10;
/// Most entries of an archive; an adapter has a handful.
const MOST_ENTRIES: usize = 1000;

/// An archive that was received.
pub(super) struct Upload {
    root: PathBuf,
    name: String,
    aside: Aside,
    archive: File,
    most: usize,
}

fn unreadable(e: &dyn std::fmt::Display) -> Refusal {
    Refusal::Invalid(format!("the body is no archive (tar) of an adapter: {e}"))
}

impl Upload {
    /// Receives the body, of which the next piece has to come within `pause`.
    pub(super) async fn receive(
        root: &Path,
        name: &str,
        mut body: Body,
        most: usize,
        pause: Option<Duration>,
    ) -> Result<Upload, Refusal> {
        let failed = |e: io::Error| Refusal::Internal(format!("the adapter can't be stored: {e}"));
        let aside = Aside::new(root).map_err(failed)?;
        let mut archive = tempfile::tempfile_in(aside.path()).map_err(failed)?;
        let mut size = 0usize;
        while let Some(frame) = in_time(pause, body.frame()).await? {
            let frame = frame.map_err(|_| Refusal::Invalid("the body broke off".into()))?;
            let Ok(data) = frame.into_data() else { continue };
            size = size.saturating_add(data.len());
            if size > most {
                return Err(Refusal::TooLarge { most });
            }
            // A page in the cache, for a size that is limited: no reason for a thread of its own, and cheaper than as much
            // new memory.
            archive.write_all(&data).map_err(failed)?;
        }
        Ok(Upload { root: root.to_owned(), name: name.to_owned(), aside, archive, most })
    }

    /// Unpacks, loads and publishes it. The outer error is the asker's, the inner one the adapter's.
    pub(super) fn install(self, store: &Store) -> Result<Result<Arc<Resident>, StoreError>, Refusal> {
        let place = self.root.join(&self.name);
        if place.symlink_metadata().is_ok_and(|m| m.is_symlink()) {
            let why = format!("'{}' is a link to another folder, which is not written to", self.name);
            return Err(Refusal::Forbidden(why));
        }
        let unpacked = self.aside.path().join(&self.name);
        fs::create_dir(&unpacked).map_err(|e| Refusal::Internal(e.to_string()))?;
        let mut archive = &self.archive;
        archive.rewind().map_err(|e| Refusal::Internal(e.to_string()))?;
        unpack(archive, &unpacked, self.most)?;
        Ok(store.replace(&self.name, &self.root, &unpacked))
    }
}

/// Writes the adapter's files in an archive into a folder. Other files are left out; what is no plain file, or is not in
/// one folder with the others, is refused.
fn unpack(archive: impl Read, into: &Path, most: usize) -> Result<(), Refusal> {
    let mut archive = tar::Archive::new(archive);
    let (mut written, mut seen, mut folder) = (0usize, HashSet::new(), None);
    for (number, entry) in archive.entries().map_err(|e| unreadable(&e))?.enumerate() {
        if number >= MOST_ENTRIES {
            return Err(unreadable(&format!("it has more than {MOST_ENTRIES} entries")));
        }
        let mut entry = entry.map_err(|e| unreadable(&e))?;
        let path = entry.path().map_err(|e| unreadable(&e))?.into_owned();
        let kind = entry.header().entry_type();
        let parts =
            plain(&path).ok_or_else(|| unreadable(&format!("'{}' is no plain path", path.display())))?;
        if kind.is_dir() || kind == tar::EntryType::XGlobalHeader {
            continue;
        }
        if !kind.is_file() {
            return Err(unreadable(&format!("'{}' is no plain file", path.display())));
        }
        let Some((name, above)) = parts.split_last() else { continue };
        let Some(known) = FILES.iter().find(|f| *f == name) else { continue };
        if above.len() > 1 || folder.get_or_insert_with(|| above.to_vec()) != above {
            return Err(unreadable(&"its files are not in one folder"));
        }
        if !seen.insert(*known) {
            return Err(unreadable(&format!("'{known}' is in it twice")));
        }
        let left = most.saturating_sub(written);
        let target = into.join(known);
        let file = File::create(&target).map_err(|e| Refusal::Internal(e.to_string()))?;
        // Larger pieces than `io::copy` takes by itself.
        let mut file = BufWriter::with_capacity(PIECE, file);
        let copied =
            io::copy(&mut (&mut entry).take(left as u64 + 1), &mut file).map_err(|e| unreadable(&e))?;
        file.flush().map_err(|e| Refusal::Internal(e.to_string()))?;
        written = written.saturating_add(usize::try_from(copied).unwrap_or(usize::MAX));
        if written > most {
            return Err(Refusal::TooLarge { most });
        }
    }
    if seen.is_empty() {
        return Err(unreadable(&format!("none of its files is one of {}", FILES.join(", "))));
    }
    Ok(())
}

/// The names in a path that goes only down.
fn plain(path: &Path) -> Option<Vec<String>> {
    let mut names = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => names.push(name.to_str()?.to_owned()),
            Component::CurDir => {}
            _ => return None,
        }
    }
    Some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(entries: &[(&str, tar::EntryType, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, kind, bytes) in entries {
            let mut header = tar::Header::new_gnu();
            // Set by hand: the builder itself refuses the paths that are to be refused here.
            header.as_gnu_mut().expect("it is one").name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_entry_type(*kind);
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            if kind.is_symlink() || kind.is_hard_link() {
                header.set_link_name("/etc/passwd").expect("a short name");
            }
            header.set_cksum();
            builder.append(&header, *bytes).expect("memory");
        }
        builder.into_inner().expect("memory")
    }

    fn try_unpack(
        entries: &[(&str, tar::EntryType, &[u8])],
        most: usize,
    ) -> (Result<(), Refusal>, Vec<String>) {
        let dir = tempfile::tempdir().expect("a folder");
        let into = dir.path().join("in/into");
        fs::create_dir_all(&into).expect("a folder");
        let result = unpack(packed(entries).as_slice(), &into, most);
        let names = |p: &Path| fs::read_dir(p).expect("it is there").count();
        assert_eq!((names(dir.path()), names(&dir.path().join("in"))), (1, 1), "nothing is written outside");
        let listed = fs::read_dir(&into).expect("it is there");
        (result, listed.map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned()).collect())
    }

    const FILE: tar::EntryType = tar::EntryType::Regular;

    #[test]
    fn the_files_of_an_adapter_are_taken_and_others_left_out() {
        let entries = [
            ("a/", tar::EntryType::Directory, &b""[..]),
            ("a/adapter_config.json", FILE, b"{}"),
            ("a/README.md", FILE, b"words"),
            ("a/evil.so", FILE, b"code"),
        ];
        let (result, names) = try_unpack(&entries, 100);
        assert!(result.is_ok());
        assert_eq!(names, ["adapter_config.json"]);
        let (flat, names) = try_unpack(&[("./graft.json", FILE, b"{}")], 100);
        assert!(flat.is_ok() && names == ["graft.json"]);
    }

    #[test]
    fn links_devices_ways_out_and_mixtures_are_refused() {
        use tar::EntryType as T;
        for kind in [T::Symlink, T::Link, T::Char, T::Block, T::Fifo] {
            assert!(try_unpack(&[("adapter_config.json", kind, b"")], 100).0.is_err(), "{kind:?}");
        }
        for path in ["../adapter_config.json", "/adapter_config.json", "a/../../graft.json", "a/b/graft.json"]
        {
            assert!(try_unpack(&[(path, FILE, b"{}")], 100).0.is_err(), "{path}");
        }
        let two = [("a/graft.json", FILE, &b"{}"[..]), ("b/adapter_config.json", FILE, b"{}")];
        assert!(try_unpack(&two, 100).0.is_err(), "two folders");
        let twice = [("graft.json", FILE, &b"{}"[..]), ("graft.json", FILE, b"{}")];
        assert!(try_unpack(&twice, 100).0.is_err(), "twice");
        assert!(try_unpack(&[("README.md", FILE, b"x")], 100).0.is_err(), "no adapter");
        let dir = tempfile::tempdir().expect("a folder");
        assert!(
            unpack(&b"no archive at all, but long enough to be a header of one"[..], dir.path(), 100)
                .is_err()
        );
    }

    #[test]
    fn what_is_too_large_is_refused() {
        let large = [("adapter_model.safetensors", FILE, &[0u8; 200][..])];
        assert!(matches!(try_unpack(&large, 100).0, Err(Refusal::TooLarge { most: 100 })));
        assert!(try_unpack(&large, 200).0.is_ok());
    }
}
