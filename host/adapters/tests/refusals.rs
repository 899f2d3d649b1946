//! Every way in which an adapter directory can be wrong is refused by name, and the message says where.
#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod common;

use std::fs;
use std::path::Path;

use common::{adapter, numbers};
use graft_adapters::{Error, load, read_tensors, save, write_tensors};
use graft_graph::Tensor;
use serde_json::{Value, json};

const MODEL: &str = "adapter_model.safetensors";
const CONFIG: &str = "adapter_config.json";
const QUERY: &str = "base_model.model.encoder.layer.0.attention.self.query";

/// A sound directory of Graft's (mean pooling), to be broken by a test.
fn sound() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    save(dir.path(), &adapter("mean")).unwrap();
    load(dir.path()).unwrap();
    dir
}

/// A sound directory without Graft's file, as PEFT leaves it.
fn plain() -> tempfile::TempDir {
    let dir = sound();
    for name in ["graft.json", "graft_head.safetensors"] {
        fs::remove_file(dir.path().join(name)).unwrap();
    }
    load(dir.path()).unwrap();
    dir
}

fn edit(dir: &Path, change: impl FnOnce(&mut indexmap::IndexMap<String, Tensor>)) {
    let path = dir.join(MODEL);
    let mut tensors = read_tensors(&path).unwrap();
    change(&mut tensors);
    write_tensors(&path, tensors.iter().map(|(k, t)| (k.as_str(), t))).unwrap();
}

fn edit_json(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    change(&mut value);
    fs::write(path, serde_json::to_vec(&value).unwrap()).unwrap();
}

/// The error, after a look whether its message names the file and what is wrong.
fn refusal(dir: &Path, words: &[&str]) -> Error {
    let e = load(dir).unwrap_err();
    let text = e.to_string();
    words.iter().for_each(|w| assert!(text.contains(w), "`{w}` is not in: {text}"));
    e
}

#[test]
fn a_missing_tensor() {
    let dir = plain();
    edit(dir.path(), |t| drop(t.shift_remove(&format!("{QUERY}.lora_B.weight"))));
    let e = refusal(dir.path(), &[MODEL, "query.lora_B.weight", "partner"]);
    assert!(matches!(e, Error::MissingTensor { .. }));
    edit(dir.path(), |t| t.clear());
    assert!(matches!(refusal(dir.path(), &["no LoRA matrix at all"]), Error::MissingTensor { .. }));
}

#[test]
fn magnitudes_that_are_missing_or_misshapen() {
    let dir = plain();
    edit_json(&dir.path().join(CONFIG), |c| c["use_dora"] = json!(true));
    let e = refusal(dir.path(), &[MODEL, "lora_magnitude_vector", "partner"]);
    assert!(matches!(e, Error::MissingTensor { .. }));
    for (shape, fits) in [([8].as_slice(), true), (&[7], false), (&[1, 8], false), (&[], false)] {
        edit(dir.path(), |t| {
            let modules: Vec<String> =
                t.keys().filter_map(|k| Some(k.strip_suffix(".lora_A.weight")?.to_string())).collect();
            for module in modules {
                t.insert(format!("{module}.lora_magnitude_vector"), numbers(shape));
            }
        });
        if fits {
            assert!(load(dir.path()).is_ok());
        } else {
            let e = refusal(dir.path(), &[MODEL, "lora_magnitude_vector", "[8]"]);
            assert!(matches!(e, Error::Shape { .. }));
        }
    }
}

#[test]
fn an_extra_tensor() {
    for (key, why) in [
        ("base_model.model.encoder.layer.0.attention.self.query.weight", "neither a LoRA matrix"),
        ("encoder.layer.0.attention.self.query.lora_A.weight", "begin with `base_model.model.`"),
        ("base_model.model.encoder.layer.0.attention.self.key.bias", "this setting of `bias`"),
        ("base_model.model.encoder.layer.0.attention.self.query.lora_magnitude_vector", "DoRA"),
        ("base_model.model.encoder.layer.0.attention.self.query.lora_A.default.weight", "the same parameter"),
    ] {
        let dir = plain();
        edit(dir.path(), |t| drop(t.insert(key.to_string(), numbers(&[2, 8]))));
        assert!(
            matches!(
                refusal(dir.path(), &[MODEL, &key.replace(".default", ""), why]),
                Error::ExtraTensor { .. }
            ),
            "{key}"
        );
    }
}

