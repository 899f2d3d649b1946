//! What a user sees of `graft model`, `inspect`, `plugins` and `doctor`, as snapshots.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use insta::assert_snapshot;
use serde_json::json;
use support::{House, library, shared};

/// Replaces versions, times and what depends on the processor and its memory.
fn filters() -> insta::internals::SettingsBindDropGuard {
    let mut settings = insta::Settings::clone_current();
    settings.add_filter(env!("CARGO_PKG_VERSION").replace('.', r"\.").as_str(), "X.Y.Z");
    settings.add_filter(r"\.rs:\d+", ".rs:[LINE]");
    settings.add_filter(r"within \d\.\de-\d+", "within [DIFFERENCE]");
    settings.add_filter(r"1\.31\.\d+", "[ORT VERSION]");
    settings.add_filter(r"\d+\.\d s\n", "[TIME]\n");
    settings.add_filter(r"(?m)^(threads|processor|memory|peak memory)(  +).+$", "$1$2[MACHINE]");
    settings.bind_to_scope()
}

#[test]
fn help_reads_like_a_manual() {
    let _filters = filters();
    let house = House::empty();
    let commands = [
        "model --help",
        "model import --help",
        "inspect --help",
        "plugins --help",
        "plugins list --help",
        "plugins info --help",
        "plugins verify --help",
        "doctor --help",
    ];
    for command in commands {
        let ended = house.run(command);
        assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""));
        assert_snapshot!(command.replace([' ', '-'], "_"), ended.out);
    }
}

#[test]
fn plugins_list_shows_what_is_installed_and_where_it_was_searched() {
    let _filters = filters();
    let house = House::with_plugins();
    assert_snapshot!(house.run("plugins list").all());
}

#[test]
fn plugins_list_tells_broken_and_hidden_libraries_apart() {
    let _filters = filters();
    let house = House::with_plugins();
    let more = house.path().join("more");
    std::fs::create_dir(&more).unwrap();
    std::fs::write(more.join("libbroken.so"), b"not a library").unwrap();
    let lora = "libgraft_plugin_lora.so";
    std::fs::copy(house.path().join("bin/plugins").join(lora), more.join("libcopy.so")).unwrap();
    assert_snapshot!(house.run("plugins list --plugin-dir more").all());
    let json = house.run("plugins list --plugin-dir more --json").json();
    let plugins = json["plugins"].as_array().unwrap();
    assert_eq!(plugins.len(), 5);
    assert!(plugins[0]["error"].as_str().unwrap().contains("is not a shared library"));
    assert_eq!(plugins[1]["methods"][0]["id"], "lora");
    assert_eq!(json["folders"][0], "more");
}

#[test]
fn without_plugins_the_list_says_so() {
    assert_snapshot!(House::empty().run("plugins list").all());
}

#[test]
fn plugins_info_explains_every_setting() {
    let _filters = filters();
    let house = House::with_plugins();
    for name in ["lora", "linear-probe", "classification"] {
        assert_snapshot!(format!("plugins_info_{name}"), house.run(&format!("plugins info {name}")).all());
    }
    let json = house.run("plugins info lora --json").json();
    assert_eq!(json["methods"][0]["config"]["properties"]["r"]["default"], 8);
}

#[test]
fn a_name_that_no_plugin_has_is_answered_with_the_nearest() {
    let house = House::with_plugins();
    assert_snapshot!(house.run("plugins info lorra").all());
}

#[test]
fn plugins_verify_prints_each_check() {
    let _filters = filters();
    let house = House::with_plugins();
    let line = "plugins verify bin/plugins/libgraft_plugin_lora.so";
    let nowhere = [("ORT_DYLIB_PATH", "nowhere/libonnxruntime.so")];
    assert_snapshot!("plugins_verify_without_a_library", house.run_with(line, &nowhere).all());
    let Some(library) = library() else { return };
    let env = [("ORT_DYLIB_PATH", library.as_str())];
    assert_snapshot!(house.run_with(line, &env).all());
    let json = house.run_with(&format!("{line} --json"), &env).json();
    assert_eq!((&json["sound"], &json["error"]), (&json!(true), &json!(null)));
}

#[test]
fn plugins_verify_fails_where_something_does_not_hold() {
    let house = House::empty();
    std::fs::write(house.path().join("lib.so"), b"not a library").unwrap();
    let ended = house.run("plugins verify lib.so --json");
    assert_eq!((ended.code, ended.json()["sound"].as_bool()), (Some(1), Some(false)));
    assert_snapshot!(house.run("plugins verify lib.so").all());
}

/// A house with a base that the old exporter wrote, and the library.
fn base() -> Option<(House, String)> {
    let (shared, library) = (shared()?, library()?);
    let house = House::with_plugins();
    let file = shared.join("conformance/adapters/bert/base.ts.onnx");
    std::fs::copy(file, house.path().join("base.onnx")).unwrap();
    Some((house, library))
}

