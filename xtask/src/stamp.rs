//! Stamps: a file beside an output that holds the digest of all that the output was made from.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Result, io};

/// Collects the inputs of an output and tells whether the output is up to date.
pub struct Inputs(Sha256);

impl Inputs {
    /// No inputs yet.
    pub fn new() -> Inputs {
        Inputs(Sha256::new())
    }

    /// A piece of text, such as an argument.
    pub fn text(mut self, text: &str) -> Inputs {
        self.part(text.as_bytes());
        self
    }

    /// The content of a file.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn file(mut self, path: &Path) -> Result<Inputs> {
        let digest = file_digest(path).map_err(io("cannot read", path))?;
        self.part(digest.as_bytes());
        Ok(self)
    }

    // The length in front keeps ("ab", "c") and ("a", "bc") apart.
    fn part(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    /// The stamp for `output` made from these inputs.
    pub fn stamp(self, output: &Path) -> Stamp {
        let mut name = output.as_os_str().to_owned();
        name.push(".stamp");
        Stamp { output: output.to_path_buf(), file: name.into(), digest: hex(&self.0.finalize()) }
    }
}

/// Says whether an output is there and was made from given inputs.
pub struct Stamp {
    output: PathBuf,
    file: PathBuf,
    digest: String,
}

impl Stamp {
    /// Whether the output is there and was made from the same inputs.
    pub fn holds(&self) -> bool {
        self.output.exists() && fs::read_to_string(&self.file).is_ok_and(|found| found == self.digest)
    }

    /// Removes the stamp and a stale output, which has to be made anew.
    ///
    /// # Errors
    /// When something can't be removed.
    pub fn clear(&self) -> Result<()> {
        remove(&self.file).map_err(io("cannot remove", &self.file))?;
        remove(&self.output).map_err(io("cannot remove", &self.output))
    }

    /// Notes that the output has been made from these inputs.
    ///
    /// # Errors
    /// When the stamp can't be written.
    pub fn set(&self) -> Result<()> {
        write_atomic(&self.file, self.digest.as_bytes()).map_err(io("cannot write", &self.file))
    }
}

/// Removes a file or a folder; it is fine if there is none.
pub fn remove(path: &Path) -> io::Result<()> {
    let result = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    result.or_else(|e| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) })
}

/// Writes `bytes` to `path` so that either the old or the whole new content is there.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    // Temporary files are private by default; a cache may be shared.
    let readable = fs::Permissions::from_mode(0o644);
    let mut file = tempfile::Builder::new().permissions(readable).tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// The sha256 of a file's content, hexadecimal.
pub fn file_digest(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut sha = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&sha.finalize())),
            n => sha.update(&buffer[..n]),
        }
    }
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_holds_until_an_input_changes() {
        let folder = tempfile::tempdir().unwrap();
        let (data, out) = (folder.path().join("data.csv"), folder.path().join("out"));
        fs::write(&data, "a").unwrap();
        let stamp = || Inputs::new().text("--epochs 3").file(&data).unwrap().stamp(&out);

        assert!(!stamp().holds());
        fs::create_dir(&out).unwrap();
        stamp().set().unwrap();
        assert!(stamp().holds());

        fs::write(&data, "b").unwrap();
        assert!(!stamp().holds());
        stamp().clear().unwrap();
        assert!(!out.exists());
    }

    #[test]
    fn a_stamp_without_its_output_does_not_hold() {
        let folder = tempfile::tempdir().unwrap();
        let stamp = Inputs::new().stamp(&folder.path().join("gone"));
        stamp.set().unwrap();
        assert!(!stamp.holds());
    }

    #[test]
    fn neighbouring_texts_do_not_run_together() {
        let out = Path::new("out");
        let left = Inputs::new().text("ab").text("c").stamp(out);
        let right = Inputs::new().text("a").text("bc").stamp(out);
        assert_ne!(left.digest, right.digest);
    }
}