#[test]
fn a_second_module_that_was_trained_whole() {
    let dir = plain();
    edit_json(&dir.path().join(CONFIG), |c| c["modules_to_save"] = json!(["classifier", "embed_tokens"]));
    edit(dir.path(), |t| {
        for module in ["classifier", "embed_tokens"] {
            t.insert(format!("base_model.model.{module}.weight"), numbers(&[3, 8]));
        }
    });
    assert!(matches!(refusal(dir.path(), &["embed_tokens", "second module"]), Error::ExtraTensor { .. }));
}

#[test]
fn a_misshapen_tensor() {
    let good_b = [8usize, 2];
    for (name, shape, words) in [
        ("lora_A", vec![3, 8], "[r = 2, in]"),
        ("lora_A", vec![8, 2], "[r = 2, in]"),
        ("lora_A", vec![2, 8, 0], "[r = 2, in]"),
        ("lora_A", vec![2, 0], "[r = 2, in]"),
        ("lora_B", vec![8], "[out, r = 2]"),
    ] {
        let dir = plain();
        edit(dir.path(), |t| {
            t.insert(format!("{QUERY}.lora_B.weight"), numbers(&good_b));
            t.insert(format!("{QUERY}.{name}.weight"), numbers(&shape));
        });
        assert!(matches!(refusal(dir.path(), &[MODEL, name, words]), Error::Shape { .. }));
    }
}

#[test]
fn a_bias_that_does_not_fit_its_module() {
    for (key, shape, words) in [
        (format!("{QUERY}.base_layer.bias"), vec![7], "[8], the width of lora_B"),
        ("base_model.model.encoder.layer.0.output.LayerNorm.bias".into(), vec![8, 1], "[out]"),
    ] {
        let dir = plain();
        edit_json(&dir.path().join(CONFIG), |c| c["bias"] = json!("all"));
        edit(dir.path(), |t| drop(t.insert(key.clone(), numbers(&shape))));
        assert!(matches!(refusal(dir.path(), &[&key, words]), Error::Shape { .. }));
    }
}

#[test]
fn a_head_that_does_not_fit_its_labels() {
    let dir = tempfile::tempdir().unwrap();
    let mut a = adapter("mean");
    a.graft.as_mut().unwrap().objective.labels.pop();
    save(dir.path(), &a).unwrap();
    let e = refusal(dir.path(), &["graft_head.safetensors", "weight", "2 labels"]);
    assert!(matches!(e, Error::Shape { .. }));
}

#[test]
fn a_tensor_that_is_not_finite_or_no_float() {
    let dir = plain();
    let key = format!("{QUERY}.lora_A.weight");
    let mut values = [0.5f32; 16];
    values[3] = f32::NAN;
    edit(dir.path(), |t| drop(t.insert(key.clone(), Tensor::new([2, 8], &values).unwrap())));
    let e = refusal(dir.path(), &[MODEL, &key, "NaN at element 3"]);
    assert!(matches!(e, Error::NonFinite { index: 3, .. }));
    edit(dir.path(), |t| drop(t.insert(key.clone(), Tensor::new([2, 8], &[1i32; 16]).unwrap())));
    assert!(matches!(refusal(dir.path(), &[&key, "i32"]), Error::NotFloat { .. }));
}

#[test]
fn files_of_two_adapters_mixed() {
    for name in [MODEL, CONFIG, "graft_head.safetensors"] {
        let (dir, other) = (sound(), tempfile::tempdir().unwrap());
        let mut a = adapter("mean");
        let graft_adapters::PeftConfig::Lora(c) = a.peft.as_mut().unwrap() else { panic!() };
        c.lora_alpha = 5.0;
        a.parameters.values_mut().for_each(|t| *t = Tensor::new(t.shape(), &[1f32; 16]).unwrap());
        a.head.as_mut().unwrap().tensors.insert("bias".into(), numbers(&[3]).reshape([3]).unwrap());
        a.head.as_mut().unwrap().tensors.insert("weight".into(), Tensor::new([3, 8], &[2f32; 24]).unwrap());
        save(other.path(), &a).unwrap();
        fs::copy(other.path().join(name), dir.path().join(name)).unwrap();
        assert!(matches!(refusal(dir.path(), &[name, "mixes files"]), Error::FileDigest { .. }));
    }
}

