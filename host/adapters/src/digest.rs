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
        Ok(one)
    };
    digest_parts(paths.into_iter().map(read))
}

fn digest_parts(parts: impl Iterator<Item = Result<blake3::Hasher>>) -> Result<String> {
    let mut all = blake3::Hasher::new();
    for part in parts {
        let part = part?;
        all.update(&part.count().to_le_bytes());
        all.update(part.finalize().as_bytes());
    }
    Ok(text(all.finalize()))
}

/// What [`digest_files`] gives of an adapter's files. They are read, not mapped: whoever shortens one meanwhile does no harm.
///
/// # Errors
/// [`Error::Io`] naming the file that cannot be read.
pub fn digest_adapter(dir: &Path) -> Result<String> {
    let read = |path: PathBuf| {
        let mut one = blake3::Hasher::new();
        one.update_reader(crate::tensors::open(&path)?).map_err(Error::io(&path, "reading"))?;
        Ok(one)
    };
    digest_parts(crate::files_of(dir).into_iter().map(read))
}

/// What [`digest_files`] gives of files with these contents.
pub(crate) fn digest_contents<'a>(contents: impl IntoIterator<Item = &'a [u8]>) -> Result<String> {
    let read = |content| Ok(blake3::Hasher::new().update(content).clone());
    digest_parts(contents.into_iter().map(read))
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
        assert_eq!(whole, digest_contents(by_name.map(Vec::as_slice)).unwrap());
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let e = digest_files(["no/such/model.onnx"]).unwrap_err();
        assert!(e.to_string().contains("model.onnx"));
    }
}
