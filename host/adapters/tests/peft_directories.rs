//! Directories that PEFT wrote load here, and what is saved here has PEFT's keys and orientation.
#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod common;

use common::{adapter, composition, homeless, numbers, shared};
use graft_adapters::peft::Targets;
use graft_adapters::{
    Expected, ParamKey, PeftConfig, PeftSupport, StoredAdapter, info, load, read_tensors, save, write_tensors,
};
use serde_json::Value;

const BY_PEFT: [&str; 4] =
    ["adapters/bert/lora", "adapters/llama/lora", "training/bert_lora/initial", "training/bert_lora/final"];

#[test]
fn directories_of_peft_load_and_come_out_unchanged() {
    for name in BY_PEFT {
        let Some(dir) = shared(&format!("conformance/{name}")) else { return };
        let loaded = load(&dir).unwrap();
        assert_eq!(loaded.hooked().len(), 4, "{name}");
        let PeftConfig::Lora(config) = loaded.peft.as_ref().unwrap() else { panic!("{name}") };
        assert_eq!((config.r, config.lora_alpha), (4, 8.0));
        let root = tempfile::tempdir().unwrap();
        let out = root.path().join("again");
        save(&out, &loaded).unwrap();
        // Byte for byte the file that PEFT wrote, and the same settings, those not known here included.
        let bytes = |d: &std::path::Path| std::fs::read(d.join("adapter_model.safetensors")).unwrap();
        assert!(bytes(&dir) == bytes(&out), "{name}");
        let json = |d: &std::path::Path| -> Value {
            serde_json::from_slice(&std::fs::read(d.join("adapter_config.json")).unwrap()).unwrap()
        };
        assert_eq!(json(&dir), json(&out), "{name}");
        assert_eq!(homeless(load(&out).unwrap()), homeless(loaded), "{name}");
    }
}

#[test]
fn the_head_of_a_peft_classifier_is_recognised() {
    let Some(dir) = shared("conformance/adapters/bert/lora") else { return };
    let loaded = load(&dir).unwrap();
    let head = loaded.head.as_ref().unwrap();
    assert_eq!(head.module.as_deref(), Some("classifier"));
    let found = loaded.bind_head(&[("weight", &[3, 32]), ("bias", &[3])]).unwrap();
    assert_eq!(
        found[0],
        read_tensors(&dir.join("adapter_model.safetensors")).unwrap()["base_model.model.classifier.weight"]
    );
    let sum = info(&loaded);
    assert_eq!(
        (sum.method.as_str(), sum.modules, sum.parameters, sum.head_parameters),
        ("lora", 4, 1024, 99)
    );
    assert_eq!(sum.peft, PeftSupport::Whole);
}

#[test]
fn a_pooled_head_is_stored_where_stock_peft_looks_for_it() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("a");
    save(&dir, &adapter("pooled")).unwrap();
    let keys = read_tensors(&dir.join("adapter_model.safetensors")).unwrap();
    let query = "base_model.model.bert.encoder.layer.1.attention.self.query";
    assert_eq!(keys[&format!("{query}.lora_A.weight")].shape(), [2, 8]);
    assert_eq!(keys[&format!("{query}.lora_B.weight")].shape(), [8, 2]);
    assert_eq!(keys["base_model.model.classifier.weight"].shape(), [3, 8]);
    assert_eq!(keys["base_model.model.classifier.bias"].shape(), [3]);
    assert_eq!(keys.len(), 10);
    assert!(!dir.join("graft_head.safetensors").exists());
    let loaded = load(&dir).unwrap();
    let common = loaded.peft.as_ref().unwrap().common();
    assert_eq!(common.task_type.as_deref(), Some("SEQ_CLS"));
    assert_eq!(common.modules_to_save, Some(vec!["classifier".to_string()]));
    assert_eq!(info(&loaded).peft, PeftSupport::Whole);
    assert_eq!(homeless(loaded), homeless(adapter("pooled")));
}

