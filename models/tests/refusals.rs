//! Directories that are no checkpoint, or a spoilt one: a clear error, and nothing left behind.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod common;

use std::fs;

use common::{Checkpoint, HIDDEN};
use graft_models::import;
use safetensors::tensor::Dtype;
use serde_json::{Value, json};

/// What is said of a checkpoint whose config has that setting.
fn with(field: &str, value: Value) -> String {
    let mut c = Checkpoint::new();
    c.config[field] = value;
    c.write();
    c.refused()
}

#[track_caller]
fn says(error: &str, words: &[&str]) {
    for w in words {
        assert!(error.contains(w), "'{w}' is not in: {error}");
    }
}

#[test]
fn absurd_sizes_are_refused_before_anything_is_built() {
    says(&with("num_hidden_layers", json!(1_000_000_000)), &["num_hidden_layers is 1000000000", "1 to 1024"]);
    says(&with("num_hidden_layers", json!(0)), &["num_hidden_layers is 0"]);
    says(&with("hidden_size", json!(u64::MAX)), &["hidden_size is 18446744073709551615"]);
    says(&with("vocab_size", json!(1u64 << 40)), &["vocab_size"]);
    says(&with("num_attention_heads", json!(3)), &["num_attention_heads is 3", "divisor", "8"]);
    says(&with("num_attention_heads", json!(0)), &["num_attention_heads is 0"]);
    says(&with("layer_norm_eps", json!(-1.0)), &["layer_norm_eps"]);
}

#[test]
fn settings_that_no_recipe_covers_are_refused() {
    says(
        &with("position_embedding_type", json!("relative_key")),
        &["position_embedding_type is relative_key"],
    );
    says(&with("is_decoder", json!(true)), &["is_decoder", "only encoders"]);
    says(&with("hidden_act", json!("mish")), &["hidden_act is mish", "gelu_new"]);
    says(&with("hidden_size", json!("wide")), &["config.json", "hidden_size", "string"]);
    says(&with("model_type", json!("gpt2")), &["`gpt2`", "bert", "roberta", "distilbert"]);
    says(&with("model_type", Value::Null), &["(none given)"]);
}

#[test]
fn a_missing_tensor_is_named_with_the_nearest() {
    let mut c = Checkpoint::new();
    c.rename(|n| n.replace("self.query.weight", "self.qwery.weight"));
    c.write();
    let nearest = "nearest: encoder.layer.0.attention.self.qwery.weight";
    says(&c.refused(), &["`encoder.layer.0.attention.self.query.weight` is missing", nearest]);
    c.tensors.clear();
    c.write();
    says(&c.refused(), &["there are no tensors"]);
}

#[test]
fn a_layer_too_many_is_a_missing_tensor() {
    says(&with("num_hidden_layers", json!(2)), &["`encoder.layer.1.attention.self.query.weight` is missing"]);
}

#[test]
fn tensors_of_another_shape_or_type_are_refused() {
    let mut c = Checkpoint::new();
    c.add("encoder.layer.0.output.dense.weight", &[HIDDEN, HIDDEN]);
    c.write();
    says(&c.refused(), &["`encoder.layer.0.output.dense.weight` has shape [8, 8]", "[8, 12]"]);

    let mut c = Checkpoint::new();
    let weight = &mut c.tensors["embeddings.word_embeddings.weight"];
    weight.0 = Dtype::I8;
    weight.2.truncate(weight.2.len() / 4);
    c.write();
    says(&c.refused(), &["`embeddings.word_embeddings.weight` has elements of i8", "quantised"]);

    let mut c = Checkpoint::new();
    let weight = &mut c.tensors["embeddings.word_embeddings.weight"];
    weight.0 = Dtype::F8_E4M3;
    weight.2.truncate(weight.2.len() / 4);
    c.write();
    says(&c.refused(), &["`embeddings.word_embeddings.weight` has elements of F8_E4M3", "quantised"]);
}

#[test]
fn pickled_weights_are_refused_by_name() {
    let c = Checkpoint::new();
    c.write_config();
    fs::write(c.path().join("pytorch_model.bin"), b"PK").unwrap();
    says(&c.refused(), &["pytorch_model.bin", "may run code", "safe_serialization"]);
}

#[test]
fn what_is_no_checkpoint_is_said_to_be_none() {
    let c = Checkpoint::new();
    says(&c.refused(), &["no Hugging Face checkpoint", "config.json"]);
    c.write_config();
    says(&c.refused(), &["model.safetensors is not there"]);
    let file = c.path().join("config.json");
    says(&import(&file, &c.out()).unwrap_err().to_string(), &["not a directory"]);
    says(&import(&c.path().join("nowhere"), &c.out()).unwrap_err().to_string(), &["not a directory"]);
    fs::write(&file, "{\"model_type\": ").unwrap();
    says(&c.refused(), &["config.json", "not valid JSON"]);
    fs::write(&file, vec![b' '; (8 << 20) + 1]).unwrap();
    says(&c.refused(), &["the config takes"]);
    fs::write(&file, "[".repeat(100_000)).unwrap();
    says(&c.refused(), &["not valid JSON"]);
}

#[test]
fn broken_safetensors_files_are_refused() {
    let c = Checkpoint::new();
    c.write();
    let file = c.path().join("model.safetensors");
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..whole.len() - 4]).unwrap();
    says(&c.refused(), &["model.safetensors", "not a sound safetensors file"]);
    fs::write(&file, &whole[..100]).unwrap();
    says(&c.refused(), &["not a sound safetensors file"]);
    fs::write(&file, u64::MAX.to_le_bytes()).unwrap();
    says(&c.refused(), &["its header would take 18446744073709551615 bytes"]);
    fs::write(&file, b"").unwrap();
    says(&c.refused(), &["model.safetensors"]);
    fs::write(&file, "version https://git-lfs.github.com/spec/v1\n").unwrap();
    says(&c.refused(), &["Git LFS"]);
}

#[test]
fn shards_cannot_reach_out_of_the_directory() {
    let c = Checkpoint::new();
    c.write_config();
    let index = c.path().join("model.safetensors.index.json");
    for name in ["../secret.safetensors", "/etc/passwd", "..", ""] {
        fs::write(&index, json!({"weight_map": {"a": name}}).to_string()).unwrap();
        says(&c.refused(), &["weight_map.a", "not the name of a file"]);
    }
    fs::write(&index, json!({"weight_map": {"a": "gone.safetensors"}}).to_string()).unwrap();
    says(&c.refused(), &["gone.safetensors"]);
    fs::write(&index, json!({"weight_map": 7}).to_string()).unwrap();
    says(&c.refused(), &["weight_map"]);
    for name in ["a.safetensors", "b.safetensors"] {
        c.write_tensors(name, |i| i == 0);
    }
    let twice = json!({"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}});
    fs::write(&index, twice.to_string()).unwrap();
    says(&c.refused(), &["a.safetensors", "b.safetensors", "once"]);
}

#[test]
fn an_existing_place_is_left_as_it_is() {
    let c = Checkpoint::new();
    c.write();
    import(c.path(), &c.out()).unwrap();
    let before = fs::read(c.out().join("model.onnx")).unwrap();
    let error = import(c.path(), &c.out()).unwrap_err().to_string();
    says(&error, &["exists already"]);
    assert_eq!(fs::read(c.out().join("model.onnx")).unwrap(), before);
    assert_eq!(fs::read_dir(c.path().join("out")).unwrap().count(), 1, "nothing beside it");
}
