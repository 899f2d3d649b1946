//! No library, no base, or one that can't be trained.

use graft_graph::onnx::{self, Placement};
use graft_graph::{Graph, raise};
use graft_tests::fixture::{Ended, House, target_dir};

use super::training_refused;

/// Rewrites the base's model.
fn change(house: &House, change: impl FnOnce(&mut Graph)) {
    let mut graph = onnx::read(&house.path("base/model.onnx")).unwrap();
    raise::raise(&mut graph);
    change(&mut graph);
    onnx::write(&graph, &house.path("base/changed.onnx"), Placement::Inline).unwrap();
    std::fs::rename(house.path("base/changed.onnx"), house.path("base/model.onnx")).unwrap();
}

fn with_library(house: &House, library: &str, words: &[&str]) {
    let line = House::training("out", "--method lora --epochs 1");
    for line in [line.as_str(), "inspect base"] {
        Ended::of(house.command(line).env("ORT_DYLIB_PATH", house.path(library))).refused(words);
    }
    assert!(!house.path("out").exists());
}

#[test]
fn no_library() {
    let Some(house) = House::new() else { return };
    with_library(&house, "nowhere/libonnxruntime.so", &["ORT_DYLIB_PATH", "nowhere", "no file"]);
}

#[test]
fn a_library_that_is_text() {
    let Some(house) = House::new() else { return };
    house.write("libonnxruntime.so", "a note to myself\n");
    with_library(
        &house,
        "libonnxruntime.so",
        &["libonnxruntime.so", "can't be loaded as ONNX Runtime", "give the path"],
    );
}

#[test]
fn a_library_that_is_another_one() {
    let Some(house) = House::new() else { return };
    let other = target_dir().join("libgraft_plugin_lora.so");
    with_library(&house, other.to_str().unwrap(), &["OrtGetApiBase", "give the path"]);
}

#[test]
fn a_base_that_is_not_there() {
    let Some(house) = House::new() else { return };
    let line = House::training("out", "--method lora").replace("--base base", "--base bass");
    house.run(&line).refused(&["bass", "no base here", "no such file or directory"]);
    house
        .run(&line.replace("bass", "checkpoint"))
        .refused(&["a checkpoint, not an ONNX model", "graft model import"]);
    assert!(!house.path("out").exists());
}

#[test]
fn a_file_that_is_no_onnx() {
    let Some(house) = House::new() else { return };
    house.write("base/model.onnx", "version https://git-lfs.github.com/spec/v1\n");
    training_refused(&house, "", &["base/model.onnx", "not an ONNX model", "Git LFS"]);
}

#[test]
fn a_truncated_model_and_truncated_weights() {
    let Some(house) = House::new() else { return };
    let (model, weights) = (house.read("base/model.onnx"), house.read("base/model.onnx_data"));
    house.write("base/model.onnx", &model[..model.len() / 2]);
    training_refused(&house, "", &["base/model.onnx", "cut short", "complete"]);
    house.write("base/model.onnx", &model);
    house.write("base/model.onnx_data", &weights[..weights.len() / 2]);
    training_refused(&house, "", &["model.onnx_data", "bytes", "the tensor wants"]);
    std::fs::remove_file(house.path("base/model.onnx_data")).unwrap();
    training_refused(&house, "", &["model.onnx_data", "No such file", "Keep the data file beside the model"]);
}

#[test]
fn an_operator_set_of_the_future() {
    let Some(house) = House::new() else { return };
    change(&house, |g| g.opsets.extend([(String::new(), 99)]));
    training_refused(&house, "", &["base/model.onnx", "99"]);
}

#[test]
fn an_operator_without_a_gradient_rule_on_the_path() {
    let Some(house) = House::new() else { return };
    change(&house, |g| {
        let tanh = g.nodes.iter_mut().find(|n| n.is("Tanh")).unwrap();
        tanh.op = "Shrink".into();
    });
    let ended = training_refused(
        &house,
        "--set objective.pooling=pooled",
        &["Shrink", "pooler.activation", "gradient"],
    );
    assert!(!ended.err.contains("step 1"), "it was not found before training: {}", ended.err);
    // It is on no path where the pooled output is not used.
    house.run(&House::training("out", "--method lora --epochs 1")).succeeded();
}

/// The last layer's name of the hidden states, under which they are no output.
const STATES: &str = "encoder/states";

#[test]
fn a_base_that_shows_logits_only() {
    let Some(house) = House::new() else { return };
    change(&house, |g| {
        let (hidden, pooled) = (g.find("last_hidden_state").unwrap(), g.find("pooler_output").unwrap());
        g.rename(hidden, STATES);
        g.rename(pooled, "logits");
        g.outputs = vec![pooled];
    });
    training_refused(&house, "", &["hidden states", "--hidden VALUE", "candidates: ", STATES]);
    training_refused(&house, "--hidden nothing", &["--hidden nothing", "no value of that name", STATES]);
    house.run(&House::training("out", &format!("--method lora --epochs 1 --hidden {STATES}"))).succeeded();
    let eval = "eval --base base --adapter out --data dev.csv";
    house.run(eval).refused(&["--hidden VALUE", STATES]);
    house.run(&format!("{eval} --hidden {STATES}")).succeeded();
}

#[test]
fn a_base_without_a_tokenizer() {
    let Some(house) = House::new() else { return };
    std::fs::rename(house.path("base/tokenizer.json"), house.path("mine.json")).unwrap();
    training_refused(&house, "", &["no tokenizer.json", "base", "--tokenizer FILE"]);
    training_refused(&house, "--tokenizer train.csv", &["train.csv", "no tokenizer", "tokenizer.json"]);
    house.run(&House::training("out", "--method lora --epochs 1 --tokenizer mine.json")).succeeded();
}
