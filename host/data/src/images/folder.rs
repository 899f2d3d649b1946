//! A folder with one subfolder for each class as a table of paths and labels.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::error::DataError;
use crate::read::ReadOptions;
use crate::table::{Builder, Table};

/// Reads the folder into the columns `image`, a path below it, and `label`, the class; in the order of their names.
/// Hidden files are passed over.
pub(crate) fn read(dir: &Path, options: &ReadOptions) -> Result<Table, DataError> {
    let mut builder = Builder::new(dir.display().to_string().into(), false, None, options.limits);
    let mut hasher = blake3::Hasher::new();
    builder.add_column("image", 0)?;
    builder.add_column("label", 0)?;
    for (label, folder) in entries(dir)? {
        if !folder.is_dir() {
            if is_image(&label) {
                let message = "it lies outside of the classes' folders; move it into one".into();
                return Err(DataError::ImageFolder { path: folder, message });
            }
            continue;
        }
        for (name, file) in entries(&folder)? {
            if !is_image(&name) || !file.is_file() {
                let message = "a class's folder holds .jpg, .jpeg and .png files only; take it out".into();
                return Err(DataError::ImageFolder { path: file, message });
            }
            let path = format!("{label}/{name}");
            hasher.update(path.as_bytes()).update(&[0]);
            let io = |source| DataError::Io { file: file.clone(), source };
            hasher.update_reader(File::open(&file).map_err(io)?).map_err(io)?;
            builder.set(0, Some(&path), 0)?;
            builder.set(1, Some(&label), 0)?;
            builder.end_row(0)?;
        }
    }
    builder.finish(format!("blake3:{}", hasher.finalize().to_hex()))
}

/// Names and paths of what is in a folder, sorted by name.
fn entries(dir: &Path) -> Result<Vec<(String, PathBuf)>, DataError> {
    let io = |source| DataError::Io { file: dir.to_owned(), source };
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io)? {
        let entry = entry.map_err(io)?;
        let name = entry.file_name().into_string().map_err(|_| DataError::ImageFolder {
            path: entry.path(),
            message: "its name is not UTF-8; rename it".into(),
        })?;
        if !name.starts_with('.') {
            all.push((name, entry.path()));
        }
    }
    all.sort();
    Ok(all)
}

fn is_image(name: &str) -> bool {
    let ending =
        Path::new(name).extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    ["jpg", "jpeg", "png"].contains(&ending.as_str())
}
