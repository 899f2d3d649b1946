//! A Python environment with the clients of servers that tests drive, made by pip from pinned versions.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::pip;
use crate::error::{Result, io};
use crate::paths::Paths;
use crate::stamp::{self, Inputs};
use crate::steps::Outcome;

/// Names the Python to use instead; tests read it.
pub const GRAFT_CLIENTS: &str = "GRAFT_CLIENTS";
/// The pinned versions, below the workspace.
const REQUIREMENTS: &str = "tests/peers/requirements.txt";

/// Makes the environment, unless it is there, and returns its Python. Without a network or pip there is none: that is said
/// on standard error, and the tests say that they are skipped.
///
/// # Errors
/// On a build server (`CI` is set) where there is none; when the folder can't be written.
pub fn clients(paths: &Paths) -> Result<(Option<PathBuf>, Outcome)> {
    if let Some(python) = super::named(GRAFT_CLIENTS, "Python", Path::is_file)? {
        return Ok((Some(python), Outcome::Skipped));
    }
    let (folder, requirements) = (paths.cache.join("clients"), paths.root.join(REQUIREMENTS));
    let python = folder.join("bin/python");
    let stamp = Inputs::new().file(&requirements)?.stamp(&folder);
    if stamp.holds() && python.is_file() {
        return Ok((Some(python), Outcome::Skipped));
    }
    stamp.clear()?;
    stamp::remove(&folder).map_err(io("cannot remove", &folder))?;
    eprintln!("fetching the clients that tests drive ({REQUIREMENTS})");
    match make(&folder, &python, &requirements) {
        Ok(()) => {
            stamp.set()?;
            Ok((Some(python), Outcome::Done))
        }
        Err(why) if env::var_os("CI").is_some() => Err(why),
        Err(why) => {
            eprintln!("warning: tests with clients of servers will be SKIPPED: {why}");
            Ok((None, Outcome::Skipped))
        }
    }
}

fn make(folder: &Path, python: &Path, requirements: &Path) -> Result<()> {
    let mut venv = Command::new("python3");
    pip::run(venv.args(["-m", "venv"]).arg(folder), REQUIREMENTS)?;
    let mut install = Command::new(python);
    install
        .args(["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"])
        .args(["--retries", "2", "--timeout", "30", "--only-binary=:all:", "--no-deps", "--requirement"])
        .arg(requirements);
    pip::run(&mut install, REQUIREMENTS)
}
