//! What an imported base looks like, and that it computes what PyTorch computes.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod common;

use std::path::Path;

use common::{Checkpoint, data, minilm, read_tensors, shared};
use graft_graph::grad::gradient_model;
use graft_graph::model::{Role, describe};
use graft_graph::sites::{SiteKind, sites};
use graft_graph::{Graph, Tensor, onnx};
use graft_models::{ImportReport, import};
use graft_runtime::{Runtime, RuntimeError, RuntimeOptions, Session, SessionOptions, SessionSource};
use half::{bf16, f16};
use safetensors::tensor::Dtype;

fn imported(checkpoint: &Path) -> (Graph, ImportReport) {
    let folder = tempfile::tempdir().unwrap();
    let report = import(checkpoint, &folder.path().join("base")).unwrap();
    // The mapping outlives the folder's name.
    (onnx::read(&report.model).unwrap(), report)
}

fn runtime() -> Option<&'static Runtime> {
    match Runtime::start(&RuntimeOptions::default()) {
        Ok(r) => Some(r),
        Err(RuntimeError::LibraryNotFound { .. }) if std::env::var_os("CI").is_none() => {
            println!("skipped: no ONNX Runtime library");
            None
        }
        Err(e) => panic!("{e}"),
    }
}

/// The outputs of a graph for the inputs of a reference file, by name.
fn outputs(runtime: &'static Runtime, graph: &Graph, inputs: &[(&str, &Tensor)]) -> Vec<(String, Vec<f32>)> {
    let source = SessionSource::plain(onnx::to_bytes(graph));
    let mut session = Session::new(runtime, &source, &SessionOptions::default()).unwrap();
    let names: Vec<&str> = graph.outputs.iter().map(|v| graph.name_of(*v)).collect();
    let out = session.run(inputs, &names).unwrap();
    names.iter().map(|n| (n.to_string(), out.f32s(n).unwrap().to_vec())).collect()
}

