//! Plugins that are built outside of the workspace, as somebody else would build them.
#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::fixture::{Ended, House, target_dir};

/// The folder of the plugin API of today.
pub fn today() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugin-api")
}

/// Cargo in the crate's folder, without the network. Libraries that the workspace has built already are taken from its
/// target folder, which needs the same profile and the same versions.
fn cargo(folder: &Path, what: &str, update: bool) {
    let profile = target_dir();
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock");
    std::fs::copy(lock, folder.join("Cargo.lock")).unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args([what, "--offline", "--quiet", "--target-dir"]).arg(profile.parent().unwrap());
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    for setting in [
        "profile.dev.debug=\"line-tables-only\"",
        "profile.dev.opt-level=1",
        "profile.dev.package.\"*\".opt-level=3",
        "profile.dev.package.\"*\".debug=false",
        "profile.release.debug=\"line-tables-only\"",
    ] {
        cargo.args(["--config", setting]);
    }
    if update {
        cargo.env("GRAFT_UPDATE_MANIFEST", "1");
    }
    let ended = Ended::of(cargo.current_dir(folder));
    assert_eq!(ended.code, Some(0), "cargo {what}\n{}\n{}", ended.out, ended.err);
}

/// A plugin from its template over the API in the folder `api`, with another source where one is given; built, tested and
/// alone in the folder `plugins`, as the file that is given.
///
/// # Panics
/// When any of that fails.
pub fn built(house: &House, name: &str, kind: &str, api: &Path, source: Option<&str>) -> String {
    let line = format!("plugins new {name} --kind {kind} --json --api {}", api.display());
    let json = house.run(&line).json();
    let folder = house.path(name);
    if let Some(source) = source {
        std::fs::write(folder.join("src/lib.rs"), source).unwrap();
    }
    cargo(&folder, "test", source.is_some());
    cargo(&folder, "build", false);
    std::fs::create_dir_all(house.path("plugins")).unwrap();
    let library = json["library"].as_str().unwrap();
    std::fs::copy(target_dir().join(library), house.path("plugins").join(library)).unwrap();
    format!("plugins/{library}")
}

/// As [`built`], and verified by the host.
///
/// # Panics
/// As [`built`]; when the host finds it unsound.
pub fn made(house: &House, name: &str, kind: &str, api: &Path, source: Option<&str>) {
    let library = built(house, name, kind, api, source);
    let checked = house.run(&format!("plugins verify {library}"));
    assert!(checked.succeeded().out.contains("is a sound plugin"), "{}", checked.out);
}

/// Writes `numbers.csv`: the texts of `train.csv`, 2.5 for birds and −1 for all others.
///
/// # Panics
/// When it can't be written.
pub fn numbers(house: &House) {
    let table = String::from_utf8(house.read("train.csv")).unwrap();
    let rows = table.lines().skip(1).map(|l| l.rsplit_once(',').unwrap());
    let numbers: String =
        rows.map(|(text, label)| format!("{text},{}\n", if label == "bird" { 2.5 } else { -1.0 })).collect();
    house.write("numbers.csv", format!("text,number\n{numbers}"));
}