#[test]
fn a_head_on_every_token_is_stored_where_stock_peft_looks_for_it() {
    let tokens = |model_type: &str| {
        let mut c = composition("none");
        c.graft.objective.id = "token-classification".into();
        c.graft.base.model_type = Some(model_type.into());
        c.pooling = None;
        StoredAdapter::compose(c).unwrap()
    };
    // The stock token classifier of RoBERTa is one linear layer, that of sequences is not.
    for (model_type, prefix) in [("bert", "bert"), ("roberta", "roberta")] {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("a");
        save(&dir, &tokens(model_type)).unwrap();
        let loaded = load(&dir).unwrap();
        let common = loaded.peft.as_ref().unwrap().common();
        assert_eq!(common.task_type.as_deref(), Some("TOKEN_CLS"));
        assert_eq!(common.modules_to_save, Some(vec!["classifier".to_string()]));
        assert!(loaded.paths().iter().all(|p| p.starts_with(&format!("{prefix}.encoder."))), "{model_type}");
        assert_eq!(info(&loaded).peft, PeftSupport::Whole);
    }
    assert_eq!(info(&tokens("llama")).peft, PeftSupport::HiddenStates);
}

#[test]
fn another_head_goes_into_our_own_file_and_the_rest_is_feature_extraction() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("a");
    save(&dir, &adapter("mean")).unwrap();
    let keys = read_tensors(&dir.join("adapter_model.safetensors")).unwrap();
    assert!(keys.contains_key("base_model.model.encoder.layer.0.attention.self.value.lora_B.weight"));
    assert_eq!(keys.len(), 8);
    let head = read_tensors(&dir.join("graft_head.safetensors")).unwrap();
    assert_eq!(head.keys().collect::<Vec<_>>(), ["bias", "weight"]);
    let loaded = load(&dir).unwrap();
    let common = loaded.peft.as_ref().unwrap().common();
    assert_eq!(common.task_type.as_deref(), Some("FEATURE_EXTRACTION"));
    assert_eq!(common.modules_to_save, None);
    let sum = info(&loaded);
    assert_eq!(sum.peft, PeftSupport::HiddenStates);
    assert!(sum.peft_why_not.unwrap().contains("pools `pooled`, this one `mean`"));
    assert_eq!(homeless(loaded), homeless(adapter("mean")));
}

#[test]
fn a_linear_probe_is_a_head_and_our_own_file_alone() {
    let mut c = composition("mean");
    c.peft = None;
    c.parameters.clear();
    c.graft.method.id = "linear-probe".into();
    let probe = StoredAdapter::compose(c).unwrap();
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("probe");
    save(&dir, &probe).unwrap();
    let mut names: Vec<_> =
        std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["graft.json", "graft_head.safetensors"]);
    let loaded = load(&dir).unwrap();
    assert_eq!((info(&loaded).peft, info(&loaded).head_parameters), (PeftSupport::No, 27));
    assert_eq!(homeless(loaded), homeless(probe));
}

#[test]
fn target_modules_mean_exactly_what_was_trained() {
    let targets = |a: &StoredAdapter| match a.peft.as_ref().unwrap() {
        PeftConfig::Lora(c) => c.target_modules.clone().unwrap(),
        _ => panic!(),
    };
    let names = |l: &[&str]| Targets::List(l.iter().map(|s| s.to_string()).collect());
    assert_eq!(targets(&adapter("mean")), names(&["query", "value"]));
    // A regular expression over the base's own paths means nothing to PEFT.
    let mut c = composition("pooled");
    let Some(PeftConfig::Lora(config)) = &mut c.peft else { panic!() };
    config.target_modules = Some(Targets::Pattern("m\\.encoder.*(query|value)".into()));
    let Targets::List(list) = targets(&StoredAdapter::compose(c).unwrap()) else { panic!() };
    assert_eq!((list.len(), list[0].as_str()), (4, "bert.encoder.layer.0.attention.self.query"));
    // A name that also means a module that was left out would give PEFT one adapter more.
    let mut c = composition("mean");
    c.parameters.retain(|(k, _)| k.path.contains("layer.0"));
    let Targets::List(list) = targets(&StoredAdapter::compose(c).unwrap()) else { panic!() };
    assert_eq!(list, ["encoder.layer.0.attention.self.query", "encoder.layer.0.attention.self.value"]);
}

