//! `cargo xtask release-api`: keeps the plugin API as it is, so that tests hold later hosts to it.

use std::path::Path;

use crate::error::{Result, io};
use crate::paths::Paths;
use crate::process;

/// Where the released API is kept, from the workspace root.
const KEPT: &str = "tests/tests/data/released_api";

/// Where the templates of `graft plugins new` are, from the workspace root.
const TEMPLATES: &str = "host/cli/src/commands/plugins/templates";

/// Packages `plugin-api` and puts it, with the templates of today, in the place of what was released before.
///
/// # Errors
/// When cargo fails, or a file can't be copied.
pub fn run(paths: &Paths) -> Result<()> {
    let mut cargo = process::cargo();
    cargo.args(["package", "--package", "graft-plugin-api", "--no-verify", "--allow-dirty", "--offline"]);
    let made = tempfile::tempdir().map_err(io("cannot make", Path::new("a temporary folder")))?;
    process::run(cargo.arg("--target-dir").arg(made.path()).current_dir(&paths.root))?;
    let kept = paths.root.join(KEPT);
    for old in crates_in(&kept)? {
        std::fs::remove_file(&old).map_err(io("cannot remove", &old))?;
    }
    let mut files = crates_in(&made.path().join("package"))?;
    files.extend(["method.rs.in", "objective.rs.in"].map(|n| paths.root.join(TEMPLATES).join(n)));
    for file in files {
        let to = kept.join(file.file_name().unwrap_or_default());
        std::fs::copy(&file, &to).map_err(io("cannot write", &to))?;
        println!("{}", paths.relative(&to).display());
    }
    Ok(())
}

/// The packaged crates in a folder.
fn crates_in(folder: &Path) -> Result<Vec<std::path::PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(io("cannot read", folder))?;
    let files = entries.flatten().map(|e| e.path());
    Ok(files.filter(|p| p.extension().is_some_and(|e| e == "crate")).collect())
}