#[test]
fn a_file_that_is_missing() {
    for name in [MODEL, CONFIG, "graft_head.safetensors"] {
        let dir = sound();
        fs::remove_file(dir.path().join(name)).unwrap();
        assert!(matches!(refusal(dir.path(), &[name]), Error::MissingFile { .. }), "{name}");
    }
    let dir = plain();
    fs::rename(dir.path().join(MODEL), dir.path().join("adapter_model.bin")).unwrap();
    assert!(matches!(refusal(dir.path(), &["pickled"]), Error::Pickled { .. }));
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(refusal(empty.path(), &["no adapter"]), Error::NotAnAdapter { .. }));
}

#[test]
fn a_manifest_that_points_outside() {
    for name in ["../../etc/passwd", "/etc/passwd", "notes.txt", "graft.json"] {
        let dir = sound();
        edit_json(&dir.path().join("graft.json"), |g| g["files"][name] = json!("blake3:00"));
        assert!(matches!(refusal(dir.path(), &[name]), Error::ManifestName { .. }));
    }
}

#[test]
fn a_newer_format() {
    let dir = sound();
    // Nothing else of a newer file needs to be as this version knows it.
    fs::write(dir.path().join("graft.json"), r#"{"format": 2, "method": 7}"#).unwrap();
    let e = refusal(dir.path(), &["graft.json", "version 2", "update graft"]);
    assert!(matches!(e, Error::FormatVersion { found: 2, known: 1, .. }));
}

#[test]
fn settings_that_would_change_the_result() {
    for (name, value) in [
        ("rank_pattern", json!({"(?=q)uery": 4})),
        ("alpha_pattern", json!({"query": "four"})),
        ("lora_bias", json!(true)),
        ("init_lora_weights", json!("pissa_niter_4")),
        ("layer_replication", json!([[0, 2]])),
        ("trainable_token_indices", json!([1])),
        ("bias", json!("some")),
        ("a_setting_of_tomorrow", json!(3)),
    ] {
        let dir = plain();
        edit_json(&dir.path().join(CONFIG), |c| c[name] = value);
        assert!(matches!(refusal(dir.path(), &[CONFIG, name]), Error::Unsupported { .. }), "{name}");
    }
    for (name, value) in [
        ("use_dora", Value::Null),
        ("rank_pattern", Value::Null),
        ("init_lora_weights", json!("gaussian")),
        ("a_setting_of_tomorrow", json!(false)),
        ("layers_to_transform", json!([0, 1])),
        ("alpha_pattern", json!({"query": 4})),
        ("lora_alpha", json!(4.5)),
    ] {
        let dir = plain();
        edit_json(&dir.path().join(CONFIG), |c| c[name] = value);
        assert!(load(dir.path()).is_ok(), "{name}");
    }
    for (name, value) in [("r", json!(0)), ("lora_dropout", json!(1.5))] {
        let dir = plain();
        edit_json(&dir.path().join(CONFIG), |c| c[name] = value);
        assert!(matches!(refusal(dir.path(), &[CONFIG, name]), Error::Setting { .. }), "{name}");
    }
}

/// A directory of PEFT's with these settings and tensors of one module.
fn of_peft(settings: Value, tensors: &[(&str, &[usize])]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(CONFIG), settings.to_string()).unwrap();
    let named: Vec<(String, Tensor)> = tensors.iter().map(|(n, s)| ((*n).to_string(), numbers(s))).collect();
    write_tensors(&dir.path().join(MODEL), named.iter().map(|(n, t)| (n.as_str(), t))).unwrap();
    dir
}