#[test]
fn trained_biases_have_the_keys_that_peft_gives_them() {
    let mut c = composition("mean");
    let Some(PeftConfig::Lora(config)) = &mut c.peft else { panic!() };
    config.bias = "all".into();
    for module in ["layer.0.attention.self.query", "layer.0.attention.self.key"] {
        c.parameters.push((ParamKey::new(format!("m.encoder.{module}"), "bias"), numbers(&[8])));
    }
    let stored = StoredAdapter::compose(c).unwrap();
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("a");
    save(&dir, &stored).unwrap();
    let keys = read_tensors(&dir.join("adapter_model.safetensors")).unwrap();
    assert!(keys.contains_key("base_model.model.encoder.layer.0.attention.self.query.base_layer.bias"));
    assert!(keys.contains_key("base_model.model.encoder.layer.0.attention.self.key.bias"));
    let loaded = load(&dir).unwrap();
    assert_eq!((loaded.hooked().len(), loaded.paths().len()), (4, 5));
    assert_eq!(homeless(loaded), homeless(stored));
}

#[test]
fn older_keys_and_the_copies_that_peft_keeps_are_understood() {
    let Some(dir) = shared("conformance/adapters/bert/lora") else { return };
    let root = tempfile::tempdir().unwrap();
    let file = "adapter_model.safetensors";
    std::fs::copy(dir.join("adapter_config.json"), root.path().join("adapter_config.json")).unwrap();
    let mut tensors = read_tensors(&dir.join(file)).unwrap();
    let copy = numbers(&[3]);
    tensors.insert("base_model.model.classifier.original_module.bias".into(), copy);
    let older = tensors.into_iter().map(|(k, t)| {
        let k = k
            .replace("lora_A.weight", "lora_A.default.weight")
            .replace("lora_B.weight", "lora_B.default.weight");
        (k.replace("classifier.weight", "classifier.modules_to_save.default.weight"), t)
    });
    let older: Vec<_> = older.collect();
    write_tensors(&root.path().join(file), older.iter().map(|(k, t)| (k.as_str(), t))).unwrap();
    assert_eq!(homeless(load(root.path()).unwrap()), homeless(load(&dir).unwrap()));
}

#[test]
fn an_adapter_fits_a_base_under_other_paths_and_nothing_is_left_out() {
    let stored = adapter("pooled");
    let base = composition("pooled").base_modules;
    let sites = stored.sites_in(&base).unwrap();
    assert_eq!((sites.adapter_prefix.as_str(), sites.base_prefix.as_str()), ("bert", "m"));
    let expected: Vec<_> = composition("pooled")
        .parameters
        .into_iter()
        .map(|(key, t)| Expected { key, shape: t.shape().to_vec() })
        .collect();
    let bound = stored.bind(Some(&sites), &expected).unwrap();
    let order: Vec<_> = composition("pooled").parameters.into_iter().map(|(_, t)| t).collect();
    assert_eq!(bound, order);

    let message = |r: graft_adapters::Result<Vec<graft_graph::Tensor>>| r.unwrap_err().to_string();
    let fewer = message(stored.bind(Some(&sites), &expected[1..]));
    assert!(fewer.contains("query.lora_A.weight") && fewer.contains("not expected"), "{fewer}");
    let mut more = expected.clone();
    more.push(Expected {
        key: ParamKey::new("m.encoder.layer.0.attention.self.key", "lora_A.weight"),
        shape: vec![2, 8],
    });
    let more = message(stored.bind(Some(&sites), &more));
    assert!(more.contains("key.lora_A.weight") && more.contains("missing"), "{more}");
    let mut other = expected;
    other[0].shape = vec![2, 9];
    let other = message(stored.bind(Some(&sites), &other));
    assert!(other.contains("[2, 8]") && other.contains("[2, 9]"), "{other}");
    let missing = stored.sites_in(&base[..3]).unwrap_err().to_string();
    assert!(
        missing.contains("2 of 4") && missing.contains("bert.encoder.layer.1.attention.self.query"),
        "{missing}"
    );
}

#[test]
fn another_base_is_refused() {
    let stored = adapter("mean");
    assert!(stored.check_base("blake3:00").is_ok());
    let e = stored.check_base("blake3:11").unwrap_err().to_string();
    assert!(e.contains("blake3:00") && e.contains("blake3:11") && e.contains("tiny"), "{e}");
}
