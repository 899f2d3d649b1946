//! Paths below the folder of the adapters, and no others; how they are shown.

use std::path::{Path, PathBuf};

use graft_adapters::FILES;

/// The folder that `path` names, relative to `root` or absolute, if it and the adapter's files in it lie below `root` once
/// every link is followed; `None` otherwise, and where there is no such folder: who asks is not told which.
pub(crate) fn inside(root: &Path, path: &str) -> Option<PathBuf> {
    let root = root.canonicalize().ok()?;
    let below = |p: &Path| p.canonicalize().ok().filter(|p| p.starts_with(&root) && *p != root);
    let dir = below(&root.join(path))?;
    // A file may be a link too.
    let stays = |name: &str| {
        let file = dir.join(name);
        file.symlink_metadata().is_err() || below(&file).is_some()
    };
    (dir.is_dir() && FILES.iter().all(|n| stays(n))).then_some(dir)
}

/// A message in which paths are relative to the folder of the adapters.
pub(crate) fn without(root: &Path, message: &str) -> String {
    let forms = [root.canonicalize().ok(), Some(root.to_owned())];
    forms
        .into_iter()
        .flatten()
        .fold(message.to_owned(), |m, root| m.replace(&format!("{}/", root.display()), ""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn only_what_lies_below_the_root_is_inside() {
        let temp = tempfile::tempdir().expect("a folder");
        let root = temp.path().join("root");
        for dir in ["root/a", "root/deep/b", "out"] {
            fs::create_dir_all(temp.path().join(dir)).expect("a folder");
        }
        let real = root.canonicalize().expect("it is there");
        assert_eq!(inside(&root, "a"), Some(real.join("a")));
        assert_eq!(inside(&root, "deep/../a/"), Some(real.join("a")));
        assert_eq!(inside(&root, &real.join("deep/b").display().to_string()), Some(real.join("deep/b")));
        for outside in ["../out", "..", ".", "", "a/../..", "/", "/etc", "nowhere"] {
            assert_eq!(inside(&root, outside), None, "{outside:?}");
        }
        assert_eq!(inside(&root, &temp.path().join("out").display().to_string()), None);
    }

    #[cfg(unix)]
    #[test]
    fn links_that_lead_out_are_not_followed() {
        use std::os::unix::fs::symlink;
        let temp = tempfile::tempdir().expect("a folder");
        let root = temp.path().join("root");
        fs::create_dir_all(root.join("a")).expect("a folder");
        fs::create_dir_all(temp.path().join("out")).expect("a folder");
        fs::write(temp.path().join("out/secret"), "x").expect("a file");
        symlink("../out", root.join("link")).expect("a link");
        assert_eq!(inside(&root, "link"), None);
        symlink("a", root.join("fine")).expect("a link");
        assert!(inside(&root, "fine").is_some());
        symlink("../../out/secret", root.join("a/adapter_config.json")).expect("a link");
        assert_eq!(inside(&root, "a"), None, "a file in it leads out");
    }
}