#[test]
fn scales_and_projections_that_do_not_fit() {
    const SOUND: [(&str, &[usize]); 4] = [
        ("base_model.model.a.query.vera_lambda_d", &[4]),
        ("base_model.model.a.query.vera_lambda_b", &[6]),
        ("base_model.vera_A", &[4, 8]),
        ("base_model.vera_B", &[6, 4]),
    ];
    let settings = json!({"peft_type": "VERA", "r": 4, "target_modules": ["query"]});
    load(of_peft(settings.clone(), &SOUND).path()).unwrap();
    for (place, words) in [
        (0, ["vera_lambda_d", "partner"]),
        (1, ["vera_lambda_b", "partner"]),
        (2, ["base_model.vera_A", "save_projection"]),
        (3, ["base_model.vera_B", "save_projection"]),
    ] {
        let left: Vec<_> = (0..4).filter(|i| *i != place).map(|i| SOUND[i]).collect();
        let e = refusal(of_peft(settings.clone(), &left).path(), &words);
        assert!(matches!(e, Error::MissingTensor { .. }));
        let mut changed = SOUND;
        changed[place].1 = &[5, 4, 1];
        let e = refusal(of_peft(settings.clone(), &changed).path(), &[SOUND[place].0]);
        assert!(matches!(e, Error::Shape { .. }));
    }
    let mut drawn = settings.clone();
    drawn["save_projection"] = json!(false);
    load(of_peft(drawn, &SOUND[..2]).path()).unwrap();
    let bias = [&SOUND[..], &[("base_model.model.a.query.base_layer.bias", &[6])]].concat();
    refusal(of_peft(settings, &bias).path(), &["bias"]);
}

#[test]
fn factors_that_do_not_fit() {
    const SOUND: [(&str, &[usize]); 4] = [
        ("base_model.model.a.query.hada_w1_a", &[6, 2]),
        ("base_model.model.a.query.hada_w1_b", &[2, 8]),
        ("base_model.model.a.query.hada_w2_a", &[6, 2]),
        ("base_model.model.a.query.hada_w2_b", &[2, 8]),
    ];
    let settings = json!({"peft_type": "LOHA", "r": 3, "alpha": 8, "rank_pattern": {"query": 2}});
    load(of_peft(settings.clone(), &SOUND).path()).unwrap();
    for place in 0..4 {
        let left: Vec<_> = (0..4).filter(|i| *i != place).map(|i| SOUND[i]).collect();
        let e = refusal(of_peft(settings.clone(), &left).path(), &[SOUND[place].0, "partner"]);
        assert!(matches!(e, Error::MissingTensor { .. }));
        let mut changed = SOUND;
        changed[place].1 = &[3, 3];
        assert!(matches!(
            refusal(of_peft(settings.clone(), &changed).path(), &["hada_"]),
            Error::Shape { .. }
        ));
    }
    let cores: [(&str, &[usize]); 6] = [
        ("base_model.model.a.conv.hada_t1", &[3, 3, 5, 5]),
        ("base_model.model.a.conv.hada_t2", &[3, 3, 5, 5]),
        ("base_model.model.a.conv.hada_w1_a", &[3, 6]),
        ("base_model.model.a.conv.hada_w1_b", &[3, 8]),
        ("base_model.model.a.conv.hada_w2_a", &[3, 6]),
        ("base_model.model.a.conv.hada_w2_b", &[3, 8]),
    ];
    load(of_peft(settings.clone(), &cores).path()).unwrap();
    refusal(of_peft(settings, &cores[1..]).path(), &["hada_t1", "partner"]);
}

#[test]
fn other_kinds_of_adapters_by_name() {
    let dir = plain();
    for kind in ["LOKR", "OFT", "ADALORA"] {
        edit_json(&dir.path().join(CONFIG), |c| c["peft_type"] = json!(kind));
        assert!(matches!(refusal(dir.path(), &[kind, "not supported yet"]), Error::PeftType { .. }));
    }
    edit_json(&dir.path().join(CONFIG), |c| c["peft_type"] = json!("NEXT_YEAR"));
    assert!(matches!(refusal(dir.path(), &["NEXT_YEAR"]), Error::UnknownPeftType { .. }));
    edit_json(&dir.path().join(CONFIG), |c| *c = json!({"r": 2}));
    assert!(matches!(refusal(dir.path(), &["peft_type"]), Error::Json { .. }));
}

#[test]
fn json_that_is_deep_large_or_none() {
    let dir = plain();
    let config = dir.path().join(CONFIG);
    for text in
        ["[".repeat(1 << 20), format!("{{\"a\":{}", "{\"a\":".repeat(100_000)), "{".into(), String::new()]
    {
        fs::write(&config, text).unwrap();
        assert!(matches!(refusal(dir.path(), &[CONFIG]), Error::Json { .. }));
    }
    fs::File::create(&config).unwrap().set_len(64 << 20).unwrap();
    assert!(matches!(refusal(dir.path(), &[CONFIG, "more than"]), Error::TooLarge { .. }));
}
