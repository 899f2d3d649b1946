//! A directory that appears whole or not at all.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::{ImportError, Result};

/// A hidden folder beside the place where its content will go; removed when dropped unpublished.
pub(crate) struct Staging {
    path: PathBuf,
    target: PathBuf,
    published: bool,
}

impl Staging {
    /// Makes the folder; parents of `target` are made, too.
    ///
    /// # Errors
    /// [`ImportError::Exists`] where there is something at `target`, and I/O errors.
    pub(crate) fn new(target: &Path) -> Result<Staging> {
        if target.symlink_metadata().is_ok() {
            return Err(ImportError::Exists { path: target.into() });
        }
        let parent = target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(parent).map_err(ImportError::io(parent, "making the folder"))?;
        let name = target.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let process = std::process::id();
        for attempt in 0u32..1000 {
            let path = parent.join(format!(".{name}.{process}.{attempt}.part"));
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Staging { path, target: target.into(), published: false }),
                Err(e) if e.kind() == ErrorKind::AlreadyExists => continue,
                Err(e) => return Err(ImportError::io(&path, "making the folder")(e)),
            }
        }
        Err(ImportError::Exists { path: parent.join(format!(".{name}.{process}.0.part")) })
    }

    /// The folder to write into.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Copies a file in, under its own name; false where there is none at `from`.
    pub(crate) fn copy(&self, from: &Path, name: &str) -> Result<bool> {
        let source = from.join(name);
        if !source.is_file() {
            return Ok(false);
        }
        let to = self.path.join(name);
        let mut read = File::open(&source).map_err(ImportError::io(&source, "opening"))?;
        let mut write = File::create(&to).map_err(ImportError::io(&to, "making the file"))?;
        std::io::copy(&mut read, &mut write).map_err(ImportError::io(&to, "copying"))?;
        write.sync_all().map_err(ImportError::io(&to, "writing"))?;
        Ok(true)
    }

    /// Puts the folder in its place.
    ///
    /// # Errors
    /// [`ImportError::Exists`] where somebody else was faster, and I/O errors.
    pub(crate) fn publish(mut self) -> Result<()> {
        // Renaming would replace an empty folder in silence.
        if self.target.symlink_metadata().is_ok() {
            return Err(ImportError::Exists { path: self.target.clone() });
        }
        fs::rename(&self.path, &self.target).map_err(ImportError::io(&self.target, "renaming into place"))?;
        self.published = true;
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.published {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}
