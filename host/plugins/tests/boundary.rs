//! Loading plugins and calling them across the boundary.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use graft_plugins::api::{Code, Init, Row, Summary, json};
use graft_plugins::{Kind, Method, Objective, Plugin, Tried, Verified, find, read_manifest, verify};
use support::{Recorder, faulty, library};

fn misbehaving(mode: &str) -> Method {
    let plugin = Plugin::load(&library("graft_misbehaving")).unwrap();
    Method::new(&plugin, "misbehaving", &json!({ "mode": mode })).unwrap()
}

fn objective(mode: &str) -> Objective {
    let plugin = Plugin::load(&library("graft_misbehaving")).unwrap();
    Objective::new(&plugin, "misbehaving-objective", &json!({ "mode": mode })).unwrap()
}

#[test]
fn a_manifest_says_what_a_plugin_has() {
    let m = read_manifest(&library("graft_plugin_lora")).unwrap();
    assert_eq!((m.id.as_str(), m.methods.len(), m.objectives.len()), ("lora", 1, 0));
    assert_eq!(m.methods[0].config["properties"]["r"]["default"], 8);
    assert!(!m.methods[0].config["properties"]["alpha"]["description"].as_str().unwrap().is_empty());
}

#[test]
fn lora_declares_its_parameters_as_peft_names_them() {
    let plugin = Plugin::load(&library("graft_plugin_lora")).unwrap();
    let config = json!({ "r": 4, "lora_alpha": 2, "dropout": 0.1, "bias": "lora_only" });
    let lora = Method::new(&plugin, "lora", &config).unwrap();
    assert_eq!(lora.config()["use_rslora"], false);
    let mut host = Recorder::default();
    lora.apply(&mut host).unwrap();
    let keys: Vec<_> = host.params.iter().map(|p| (p.key.as_str(), p.shape.clone())).collect();
    let each = [("lora_A.weight", vec![4, 16]), ("lora_B.weight", vec![32, 4])];
    assert_eq!(keys, [each.clone(), each].concat());
    assert_eq!(host.params[0].init, Init::KaimingUniform(5f64.sqrt()));
    assert_eq!((host.params[0].paddable[0], host.params[1].paddable[0]), (0, 1));
    assert_eq!(host.params[0].site.as_deref(), Some("encoder.layer.0.attention.self.query"));
    assert_eq!(host.settings, [("scaling".to_owned(), 0.5)]);
    assert!(host.calls.contains(&"matched 2 left 1".to_owned()), "{:?}", host.calls);
    assert!(host.calls.iter().any(|c| c == "noise lora_dropout at encoder.layer.0.attention.self.value"));
    assert!(host.calls.iter().any(|c| c == "train query.bias"));
}

#[test]
fn a_config_that_is_refused_says_why() {
    let plugin = Plugin::load(&library("graft_plugin_lora")).unwrap();
    let refused = |config| Method::new(&plugin, "lora", &config).err().unwrap().to_string();
    let e = refused(json!({ "rank": 4, "alhpa": 1 }));
    assert!(e.contains("plugin `lora`, configure: there is no option `rank`"), "{e}");
    assert!(refused(json!({ "r": 0 })).contains("option `r`"));
    assert!(refused(json!({ "target_modules": 7 })).contains("option `target_modules`"));
    let e = Method::new(&plugin, "dora", &json!({})).err().unwrap();
    assert_eq!(e.code, Code::NOT_FOUND);
    let e = Objective::new(&plugin, "lora", &json!({})).err().unwrap();
    assert_eq!(e.code, Code::UNSUPPORTED);
}

#[test]
fn copies_of_a_plugin_live_side_by_side() {
    let dir = tempfile::tempdir().unwrap();
    let loaded: Vec<Plugin> = ["a.so", "b.so"]
        .iter()
        .map(|name| {
            let path = dir.path().join(name);
            std::fs::copy(library("graft_misbehaving"), &path).unwrap();
            Plugin::load(&path).unwrap()
        })
        .collect();
    let run = |plugin: &Plugin, mode: &str| {
        let method = Method::new(plugin, "misbehaving", &json!({ "mode": mode })).unwrap();
        method.apply(&mut Recorder::default())
    };
    loaded.iter().for_each(|p| run(p, "logs").unwrap());
    // Each copy has its own statics: what one keeps, the other does not have.
    run(&loaded[0], "keep").unwrap();
    assert!(run(&loaded[1], "use-kept").unwrap_err().message.contains("nothing was kept"));
    run(&loaded[0], "use-kept").unwrap();
}

