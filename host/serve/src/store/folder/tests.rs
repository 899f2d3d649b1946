//! Replacing, removing, clearing up.

use super::*;

fn adapter(dir: &Path, content: &str) {
    fs::create_dir_all(dir).expect("a folder");
    fs::write(dir.join("adapter_config.json"), content).expect("a file");
}

fn content(dir: &Path) -> String {
    fs::read_to_string(dir.join("adapter_config.json")).expect("it is there")
}

fn digest(dir: &Path) -> String {
    digest_adapter(dir).expect("it is there")
}

/// Puts files with this content in the place of `a`; their digest.
fn put(root: &Path, text: &str) -> String {
    let aside = Aside::new(root).expect("a folder");
    let new = aside.path().join("new");
    adapter(&new, text);
    let digest = digest(&new);
    replace(root, "a", &new, &digest).expect("it is replaced");
    digest
}

fn names(root: &Path) -> Vec<String> {
    let listed = fs::read_dir(root).expect("it is there").flatten();
    let mut names: Vec<String> = listed.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn what_was_replaced_is_kept_once_and_goes_with_its_adapter() {
    let root = tempfile::tempdir().expect("a folder");
    let root = root.path();
    put(root, "1");
    assert_eq!(names(root), ["a"], "there was nothing to keep");
    fs::write(root.join("a/metrics.jsonl"), "kept").expect("a file");
    let second = put(root, "2");
    assert_eq!((content(&root.join("a")), content(&former(root, "a", &second))), ("2".into(), "1".into()));
    let third = put(root, "3");
    assert_eq!(formers(root, "a"), [former(root, "a", &third)]);
    assert_eq!(content(&former(root, "a", &third)), "2");
    assert!(root.join("a/metrics.jsonl").exists());
    assert!(remove(root, "a").expect("it can be") && names(root).is_empty());
    assert!(!remove(root, "a").expect("there is none"));
}

#[test]
fn a_process_that_dies_between_keeping_and_replacing_leaves_what_was() {
    let root = tempfile::tempdir().expect("a folder");
    let root = root.path();
    put(root, "1");
    let second = put(root, "2");
    graft_adapters::keep(&root.join("a"), &former(root, "a", "blake3:00")).expect("a copy");
    fs::create_dir_all(root.join(".graft-former/a/.graft-staging-dead")).expect("a folder");
    fs::create_dir_all(root.join(".graft-former/b/blake3")).expect("a folder");
    clear_leftovers(root).expect("it is there");
    assert_eq!(
        (content(&root.join("a")), formers(root, "a")),
        ("2".into(), vec![former(root, "a", &second)])
    );
    assert_eq!(names(&root.join(".graft-former")), ["a"]);
}

#[test]
fn leftovers_go_and_what_somebody_works_on_stays() {
    let root = tempfile::tempdir().expect("a folder");
    let root = root.path();
    for name in [".graft-upload-empty", ".graft-upload-dead/a", "a", ".hidden"] {
        fs::create_dir_all(root.join(name)).expect("a folder");
    }
    for name in [".graft-upload-dead.lock", ".graft-upload-gone.lock"] {
        fs::write(root.join(name), "").expect("a file");
    }
    let alive = Aside::new(root).expect("a folder");
    let cut_off = root.join("b/.graft-committed");
    adapter(&cut_off, "new");
    clear_leftovers(root).expect("it is there");
    let kept = alive.path().file_name().expect("a name").to_string_lossy().into_owned();
    assert_eq!(names(root), [kept.as_str(), &format!("{kept}.lock"), ".hidden", "a", "b"]);
    assert_eq!((content(&root.join("b")), names(&root.join("b")).len()), ("new".into(), 1));
}
