//! `graft plugins verify` on the plugins of this repository, and on ones whose gradients are wrong or stopped.
#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::path::Path;

use graft_tests::fixture::{House, target_dir};
use serde_json::Value;

/// The line of `file`, from the workspace, that holds `text`.
fn line_of(file: &str, text: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
    let source = std::fs::read_to_string(path).unwrap();
    let number = source.lines().position(|l| l.contains(text)).unwrap() + 1;
    format!("{file}:{number}")
}

fn example(house: &House, name: &str) -> String {
    std::fs::create_dir_all(house.path("plugins")).unwrap();
    let file = format!("plugins/lib{name}.so");
    std::fs::copy(target_dir().join(format!("examples/lib{name}.so")), house.path(&file)).unwrap();
    file
}

#[test]
fn every_plugin_of_this_repository_holds_with_every_example() {
    let Some(house) = House::new() else { return };
    let folders = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins")).unwrap();
    let mut seen = 0;
    for folder in folders {
        let folder = folder.unwrap().path();
        let Ok(manifest) = std::fs::read(folder.join("plugin.json")) else { continue };
        let manifest: Value = serde_json::from_slice(&manifest).unwrap();
        let name = folder.file_name().unwrap().to_str().unwrap().replace('-', "_");
        let library = target_dir().join(format!("libgraft_plugin_{name}.so"));
        let json = house.run(&format!("plugins verify --json {}", library.display())).json();
        assert_eq!((&json["sound"], &json["not_compared"]), (&Value::Bool(true), &Value::Null), "{json}");
        let rows = json["gradients"].as_array().unwrap();
        let items = ["methods", "objectives"].iter().flat_map(|k| manifest[k].as_array().unwrap());
        let wanted: usize = items.map(|i| 1 + i["examples"].as_array().map_or(0, Vec::len)).sum();
        assert_eq!(rows.len(), wanted, "{json}");
        for row in rows {
            let what = row["what"].as_str().unwrap();
            // The tiny base has neither logits of its own nor a pooler.
            if let Some(why) = row["refused"].as_str() {
                assert!(why.contains("logits") || why.contains("pooled"), "{what}: {why}");
                continue;
            }
            let none = what.contains("linear-probe");
            assert_eq!(row["compared"].as_u64().unwrap() == 0, none, "{row}");
            // What a sound gradient is off by here: curves and rounding.
            assert!(row["largest_difference"].as_f64().unwrap() < 2e-2, "{row}");
            assert_eq!(row["stopped"].as_array().unwrap().is_empty(), !what.contains("DoRA"), "{row}");
        }
        seen += 1;
    }
    assert!(seen >= 12, "{seen} plugins");
}

#[test]
fn a_gradient_that_is_wrong_names_the_operator_and_its_line() {
    let Some(house) = House::new() else { return };
    let file = example(&house, "jumping");
    let line = line_of("tests/misbehaving/examples/jumping.rs", "\"Round\"");
    let ended = house.run(&format!("plugins verify {file}"));
    let words =
        ["plugin `jumping`, gradients", "differences give", "at the operator Round", "attention.self.query"];
    ended.failed(&words).failed(&[&format!("({line})")]);
    assert!(ended.out.contains("wrong, see below") && !ended.out.contains("sound"), "{}", ended.out);
    let json = house.run(&format!("plugins verify {file} --json"));
    assert!(json.out.contains("\"sound\":false") && json.out.contains(&line), "{}", json.out);
}

#[test]
fn a_parameter_without_a_gradient_names_its_line() {
    let Some(house) = House::new() else { return };
    let file = example(&house, "flat");
    let line = line_of("tests/misbehaving/examples/flat.rs", "ParamSpec::new");
    house.run(&format!("plugins verify {file}")).refused(&["no gradients can be derived", "gate", &line]);
}

#[test]
fn a_gradient_that_is_stopped_on_purpose_is_told_and_holds() {
    let Some(house) = House::new() else { return };
    let file = example(&house, "stopping");
    let line = line_of("tests/misbehaving/examples/stopping.rs", "g.stop_gradient");
    let ended = house.run(&format!("plugins verify {file}"));
    let words = format!("stops 4 at {line}, held fixed");
    assert!(ended.succeeded().out.contains(&words), "{}", ended.out);
}

#[test]
fn a_plugin_that_needs_what_this_host_lacks_is_refused_in_words() {
    let Some(house) = House::new() else { return };
    let file = example(&house, "newer");
    let words = ["plugin `newer 3.1.0` needs `graft.telepathy/1`", "which graft", "Use a newer graft"];
    house.run(&format!("plugins verify {file}")).refused(&words);
    house.run("plugins list --plugin-dir plugins").succeeded();
}

#[test]
fn what_the_host_refuses_names_the_line_of_the_plugin() {
    let Some(house) = House::new() else { return };
    for (mode, text) in [
        ("types-that-do-not-fit", "\"types-that-do-not-fit\" =>"),
        ("unknown-operator", "\"unknown-operator\" =>"),
        ("error", "\"error\" =>"),
        ("two-settings", "\"two-settings\" =>"),
    ] {
        let line = line_of("tests/misbehaving/src/lib.rs", text);
        let train = format!("--method misbehaving --set method.mode={mode}");
        house
            .run(&House::training("out", &train))
            .refused(&["plugin `misbehaving`, apply", &format!("({line})")]);
    }
}