#[test]
fn plugins_of_several_kinds_are_loaded_together() {
    for (name, id) in
        [("lora", "lora"), ("linear_probe", "linear-probe"), ("classification", "classification")]
    {
        let plugin = Plugin::load(&library(&format!("graft_plugin_{name}"))).unwrap();
        assert_eq!(plugin.manifest().id, id);
    }
}

#[test]
fn verifying_makes_an_instance_of_everything() {
    let Verified { held, trials } = verify(&library("graft_plugin_classification")).unwrap();
    assert_eq!((held.len(), trials.len()), (2 + 1 + 6, 1 + 6));
    assert!(held.iter().any(|c| c.what == "objective `classification` with its defaults"), "{held:?}");
    for (what, tried) in &trials {
        match tried {
            Tried::Written(trial) => assert_eq!(trial.adapted.params.len(), 2, "{what}"),
            // The tiny base has neither a pooler nor logits of its own.
            Tried::Refused(why) => {
                assert!(what.contains("the base") && why.contains("the base has no"), "{why}")
            }
        }
    }
    assert!(verify(&faulty("other_layout")).is_err());
}

#[test]
fn libraries_that_cannot_be_loaded_say_why() {
    let refused = |name: &str| {
        let e = Plugin::load(&faulty(name)).unwrap_err();
        (e.code, e.to_string())
    };
    let (code, text) = refused("no_manifest");
    assert!(code == Code::LOAD && text.contains("has no manifest"), "{text}");
    let (code, text) = refused("no_header");
    assert!(code == Code::LOAD && text.contains("exports no plugin header"), "{text}");
    let (code, text) = refused("old_version");
    assert!(
        code == Code::VERSION && text.contains("built against plugin API 0.0, this host has 0.1"),
        "{text}"
    );
    assert!(text.contains("Rebuild the plugin against graft-plugin-api 0.1"), "{text}");
    let (code, text) = refused("other_version_inside");
    assert!(code == Code::VERSION && text.contains("7.0.0") && text.contains("Rebuild"), "{text}");
    let (code, text) = refused("other_layout");
    assert!(code == Code::VERSION && text.contains("another layout") && text.contains("Rebuild"), "{text}");
    let (code, text) = refused("other_name_inside");
    assert!(code == Code::LOAD && text.contains("`somebody-else`") && text.contains("`myself`"), "{text}");
}

#[test]
fn a_panic_while_applying_is_an_error_and_the_instance_is_not_used_again() {
    let method = misbehaving("panic");
    let e = method.apply(&mut Recorder::default()).unwrap_err();
    assert_eq!((e.code, e.plugin.as_str(), e.operation.as_str()), (Code::PANIC, "misbehaving", "apply"));
    assert!(e.message.contains("I was told to panic"), "{e}");
    assert!(e.place.contains("misbehaving/src/lib.rs:"), "{e}");
    let e = method.apply(&mut Recorder::default()).unwrap_err();
    assert_eq!(e.code, Code::POISONED);
    assert!(e.message.contains("I was told to panic"), "{e}");
    misbehaving("logs").apply(&mut Recorder::default()).unwrap();
}

#[test]
fn a_panic_at_a_site_names_it() {
    let e = misbehaving("panic-at-site").apply(&mut Recorder::default()).unwrap_err();
    assert_eq!(e.site, "encoder.layer.0.attention.self.query");
    let e = misbehaving("panic-with-a-number").apply(&mut Recorder::default()).unwrap_err();
    assert_eq!(e.code, Code::PANIC);
}