#[test]
fn inspect_shows_sites_operators_and_what_methods_would_train() {
    let Some((house, library)) = base() else { return };
    let _filters = filters();
    let env = [("ORT_DYLIB_PATH", library.as_str())];
    assert_snapshot!("inspect", house.run_with("inspect base.onnx", &env).all());
    assert_snapshot!("inspect_all", house.run_with("inspect base.onnx --all", &env).all());
    let json = house.run_with("inspect base.onnx --json", &env).json();
    // 2 layers, query and value, rank 8, 32 wide: 2 · 2 · 8 · (32 + 32).
    let lora = json["methods"].as_array().unwrap().iter().find(|m| m["method"] == "lora").unwrap();
    assert_eq!((&lora["parameters"], &lora["sites"]), (&json!(2048), &json!(4)));
    assert_eq!((&json["parameters"], &json["gradients"]["error"]), (&json!(23424), &json!(null)));
    let sites = json["sites"].as_array().unwrap();
    assert_eq!(sites.len(), 23);
    let heads = json!({"heads": 4, "kv_heads": 4, "head_dim": 8, "value_dim": 8, "biased": true});
    assert_eq!(sites[21]["attention"], heads);
    assert_eq!(json["hidden"]["shape"], json!(["batch", "sequence", "32"]));
}

#[test]
fn inspect_refuses_hidden_states_that_are_not_there() {
    let Some((house, library)) = base() else { return };
    let ended = house.run_with("inspect base.onnx --hidden nothing", &[("ORT_DYLIB_PATH", library.as_str())]);
    assert_eq!((ended.code, ended.out.as_str()), (Some(1), ""));
    assert!(ended.err.contains("--hidden nothing") && ended.err.contains("Candidates"), "{}", ended.err);
}

#[test]
fn inspect_names_what_keeps_a_file_from_being_a_base() {
    let Some((house, library)) = base() else { return };
    std::fs::write(house.path().join("broken.onnx"), b"\x08\x07 and then nothing of use").unwrap();
    let env = [("ORT_DYLIB_PATH", library.as_str())];
    for (name, said) in [("broken.onnx", "broken.onnx"), ("absent", "no base here"), ("bin", "no base here")]
    {
        let ended = house.run_with(&format!("inspect {name} --json"), &env);
        assert_eq!((ended.code, ended.out.as_str()), (Some(1), ""));
        assert!(ended.err.starts_with("error: ") && ended.err.contains(said), "{}", ended.err);
    }
}

#[test]
fn model_import_makes_a_base_that_inspect_reads() {
    let Some((house, library)) = base() else { return };
    let Some(shared) = shared() else { return };
    let checkpoint = shared.join("conformance/adapters/bert/base");
    let here = house.path().join("checkpoint");
    std::fs::create_dir(&here).unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(checkpoint.join(file), here.join(file)).unwrap();
    }
    let _filters = filters();
    assert_snapshot!(house.run("model import checkpoint made").all());
    let again = house.run("model import checkpoint made");
    assert_eq!(again.code, Some(1));
    assert!(again.err.contains("made exists already"), "{}", again.err);
    let json = house.run("model import checkpoint other --json").json();
    let env = [("ORT_DYLIB_PATH", library.as_str())];
    let seen = house.run_with("inspect made --json", &env).json();
    assert_eq!(seen["parameters"], json["parameters"]);
    assert_eq!(seen["architecture"], "bert");
}

#[test]
fn doctor_without_a_library_fails_and_shows_the_rest() {
    let _filters = filters();
    let house = House::with_plugins();
    let env = [("ORT_DYLIB_PATH", "nowhere/libonnxruntime.so"), ("GRAFT_CACHE", "cache")];
    assert_snapshot!(house.run_with("doctor", &env).all());
    let ended = house.run_with("doctor --json", &env);
    let json = ended.json();
    assert_eq!(ended.code, Some(1));
    assert!(json["library"]["error"].as_str().unwrap().contains("nowhere/libonnxruntime.so"));
    assert_eq!((&json["providers"], json["plugins"].as_array().unwrap().len()), (&json!([]), 3));
}

#[test]
fn doctor_tries_each_provider() {
    let Some(library) = library() else { return };
    let ended = House::empty().run_with("doctor --json", &[("ORT_DYLIB_PATH", library.as_str())]);
    let json = ended.json();
    assert_eq!(
        (ended.code, &json["providers"][0]),
        (Some(0), &json!({"provider": "cpu", "starts": true, "error": null}))
    );
    assert_eq!(json["library"]["error"], json!(null));
    assert!(json["peak_rss_mb"].as_f64().unwrap() > 0.0 && json["threads"].as_u64().unwrap() >= 1);
}
