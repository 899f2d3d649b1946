//! A disk that is full while saving costs nothing but the new adapter. The test runs itself again in a child process
//! whose files may not grow beyond a limit, which is what a full disk looks like to a writer and needs no privileges.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod common;

use std::path::Path;
use std::process::Command;

use common::{adapter, homeless, numbers};
use graft_adapters::{StoredAdapter, load, save};

const CHILD: &str = "GRAFT_TEST_FULL_DISK";

/// An adapter whose tensors take more than the child may write.
fn large() -> StoredAdapter {
    let mut a = adapter("mean");
    for (key, tensor) in &mut a.parameters {
        *tensor = numbers(&if key.name.starts_with("lora_A") { [2, 8192] } else { [8192, 2] });
    }
    a
}

fn run_child(test: &str, dir: &Path) -> std::process::Output {
    // The signal for too large a file is ignored, so that the write fails with an error as on a full disk. Blocks are
    // of 512 or 1024 bytes, by the shell.
    let script = r#"trap '' XFSZ; ulimit -f 64; exec "$0" --exact "$1" --nocapture"#;
    let exe = std::env::current_exe().unwrap();
    Command::new("sh").args(["-c", script]).arg(exe).arg(test).env(CHILD, dir).output().unwrap()
}

fn entries(dir: &Path) -> Vec<String> {
    let names = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

#[test]
fn a_full_disk_leaves_the_old_adapter_readable() {
    if let Some(dir) = std::env::var_os(CHILD) {
        let e = save(Path::new(&dir), &large()).unwrap_err().to_string();
        assert!(e.contains("adapter_model.safetensors: writing failed"), "{e}");
        println!("refused as it should be");
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let (old, new) = (root.path().join("old"), root.path().join("new"));
    save(&old, &adapter("pooled")).unwrap();
    let before = entries(&old);
    for dir in [&old, &new] {
        let out = run_child("a_full_disk_leaves_the_old_adapter_readable", dir);
        let text =
            format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert!(out.status.success() && text.contains("refused as it should be"), "{text}");
    }
    assert_eq!(homeless(load(&old).unwrap()), homeless(adapter("pooled")));
    assert_eq!(entries(&old), before, "nothing half-written stays");
    assert_eq!(entries(root.path()), ["old"], "a new directory does not appear");
    save(&old, &large()).unwrap();
    assert_eq!(homeless(load(&old).unwrap()), homeless(large()));
}
