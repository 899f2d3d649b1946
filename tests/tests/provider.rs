//! Training on a provider, beside the processor: `GRAFT_TEST_PROVIDER=cuda`, or the processor itself.
#![allow(clippy::unwrap_used, reason = "what fails is a test that fails")]

use graft_tests::fixture::House;
use graft_tests::on_provider;
use serde_json::Value;

/// Largest difference of the losses, and of the gradients' norms, of a step on two providers, relative to the processor's.
const CLOSE: f64 = 1e-5;

/// Kinds of nodes that copy between the memory of the process and of a device.
const COPIES: [&str; 2] = ["MemcpyFromHost", "MemcpyToHost"];

/// Largest output in bytes of what ONNX Runtime leaves to the processor on purpose: sizes, and what is reckoned of them.
const SIZES: u64 = 64;

/// Most copies of a run: the sizes that the device needs, or that depend on what it has.
const MOST_COPIES: usize = 8;

/// A node of a profile.
struct Ran {
    op: String,
    provider: String,
    /// Bytes of its output.
    gives: u64,
}

fn number(of: &Value, key: &str) -> f64 {
    of[key].as_f64().unwrap_or_else(|| panic!("{key} in {of}"))
}

/// Nodes of a profile's first run.
fn nodes(house: &House, profile: &str) -> Vec<Ran> {
    let events: Vec<Value> = serde_json::from_slice(&house.read(profile)).unwrap();
    let mut seen = std::collections::HashSet::new();
    let mut all = Vec::new();
    for event in &events {
        let name = event["name"].as_str().unwrap_or_default();
        if event["cat"] != "Node" || !name.ends_with("_kernel_time") || !seen.insert(name) {
            continue;
        }
        let of = |key: &str| event["args"][key].as_str().unwrap_or("?").to_owned();
        let gives = of("output_size").parse().unwrap_or(u64::MAX);
        all.push(Ran { op: of("op_name"), provider: of("provider"), gives });
    }
    assert!(!all.is_empty(), "{profile} has no nodes");
    all
}

/// Trains a few steps on both, and asserts that they are the same.
fn trains_as_the_processor(house: &House, name: &str, method: &str) {
    let provider = on_provider().provider.to_string();
    let more = |provider: &str| {
        format!(
            "--method {method} --epochs 2 --batch-size 8 --lr 0.005 --eval-data dev.csv --provider {provider}"
        )
    };
    let (here, there) = (format!("{name}-cpu"), format!("{name}-there"));
    let ours = house.run(&House::training(&here, &more("cpu"))).json();
    let profile = format!("{name}.profile.json");
    let line = format!("{} --profile {profile}", more(&provider));
    let theirs = house.run(&House::training(&there, &line)).json();
    let (a, b) = (house.metrics(&here, "step"), house.metrics(&there, "step"));
    assert!(a.len() > 10 && a.len() == b.len(), "{} and {} steps", a.len(), b.len());
    let mut farthest = 0f64;
    for (k, (a, b)) in a.iter().zip(&b).enumerate() {
        for key in ["loss", "grad_norm"] {
            let (want, got) = (number(a, key), number(b, key));
            let far = (want - got).abs() / want.abs().max(1e-3);
            farthest = farthest.max(far);
            assert!(far < CLOSE, "{name}, step {k}: {key} is {got} on {provider}, {want} on the processor");
        }
    }
    assert_eq!(ours["evaluation"]["accuracy"], theirs["evaluation"]["accuracy"], "{name}");

    let nodes = nodes(house, &profile);
    let copies = nodes.iter().filter(|n| COPIES.contains(&n.op.as_str())).count();
    let on_processor: Vec<&Ran> = nodes.iter().filter(|n| n.provider == "CPUExecutionProvider").collect();
    let mut counts = std::collections::BTreeMap::new();
    on_processor.iter().for_each(|n| *counts.entry(n.op.as_str()).or_insert(0) += 1);
    println!("{name} on {provider}: steps differ by {farthest:.1e} at most");
    println!("{} nodes, {copies} copies, on the processor {counts:?}", nodes.len());
    if on_provider().provider.is_device() {
        let others: Vec<&str> =
            on_processor.iter().filter(|n| n.gives > SIZES).map(|n| n.op.as_str()).collect();
        assert!(others.is_empty(), "{name}: {others:?} run on the processor");
        assert!(copies <= MOST_COPIES, "{name}: {copies} copies");
    } else {
        assert!(copies == 0 && on_processor.len() == nodes.len());
    }
}

#[test]
fn provider_trains_each_kind_of_method_as_the_processor_does() {
    let Some(house) = House::new() else { return };
    for (name, method) in [
        ("lora", "lora --set objective.pooling=mean"),
        ("full", "full"),
        ("ia3", "ia3"),
        ("bottleneck", "bottleneck-adapter"),
        ("prompt", "prompt-tuning --set objective.pooling=mean"),
        ("prefix", "prefix-tuning --set objective.pooling=mean"),
        ("norms", "norm-tuning"),
    ] {
        trains_as_the_processor(&house, name, method);
    }
}
