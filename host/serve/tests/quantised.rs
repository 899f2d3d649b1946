//! A base whose activations are quantised by a scale of the whole batch, as `quantize_dynamic` makes it: what is in the batch
//! changes the scale, and with it every row. So no two adapters share one.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::path::Path;

use common::{House, Plan};
use graft_graph::onnx;
use graft_graph::{Attrs, Builder, DType, Graph, Tensor, ValueId};
use graft_tests::{fixture_base, runtime, shared};
use serde_json::{Value, json};

/// Puts products of 8-bit integers in the place of those with a weight; how many.
fn quantise(graph: &mut Graph) -> usize {
    let mut done = 0;
    for at in 0..graph.nodes.len() {
        let node = &graph.nodes[at];
        let (Some(x), Some(w)) = (node.input(0), node.input(1)) else { continue };
        let weight = graph.constant(w).filter(|w| w.shape().len() == 2).cloned();
        let Some(weight) = weight.filter(|_| node.op == "MatMul" && node.domain.is_empty()) else { continue };
        let out = node.output(0).unwrap();
        let product = quantised(graph, x, &weight);
        let made = graph.nodes.iter_mut().find(|n| n.output(0) == Some(product)).unwrap();
        made.outputs[0] = Some(out);
        graph.nodes[at].outputs[0] = Some(product);
        done += 1;
    }
    graph.sort().unwrap();
    graph.remove_dead();
    done
}

/// What `quantize_dynamic` writes for a product.
fn quantised(graph: &mut Graph, x: ValueId, weight: &Tensor) -> ValueId {
    let values = weight.to_f64s().unwrap();
    let scale = values.iter().fold(0.0, |m: f64, v| m.max(v.abs())) / 127.0;
    let rounded: Vec<i8> = values.iter().map(|v| (v / scale).round() as i8).collect();
    let mut b = Builder::new(graph, "");
    let (w, scale) = (b.constant(Tensor::new(weight.shape(), &rounded).unwrap()), b.scalar(scale as f32));
    let parts = b.emit("DynamicQuantizeLinear", "", &[Some(x)], Attrs::new(), 3);
    let scale = b.op("Mul", &[parts[1], scale]);
    let product = b.op("MatMulInteger", &[parts[0], w, parts[2]]);
    let float = b.cast(product, DType::F32);
    b.op("Mul", &[float, scale])
}

fn base(dir: &Path) {
    let checkpoint = dir.join("checkpoint");
    fixture_base::checkpoint(&checkpoint);
    common::copy(&shared().unwrap().join("conformance/adapters/bert/base"), &checkpoint);
    graft_models::import(&checkpoint, &dir.join("base")).unwrap();
    let file = dir.join("base/model.onnx");
    let mut graph = onnx::read(&file).unwrap();
    assert!(quantise(&mut graph) >= 12, "there are layers");
    std::fs::write(&file, onnx::to_bytes(&graph)).unwrap();
}

/// What is answered to texts, each by its adapter, in one call.
async fn asked(house: &House, rows: &[(&str, &str)]) -> Vec<Value> {
    let column = |name: &str, data: Vec<&str>| json!({ "name": name, "datatype": "BYTES", "shape": [data.len()], "data": data });
    let (texts, adapters) = rows.iter().copied().unzip();
    let call = json!({ "inputs": [column("text", texts), column("adapter", adapters)] });
    let answer = house.post("/v2/models/tiny/infer", call).await.ok();
    let outputs = answer["outputs"].as_array().unwrap();
    let scores = outputs.iter().find(|o| o["name"] == "json").unwrap();
    scores["data"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_adapter_changes_the_scale_of_another() {
    if shared().is_none() || runtime().is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    base(dir.path());
    let house = House::over(&dir.path().join("base"), Plan::default()).unwrap();
    let golden = shared().unwrap().join("conformance/adapters/bert");
    for name in ["lora", "ia3"] {
        let loaded = house.engine.store.load(name, &golden.join(name), true).unwrap();
        assert_eq!(loaded.shared().count(), 0, "{name} has passes of its own");
    }
    for text in ["my apple", "the order of my apple is old and late"] {
        let [lora, ia3] = ["lora", "ia3"].map(|a| (text, a));
        let alone = [asked(&house, &[lora]).await, asked(&house, &[ia3]).await].concat();
        assert_ne!(alone[0], alone[1]);
        // To the last bit, whoever else asks.
        for _ in 0..4 {
            assert_eq!(asked(&house, &[lora, ia3]).await, alone, "{text}");
        }
        let turned = [alone[1].clone(), alone[0].clone()];
        assert_eq!(asked(&house, &[ia3, lora]).await, turned, "{text}");
    }
    // That there is something to keep apart: rows of one adapter do share a scale.
    let alone = asked(&house, &[("my apple", "lora")]).await;
    let with_another = asked(&house, &[("my apple", "lora"), ("old order", "lora")]).await;
    assert_ne!(alone[0], with_another[0]);
}
