//! What a run chooses without further flags, and that it says so.

use graft_tests::fixture::House;
use graft_tests::shared;
use serde_json::{Value, json};

use super::number;

/// Exports of each architecture, the flags that their heads need, and what LoRA takes: the ends of the paths and how many
/// modules.
const DEFAULTS: [(&str, &str, &[&str], usize); 6] = [
    ("bert.ts", "", &["query", "value"], 4),
    ("gpt2.ts", "--hidden /m/transformer/ln_f/LayerNormalization_output_0", &["c_attn"], 2),
    ("llama.dynamo", "--hidden mul_24", &["q_proj", "v_proj"], 4),
    ("t5.ts", "--hidden /m/decoder/final_layer_norm/Mul_1_output_0", &["q", "v"], 12),
    ("vit.dynamo", "", &["q_proj", "v_proj"], 4),
    (
        "clip.ts",
        "--hidden /m/text_model/final_layer_norm/LayerNormalization_output_0",
        &["q_proj", "v_proj"],
        8,
    ),
];

fn sites(json: &Value) -> Vec<&str> {
    json["matched"][0]["sites"].as_array().unwrap().iter().map(|s| s.as_str().unwrap()).collect()
}

#[test]
fn lora_takes_queries_and_values_of_every_architecture() {
    let (Some(house), Some(shared)) = (House::new(), shared()) else { return };
    for (base, flags, ends, count) in DEFAULTS {
        let file = shared.join("conformance/autodiff").join(base).join("model.onnx");
        let line = "--method lora --set objective.pooling=cls --json";
        let json = house.run(&format!("inspect {} {flags} {line}", file.display())).json();
        let sites = sites(&json);
        assert_eq!(sites.len(), count, "{base}: {json}");
        assert!(sites.iter().all(|s| ends.contains(&s.rsplit('.').next().unwrap())), "{base}: {json}");
    }
}

#[test]
fn lora_takes_every_convolution_but_the_first_of_a_resnet() {
    let (Some(house), Some(shared)) = (House::new(), shared()) else { return };
    let folder = shared.join("models/resnet20_cifar10");
    let line = "--method lora --set objective.pooling=pooled --json";
    let json = house.run(&format!("inspect {} {line}", folder.display())).json();
    let all = house.run(&format!("inspect {} --json", folder.display())).json();
    let convs: Vec<&str> = all["sites"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|s| s["kind"] == "conv")
        .map(|s| s["path"].as_str().unwrap())
        .collect();
    assert!(convs.len() > 15, "{convs:?}");
    assert_eq!(sites(&json), convs[1..], "{json}");
}

#[test]
fn a_run_and_inspect_say_the_same_and_where_the_base_is_cut() {
    let Some(house) = House::new() else { return };
    let inspected = |more: &str| house.run(&format!("inspect base {more} --json")).json();
    // Behind the mean of the last layer: all of the base, one row of 32 numbers.
    let probe = inspected("--method linear-probe");
    assert_eq!((number(&probe["cut"], "row"), &probe["pooling"]), (32.0, &json!("mean")), "{probe}");
    assert!(number(&probe["cut"], "share") > 0.95 && probe["not_cut"].is_null(), "{probe}");
    let lora = inspected("--method lora");
    assert_eq!((&lora["cut"], sites(&lora).len()), (&Value::Null, 4), "{lora}");
    assert!(lora["not_cut"].as_str().unwrap().contains("no fixed size for each example"), "{lora}");
    let half = inspected("--method lora --set method.layers_to_transform=[1]");
    assert_eq!(sites(&half).len(), 2, "{half}");
    // A and B of rank 8 at four modules of width 32; the head has a weight of 32 and a bias for each label: `inspect` shows
    // two, the data have three.
    assert_eq!(number(&lora, "trained_parameters"), 4.0 * 8.0 * 64.0 + 2.0 * 33.0);
    let run = house.lora("out", "").succeeded().err.clone();
    assert!(run.contains("4 sites match the default, [query, value]"), "{run}");
    assert!(run.contains("encoder.layer.{0,1}.attention.self.query"), "{run}");
    assert!(run.contains("2,147 parameters"), "{run}");
    assert!(run.contains("none, the base runs in every step"), "{run}");
    let run = house.run(&House::training("probe", "--method linear-probe")).succeeded().err.clone();
    assert!(run.contains("lies before it and is done once per example, 32 numbers"), "{run}");
}
