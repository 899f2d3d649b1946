//! Where tests find what is not in the repository.

use std::path::{Path, PathBuf};

use graft_runtime::{Provider, Runtime, RuntimeError, RuntimeOptions, SessionOptions};

/// The shared data: `GRAFT_SHARED`, or `shared` beside the workspace. Where there are none it says so, except on a
/// build server, where that is a failure.
///
/// # Panics
/// When `CI` is set and there are no shared data.
pub fn shared() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let folder = std::env::var_os("GRAFT_SHARED").map_or_else(beside, PathBuf::from);
    if folder.join("conformance").is_dir() {
        return Some(folder);
    }
    assert!(std::env::var_os("CI").is_none(), "no shared data: set GRAFT_SHARED");
    println!("skipped: no shared data");
    None
}

/// ONNX Runtime, found as the binary finds it. Where there is none it says so, except on a build server, where that
/// is a failure.
///
/// # Panics
/// When `CI` is set and there is no library, or when there is one that does not start.
pub fn runtime() -> Option<&'static Runtime> {
    match Runtime::start(&RuntimeOptions::default()) {
        Ok(r) => Some(r),
        Err(RuntimeError::LibraryNotFound { .. }) if std::env::var_os("CI").is_none() => {
            println!("skipped: no ONNX Runtime");
            None
        }
        Err(e) => panic!("{e}"),
    }
}

/// Sessions on the provider that tests named `provider_…` are to run on: `GRAFT_TEST_PROVIDER`, or else the processor.
///
/// # Panics
/// When there is no such provider.
pub fn on_provider() -> SessionOptions {
    let provider: Provider = match std::env::var("GRAFT_TEST_PROVIDER") {
        Ok(name) => name.parse().unwrap_or_else(|e| panic!("GRAFT_TEST_PROVIDER: {e}")),
        Err(_) => Provider::Cpu,
    };
    SessionOptions { provider, ..SessionOptions::default() }
}

/// The Python that has the clients of servers and the fuzzer (`tests/peers/requirements.txt`): `GRAFT_CLIENTS`, which
/// `cargo xtask test` sets. Where there is none it says so, except on a build server, where that is a failure.
///
/// # Panics
/// When `CI` is set and there is none.
pub fn clients() -> Option<PathBuf> {
    let python = std::env::var_os("GRAFT_CLIENTS").filter(|p| !p.is_empty()).map(PathBuf::from);
    if python.is_none() {
        assert!(std::env::var_os("CI").is_none(), "no Python with the clients: run `cargo xtask test`");
        println!("skipped: no Python with the clients; `cargo xtask test` makes one");
    }
    python
}
