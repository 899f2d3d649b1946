//! Where things lie: the workspace, the cache folder, cargo's outputs.

use std::env;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The folders that the chores work in. All absolute.
pub struct Paths {
    /// The workspace root.
    pub root: PathBuf,
    /// What was fetched and made: `$GRAFT_CACHE`, or `.graft` in the workspace.
    pub cache: PathBuf,
    /// cargo's folder of outputs, the one with `debug` and `release` in it.
    target: PathBuf,
}

impl Paths {
    /// The folders as this process's environment and place describe them.
    ///
    /// # Errors
    /// [`Error::NotCargo`] when the executable does not lie in a folder of cargo's.
    pub fn from_process() -> Result<Paths> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .expect("the manifest of xtask lies one folder below the root");
        let cache = match env::var_os("GRAFT_CACHE").filter(|v| !v.is_empty()) {
            Some(named) => env::current_dir().unwrap_or_default().join(named),
            None => root.join(".graft"),
        };
        let exe = env::current_exe().unwrap_or_default();
        let target = exe.ancestors().nth(2).ok_or_else(|| Error::NotCargo { exe: exe.clone() })?;
        Ok(Paths { root: root.to_path_buf(), cache, target: target.to_path_buf() })
    }

    /// The outputs of the profile whose folder is `profile` (`debug` or `release`).
    pub fn outputs(&self, profile: &str) -> PathBuf {
        self.target.join(profile)
    }

    /// `path` from the workspace root, where it lies below that.
    pub fn relative(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.root).unwrap_or(path).to_path_buf()
    }

    /// The names of the plugin packages, sorted: every folder under `plugins/` is one.
    pub fn plugin_packages(&self) -> Vec<String> {
        let folders = std::fs::read_dir(self.root.join("plugins")).into_iter().flatten().flatten();
        let mut names: Vec<String> = folders
            .filter(|f| f.path().join("Cargo.toml").is_file())
            .map(|f| format!("graft-plugin-{}", f.file_name().to_string_lossy()))
            .collect();
        names.sort();
        names
    }
}