/// Imports, runs, and compares every output with what PyTorch gave.
fn assert_equals_pytorch(checkpoint: &Path, reference: &Path) {
    let (graph, _) = imported(checkpoint);
    let Some(runtime) = runtime() else { return };
    let reference = read_tensors(reference);
    let inputs: Vec<(&str, &Tensor)> =
        reference.iter().filter_map(|(n, t)| Some((n.strip_prefix("in:")?, t))).collect();
    let found = outputs(runtime, &graph, &inputs);
    assert_eq!(found.len(), reference.len() - inputs.len(), "as many outputs as PyTorch has");
    for (name, values) in found {
        let expected = reference[&format!("out:{name}")].values::<f32>().unwrap();
        assert_eq!(values.len(), expected.len(), "{name}");
        let worst = values.iter().zip(&*expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        // NaN fails, too.
        assert!(worst <= 1e-4, "{name} differs by {worst}");
        assert!(values.iter().all(|v| v.is_finite()), "{name}");
    }
}

#[test]
fn bert_equals_pytorch_even_where_a_whole_row_is_masked() {
    let Some(base) = shared("conformance/adapters/bert/base") else { return };
    assert_equals_pytorch(&base, &data("bert_tiny.safetensors"));
}

#[test]
fn minilm_equals_pytorch() {
    let Some(base) = minilm() else { return };
    assert_equals_pytorch(&base, &data("minilm.safetensors"));
}

#[test]
fn roberta_equals_pytorch() {
    assert_equals_pytorch(&data("roberta_tiny"), &data("roberta_tiny/reference.safetensors"));
}

#[test]
fn distilbert_equals_pytorch() {
    assert_equals_pytorch(&data("distilbert_tiny"), &data("distilbert_tiny/reference.safetensors"));
}

#[test]
fn shapes_stay_symbolic_and_roles_are_found() {
    for (checkpoint, types) in [("roberta_tiny", false), ("distilbert_tiny", false), ("", true)] {
        let made = Checkpoint::new();
        made.write();
        let path = if checkpoint.is_empty() { made.path().to_path_buf() } else { data(checkpoint) };
        let (graph, _) = imported(&path);
        let model = describe(&graph, None).unwrap();
        assert!(model.input(Role::Ids).is_some() && model.input(Role::Mask).is_some());
        assert_eq!(model.input(Role::Types).is_some(), types);
        let shape = graph_shape(&graph, "last_hidden_state");
        assert!(shape == "[batch, sequence, 16]" || shape == "[batch, sequence, 8]", "{shape}");
        let unknown = graph.nodes.iter().flat_map(|n| n.outputs.iter().flatten());
        let unknown: Vec<&str> =
            unknown.filter(|v| graph.shape(**v).is_none()).map(|v| graph.name_of(*v)).collect();
        assert!(unknown.is_empty(), "no shape inferred: {unknown:?}");
    }
}

fn graph_shape(graph: &Graph, name: &str) -> String {
    let v = graph.find(name).unwrap();
    graft_graph::dim::show(graph.shape(v).unwrap())
}

#[test]
fn sites_have_pytorchs_paths_and_the_head_is_reported() {
    let Some(base) = shared("conformance/adapters/bert/base") else { return };
    let (graph, report) = imported(&base);
    let all = sites(&graph);
    let of = |kind| all.iter().filter(|s| s.kind == kind).map(|s| s.path.as_str()).collect::<Vec<_>>();
    let layer = |i: usize| {
        let names =
            ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"];
        let more = ["intermediate.dense", "output.dense"];
        names.into_iter().chain(more).map(move |n| format!("encoder.layer.{i}.{n}"))
    };
    let expected: Vec<String> =
        layer(0).chain(layer(1)).chain(std::iter::once("pooler.dense".to_string())).collect();
    assert_eq!(of(SiteKind::Linear), expected);
    assert_eq!(of(SiteKind::Norm).len(), 5);
    let tables = ["word", "token_type", "position"].map(|n| format!("embeddings.{n}_embeddings"));
    assert_eq!(of(SiteKind::Embedding), tables);
    let query = all.iter().find(|s| s.path == "encoder.layer.0.attention.self.query").unwrap();
    assert!(query.bias.is_some() && !query.weight_is_out_in);
    assert_eq!(graph.name_of(query.weight), "encoder.layer.0.attention.self.query.weight");

    assert_eq!(report.unused, ["classifier.bias", "classifier.weight"]);
    assert_eq!(report.outputs, ["last_hidden_state", "pooler_output"]);
    assert_eq!(graph_shape(&graph, "pooler_output"), "[batch, 32]");
    assert_eq!((report.parameters, report.bytes), (23_424, 93_696));
    assert!(!report.has_tokenizer && report.copied == ["config.json"]);
    let metadata = |k: &str| graph.metadata.iter().find(|(n, _)| n == k).map(|(_, v)| v.as_str());
    assert_eq!(metadata("graft.format_version"), Some("1"));
    assert_eq!(metadata("graft.model_type"), Some("bert"));
    assert_eq!(metadata("graft.source"), Some("base"));
}

#[test]
fn every_weight_has_a_gradient() {
    let mut made = Checkpoint::new();
    for function in ["gelu", "gelu_new", "relu", "silu", "quick_gelu", "tanh"] {
        made.config["hidden_act"] = function.into();
        made.write();
        let (graph, _) = imported(made.path());
        let gradients = gradient_model(&graph, None).unwrap();
        let missing: Vec<&String> = made.tensors.keys().filter(|k| !gradients.wrt.contains(k)).collect();
        assert!(missing.is_empty(), "{function}: {missing:?}");
    }
}

/// The weights of the base that a checkpoint gives, by name.
fn weights(checkpoint: &Checkpoint) -> Vec<(String, Tensor)> {
    let (graph, report) = imported(checkpoint.path());
    assert!(report.unused.is_empty(), "{:?}", report.unused);
    let mut all: Vec<_> = graph.constants().map(|(v, t)| (graph.name_of(v).to_string(), t.clone())).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

#[test]
fn shards_prefixes_and_old_names_give_the_same_base() {
    let plain = Checkpoint::new();
    plain.write();
    let expected = weights(&plain);

    let mut old = Checkpoint::new();
    old.rename(|n| {
        let n = n.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta");
        format!("bert.{n}")
    });
    old.write();
    assert!(weights(&old) == expected);

    let sharded = Checkpoint::new();
    sharded.write_config();
    let file = |i: usize| format!("model-{}-of-2.safetensors", i % 2 + 1);
    let map: serde_json::Map<String, serde_json::Value> =
        sharded.tensors.keys().enumerate().map(|(i, n)| (n.clone(), file(i).into())).collect();
    let index = serde_json::json!({"metadata": {}, "weight_map": map}).to_string();
    std::fs::write(sharded.path().join("model.safetensors.index.json"), index).unwrap();
    for part in 0..2 {
        sharded.write_tensors(&file(part), |i| i % 2 == part);
    }
    assert!(weights(&sharded) == expected);
}

#[test]
fn other_float_types_become_f32() {
    let plain = Checkpoint::new();
    plain.write();
    let expected = weights(&plain);
    type Narrow = fn(f32) -> Vec<u8>;
    let convert: [(Dtype, Narrow); 3] = [
        (Dtype::BF16, |v| bf16::from_f32(v).to_le_bytes().to_vec()),
        (Dtype::F16, |v| f16::from_f32(v).to_le_bytes().to_vec()),
        (Dtype::F64, |v| f64::from(v).to_le_bytes().to_vec()),
    ];
    for (dtype, narrow) in convert {
        let mut other = Checkpoint::new();
        for (d, _, bytes) in other.tensors.values_mut() {
            let floats = bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
            (*d, *bytes) = (dtype, floats.flat_map(narrow).collect());
        }
        other.write();
        assert!(weights(&other) == expected, "{dtype}");
    }
}

#[test]
fn tokenizer_files_come_along() {
    let made = Checkpoint::new();
    made.write();
    for name in ["tokenizer.json", "vocab.txt", "README.md"] {
        std::fs::write(made.path().join(name), name).unwrap();
    }
    let report = import(made.path(), &made.out()).unwrap();
    assert_eq!(report.copied, ["config.json", "tokenizer.json", "vocab.txt"]);
    assert!(report.has_tokenizer);
    let mut found: Vec<String> = std::fs::read_dir(made.out())
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    found.sort();
    assert_eq!(found, ["config.json", "model.onnx", "model.onnx_data", "tokenizer.json", "vocab.txt"]);
    assert_eq!(std::fs::read_to_string(made.out().join("vocab.txt")).unwrap(), "vocab.txt");
}