#[test]
fn panics_of_an_objective_name_what_it_was_doing() {
    let rows = [Row::default(), Row::default()];
    let e = objective("panic-collating").collate(&rows, 0).unwrap_err();
    assert_eq!((e.code, e.operation.as_str()), (Code::PANIC, "collate"));
    assert!(e.message.contains("row 2 is too much") && e.entry == "misbehaving-objective", "{e}");
    assert_eq!(objective("panic-preparing").prepare(&Summary::default()).err().unwrap().operation, "prepare");
    assert_eq!(objective("panic-judging").metrics(Vec::new()).unwrap_err().operation, "metrics");
    assert_eq!(objective("panic-answering").decode(&[], Vec::new()).unwrap_err().operation, "decode");
    let plugin = Plugin::load(&library("graft_misbehaving")).unwrap();
    let config = json!({ "mode": "panic-checking" });
    let e = Objective::new(&plugin, "misbehaving-objective", &config).err().unwrap();
    assert_eq!((e.code, e.operation.as_str()), (Code::PANIC, "configure"));
}

#[test]
fn an_error_keeps_its_words() {
    let e = misbehaving("error").apply(&mut Recorder::default()).unwrap_err();
    assert!(e.place.starts_with("tests/misbehaving/src/lib.rs:"), "{}", e.place);
    assert_eq!(e.to_string(), format!("plugin `misbehaving`, apply: I do not want to ({})", e.place));
}

#[test]
fn tensors_whose_bytes_are_missing_are_refused() {
    let e = objective("short-tensor").collate(&[Row::default()], 0).unwrap_err();
    assert_eq!(e.code, Code::MALFORMED);
    assert!(e.message.contains("takes 16 bytes, it has 8"), "{e}");
}

#[test]
fn requests_that_the_host_does_not_know_are_errors() {
    for (mode, code) in [("unknown-callback", Code::UNSUPPORTED), ("too-many-random-numbers", Code::LIMIT)] {
        assert_eq!(misbehaving(mode).apply(&mut Recorder::default()).unwrap_err().code, code, "{mode}");
    }
    let e = misbehaving("garbled-request").apply(&mut Recorder::default()).unwrap_err();
    assert_eq!(e.code, Code::MALFORMED);
}

#[test]
fn a_panic_of_the_host_reaches_the_plugin_as_an_error() {
    let plugin = Plugin::load(&library("graft_plugin_lora")).unwrap();
    let lora = Method::new(&plugin, "lora", &json!({ "dropout": 0.1 })).unwrap();
    let mut whole = Recorder::default();
    lora.apply(&mut whole).unwrap();
    assert!(whole.calls.len() > 20);
    for n in 1..=whole.calls.len() {
        let e = lora.apply(&mut Recorder { panic_at: Some(n), ..Recorder::default() }).unwrap_err();
        assert_eq!(e.code, Code::PANIC, "callback {n}");
        assert!(e.message.contains("the host panicked in") && e.place.contains("support/mod.rs:"), "{e}");
        // The plugin did not panic, so its instance goes on.
        lora.apply(&mut Recorder::default()).unwrap();
    }
}

#[test]
fn folders_are_searched_in_order_and_the_first_plugin_wins() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::copy(library("graft_plugin_lora"), b.path().join("second.so")).unwrap();
    std::fs::copy(faulty("no_manifest"), a.path().join("foreign.so")).unwrap();
    let dirs = [a.path().to_owned(), b.path().to_owned()];
    let (path, _) = find::find(&dirs, Kind::Method, "lora").unwrap();
    assert_eq!(path, b.path().join("second.so"));
    std::fs::copy(library("graft_plugin_lora"), a.path().join("first.so")).unwrap();
    let (path, _) = find::find(&dirs, Kind::Method, "lora").unwrap();
    assert_eq!(path, a.path().join("first.so"));
    let listed: Vec<_> = find::list(&dirs).unwrap().into_iter().map(|f| f.path).collect();
    assert!(!listed.contains(&a.path().join("foreign.so")));
    let e = find::find(&dirs, Kind::Method, "lorra").unwrap_err();
    assert!(
        e.help.contains("Did you mean `lora`?") && e.help.contains(&b.path().display().to_string()),
        "{e}"
    );
    let e = find::find(&[a.path().join("absent")], Kind::Method, "lora").unwrap_err();
    assert!(e.to_string().contains("cannot be read"), "{e}");
}

#[test]
fn a_plugin_of_another_version_is_found_by_its_file_name_and_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(faulty("old_version"), dir.path().join("libold_method.so")).unwrap();
    let e = find::find(&[dir.path().to_owned()], Kind::Method, "old-method").unwrap_err();
    assert_eq!(e.code, Code::VERSION);
}
