//! Plugins that can't be loaded, and plugins that misbehave.

use graft_tests::fixture::{House, target_dir};

use super::training_refused;

/// A folder `plugins` with one library: `lib{file}.so`, copied from the built example `example`.
fn install(house: &House, example: &str) {
    std::fs::create_dir_all(house.path("plugins")).unwrap();
    let from = target_dir().join(format!("examples/lib{example}.so"));
    std::fs::copy(from, house.path(&format!("plugins/lib{example}.so"))).unwrap();
}

/// The library is refused where it is looked at and where it is asked for by name.
fn refused(house: &House, file: &str, words: &[&str]) {
    house.run(&format!("plugins verify plugins/lib{file}.so")).failed(words);
    let id = file.replace('_', "-");
    house.run(&House::training("out", &format!("--method {id} --plugin-dir plugins"))).refused(words);
    assert!(!house.path("out").exists());
}

#[test]
fn a_plugin_that_is_no_library() {
    let Some(house) = House::new() else { return };
    std::fs::create_dir(house.path("plugins")).unwrap();
    house.write("plugins/libmagic.so", "abracadabra");
    refused(&house, "magic", &["plugins/libmagic.so", "is not a shared library"]);
}

#[test]
fn a_plugin_that_lacks_the_symbol() {
    let Some(house) = House::new() else { return };
    install(&house, "no_header");
    refused(&house, "no_header", &["libno_header.so", "exports no plugin header", "export_plugin!"]);
}

#[test]
fn plugins_that_were_built_against_another_api() {
    let Some(house) = House::new() else { return };
    install(&house, "old_version");
    refused(
        &house,
        "old_version",
        &["built against plugin API 0.0", "this host has 0.1", "Rebuild the plugin"],
    );
    // What these say of themselves is of this version; their code is not.
    let layout = ["another layout of the plugin boundary", "Rebuild it", "0.1"];
    let version = ["built against plugin API 7.0", "this host has 0.1", "Rebuild the plugin"];
    for (example, words) in [("other_layout", layout), ("other_version_inside", version)] {
        install(&house, example);
        house.run(&format!("plugins verify plugins/lib{example}.so")).failed(&words);
    }
}

#[test]
fn a_plugin_that_panics_while_applying() {
    let Some(house) = House::new() else { return };
    let train = |mode: &str| {
        house.run(&House::training("out", &format!("--method misbehaving --set method.mode={mode}")))
    };
    train("panic").refused(&["plugin `misbehaving`, apply", "panicked", "I was told to panic"]);
    let site = "at site `encoder.layer.0.attention.self.query`";
    train("panic-at-site").refused(&["panicked", "no luck with this one", site]);
    train("wrong-shape").refused(&["plugin `misbehaving`, apply", "shape"]);
    assert!(!house.path("out").exists());
}

#[test]
fn a_plugin_that_panics_while_collating_building_or_judging() {
    let Some(house) = House::new() else { return };
    for (mode, words) in [
        ("panic-collating", ["collate", "is too much"]),
        ("panic-building", ["build", "unbuilt"]),
        ("panic-judging", ["metrics", "panicked"]),
        ("panic-preparing", ["prepare", "unprepared"]),
        ("panic-checking", ["too much for me", "panicked"]),
    ] {
        let line =
            House::training("out", &format!("--method lora --set objective.mode={mode} --eval-data dev.csv"));
        let line = line.replace("--objective classification", "--objective misbehaving-objective");
        house.run(&line).refused(&["plugin `misbehaving`", "panicked"]).refused(&words);
        assert!(!house.path("out").exists(), "{mode}");
    }
}

#[test]
fn a_method_that_declares_nothing_to_train_says_so() {
    let Some(house) = House::new() else { return };
    let line = House::training("out", "--method misbehaving --set method.mode=logs");
    let line = line
        .replace("--objective classification", "--objective misbehaving-objective --set objective.mode=fine");
    house.run(&line).refused(&["nothing to train"]);
    training_refused(&house, "--plugin-dir nowhere", &["nowhere", "cannot be read"]);
}
