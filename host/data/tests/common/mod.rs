//! What the tests share.

use std::path::PathBuf;

/// Shared data sets and tokenizers; `None` (with a line that says so) where there are none, except in CI.
pub fn shared(path: &str) -> Option<PathBuf> {
    let root = std::env::var_os("GRAFT_SHARED")
        .map(PathBuf::from)
        .unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared"));
    let found = root.join(path);
    if found.exists() {
        return Some(found);
    }
    assert!(std::env::var_os("CI").is_none(), "no shared data at {}", found.display());
    println!("skipped: no shared data");
    None
}
