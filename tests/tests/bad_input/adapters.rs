//! Adapters that do not fit.

use graft_graph::Tensor;
use graft_tests::fixture::House;
use indexmap::IndexMap;

const FILE: &str = "adapter/adapter_model.safetensors";
const FIRST: &str = "base_model.model.bert.encoder.layer.0.attention.self.query.lora_A.weight";

/// A house with an adapter; without its `graft.json`, which knows the digest of every file, if `plain`.
fn trained(plain: bool) -> Option<House> {
    let house = House::new()?;
    house
        .run(&House::training("adapter", "--method lora --epochs 1 --set objective.pooling=pooled"))
        .succeeded();
    if plain {
        std::fs::remove_file(house.path("adapter/graft.json")).unwrap();
    }
    Some(house)
}

/// Every command that loads an adapter refuses it with these words.
fn refused(house: &House, words: &[&str]) {
    house.run("eval --base base --adapter adapter --data dev.csv --text text --label label").refused(words);
    house.run("predict --base base --adapter adapter owl").refused(words);
    // Stock PEFT directories do not say what their labels are called.
    let labels = r#"--set objective.labels=["bird","fruit","tool"]"#;
    house
        .run(&House::training("out", &format!("--method lora --init-adapter adapter {labels}")))
        .refused(words);
    assert!(!house.path("out").exists());
}

fn change(house: &House, change: impl FnOnce(&mut IndexMap<String, Tensor>)) {
    let mut tensors = house.tensors(FILE);
    change(&mut tensors);
    house.write_tensors(FILE, tensors.iter().map(|(n, t)| (n.as_str(), t)));
}

#[test]
fn an_adapter_of_another_base() {
    let Some(house) = trained(false) else { return };
    let mut weights = house.tensors("checkpoint/model.safetensors");
    weights["pooler.dense.bias"] = Tensor::vector(&[0.5f32; 32]);
    house.write_tensors("checkpoint/model.safetensors", weights.iter().map(|(n, t)| (n.as_str(), t)));
    std::fs::remove_dir_all(house.path("base")).unwrap();
    house.run("model import checkpoint base").succeeded();
    refused(&house, &["adapter", "made for the base `base`", "blake3:", "train the adapter on this one"]);
}

#[test]
fn a_tensor_is_missing() {
    let Some(house) = trained(true) else { return };
    change(&house, |t| drop(t.shift_remove(FIRST)));
    refused(&house, &["adapter_model.safetensors", FIRST, "is missing"]);
}

#[test]
fn a_tensor_is_there_that_no_module_takes() {
    let Some(house) = trained(true) else { return };
    change(&house, |t| {
        for part in ["lora_A", "lora_B"] {
            let name = FIRST.replace("lora_A", part);
            t.insert(name.replace("query", "quarry"), t[&name].clone());
        }
    });
    refused(&house, &["quarry", "nearest", "query"]);
}

#[test]
fn a_tensor_has_another_shape() {
    let Some(house) = trained(true) else { return };
    change(&house, |t| drop(t.insert(FIRST.into(), Tensor::new([8, 5], &[0f32; 40]).unwrap())));
    refused(&house, &["query.lora_A.weight", "shape [8, 5]", "[8, 32] is needed"]);
}

#[test]
fn a_tensor_holds_nan() {
    let Some(house) = trained(true) else { return };
    change(&house, |t| drop(t.insert(FIRST.into(), Tensor::new([8, 32], &[f32::NAN; 256]).unwrap())));
    refused(&house, &[FIRST, "NaN", "broken"]);
}

#[test]
fn files_of_two_adapters_are_mixed() {
    let Some(house) = trained(false) else { return };
    change(&house, |t| drop(t.insert(FIRST.into(), Tensor::new([8, 32], &[0f32; 256]).unwrap())));
    refused(&house, &["adapter_model.safetensors", "not what graft.json was written for", "Restore it"]);
}

#[test]
fn a_truncated_file() {
    let Some(house) = trained(true) else { return };
    let whole = house.read(FILE);
    house.write(FILE, &whole[..whole.len() / 2]);
    refused(&house, &["adapter_model.safetensors", "safetensors", "truncated"]);
}

#[test]
fn no_adapter() {
    let Some(house) = House::new() else { return };
    refused(&house, &["adapter holds no adapter", "adapter_config.json", "graft.json"]);
}
