//! What a library that is absent, foreign or of another version does: an error each time, and never a panic.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::runtime;
use graft_runtime::{Runtime, RuntimeError, RuntimeOptions, library};

/// A library made by the compiler at hand from `code`.
fn build(folder: &Path, name: &str, code: &str) -> PathBuf {
    let (source, out) = (folder.join(format!("{name}.rs")), folder.join(format!("lib{name}.so")));
    std::fs::write(&source, code).expect("the folder is ours");
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let made = Command::new(rustc)
        .args(["--edition", "2024", "--crate-type", "cdylib", "-o"])
        .args([&out, &source])
        .output()
        .expect("rustc runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    out
}

#[test]
fn a_library_of_another_version_is_refused_with_both_versions() {
    let folder = tempfile::tempdir().unwrap();
    let old = build(
        folder.path(),
        "old",
        r#"
        #[repr(C)] pub struct Base(extern "C" fn(u32) -> *const u8, extern "C" fn() -> *const u8);
        extern "C" fn api(_: u32) -> *const u8 { core::ptr::null() }
        extern "C" fn version() -> *const u8 { b"1.20.1\0".as_ptr() }
        static BASE: Base = Base(api, version);
        #[unsafe(no_mangle)] pub extern "C" fn OrtGetApiBase() -> *const Base { &BASE }
        "#,
    );
    let e = library::check(&old).unwrap_err();
    assert!(matches!(e, RuntimeError::WrongVersion { .. }), "{e}");
    let text = e.to_string();
    assert!(
        text.contains("1.20.1") && text.contains(library::ORT_VERSION) && text.contains("quickstart"),
        "{text}"
    );
}

#[test]
fn a_library_that_is_something_else_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let other = build(folder.path(), "other", "#[unsafe(no_mangle)] pub extern \"C\" fn something() {}");
    let e = library::check(&other).unwrap_err().to_string();
    assert!(e.contains("no symbol OrtGetApiBase"), "{e}");
}

#[test]
fn a_second_start_gives_the_same_runtime_or_refuses_another_library() {
    let Some(first) = runtime() else { return };
    let same = RuntimeOptions { library: Some(first.library().to_path_buf()), ..RuntimeOptions::default() };
    assert!(std::ptr::eq(first, Runtime::start(&same).unwrap()));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("libonnxruntime.so");
    std::fs::write(&file, b"another").unwrap();
    let other = RuntimeOptions { library: Some(file), ..RuntimeOptions::default() };
    assert!(matches!(Runtime::start(&other), Err(RuntimeError::AlreadyLoaded { .. })));
}
