//! Digests of bases and of adapter files: BLAKE3, written `blake3:<64 hex digits>`.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

fn text(hash: blake3::Hash) -> String {
    format!("blake3:{}", hash.to_hex())
}

/// The digest of some bytes.
pub fn digest_bytes(bytes: &[u8]) -> String {
    text(blake3::hash(bytes))
}

/// The digest of the bytes that these pieces make one after the other.
pub(crate) fn digest_pieces<P: AsRef<[u8]>>(pieces: &[P]) -> String {
    let mut hasher = blake3::Hasher::new();
    for piece in pieces {
        hasher.update(piece.as_ref());
    }
    text(hasher.finalize())
}

/// One digest over several files, in the order given: for a base its model file, then its external data.
///
/// It is the hash of each file's length (u64, little-endian) and hash, so that moving bytes from one file to the next
/// changes it; names do not enter, so that a base may be moved and renamed.
///
/// # Errors
/// [`Error::Io`] naming the file that cannot be read.
pub fn digest_files<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> Result<String> {
    let read = |path: P| {
        let path = path.as_ref();
        crate::tensors::open(path)?;
        let mut one = blake3::Hasher::new();
        one.update_mmap_rayon(path).map_err(Error::io(path, "reading"))?;
        Ok(FileDigest::of(&one))
    };
    let files: Vec<FileDigest> = paths.into_iter().map(read).collect::<Result<_>>()?;
    Ok(digest_of(&files))
}

/// Length and hash of one file.
pub(crate) struct FileDigest {
    bytes: u64,
    hash: blake3::Hash,
}

impl FileDigest {
    /// Of a file with this content.
    pub(crate) fn of_content(content: &[u8]) -> FileDigest {
        FileDigest { bytes: content.len() as u64, hash: blake3::hash(content) }
    }

    fn of(read: &blake3::Hasher) -> FileDigest {
        FileDigest { bytes: read.count(), hash: read.finalize() }
    }

    /// What [`digest_bytes`] gives of the content.
    pub(crate) fn text(&self) -> String {
        text(self.hash)
    }
}

/// What [`digest_files`] gives of these files.
pub(crate) fn digest_of<'a>(files: impl IntoIterator<Item = &'a FileDigest>) -> String {
    let mut all = blake3::Hasher::new();
    for file in files {
        all.update(&file.bytes.to_le_bytes());
        all.update(file.hash.as_bytes());
    }
    text(all.finalize())
}

/// What [`digest_files`] gives of an adapter's files. They are read, not mapped: whoever shortens one meanwhile does no harm.
///
/// # Errors
/// [`Error::Io`] naming the file that cannot be read.
pub fn digest_adapter(dir: &Path) -> Result<String> {
    let read = |path: PathBuf| {
        let mut one = blake3::Hasher::new();
        one.update_reader(crate::tensors::open(&path)?).map_err(Error::io(&path, "reading"))?;
        Ok(FileDigest::of(&one))
    };
    let files: Vec<FileDigest> = crate::files_of(dir).into_iter().map(read).collect::<Result<_>>()?;
    Ok(digest_of(&files))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(parts: &[&[u8]]) -> (tempfile::TempDir, Vec<std::path::PathBuf>) {
        let dir = tempfile::tempdir().unwrap();
        let paths = parts.iter().enumerate().map(|(i, p)| {
            let path = dir.path().join(i.to_string());
            std::fs::write(&path, p).unwrap();
            path
        });
        let paths = paths.collect();
        (dir, paths)
    }

    #[test]
    fn every_byte_and_the_borders_between_files_enter() {
        let digest = |parts: &[&[u8]]| {
            let (_dir, paths) = files(parts);
            digest_files(paths).unwrap()
        };
        let a = digest(&[b"model", b"data"]);
        assert!(a.starts_with("blake3:") && a.len() == 7 + 64);
        assert_eq!(a, digest(&[b"model", b"data"]));
        assert_ne!(a, digest(&[b"modeld", b"ata"]));
        assert_ne!(a, digest(&[b"model", b"datb"]));
        assert_ne!(a, digest(&[b"data", b"model"]));
    }

    #[test]
    fn an_adapter_has_the_digest_of_its_files_however_they_are_read() {
        let dir = tempfile::tempdir().unwrap();
        // The second is long enough to be mapped.
        let contents = [vec![1u8; 10], vec![2u8; 300_000]];
        for (name, content) in [crate::CONFIG_FILE, crate::MODEL_FILE].iter().zip(&contents) {
            std::fs::write(dir.path().join(name), content).unwrap();
        }
        let files = crate::files_of(dir.path());
        let by_name =
            files.iter().map(|f| if f.ends_with(crate::CONFIG_FILE) { &contents[0] } else { &contents[1] });
        let whole = digest_files(&files).unwrap();
        assert_eq!(whole, digest_adapter(dir.path()).unwrap());
        let read: Vec<FileDigest> = by_name.map(|content| FileDigest::of_content(content)).collect();
        assert_eq!(whole, digest_of(&read));
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let e = digest_files(["no/such/model.onnx"]).unwrap_err();
        assert!(e.to_string().contains("model.onnx"));
    }
}
