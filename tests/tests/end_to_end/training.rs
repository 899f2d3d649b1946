//! What training reports, writes and keeps.

use graft_tests::fixture::House;

use super::{ends, mean, number};

#[test]
fn a_lora_learns_the_task() {
    let Some(house) = House::new() else { return };
    let json = house.lora("out", "--eval-data train.csv --test-data test.csv").json();
    let (first, last) = ends(&house, "out");
    assert!(last < 0.3 * first, "from {first} to {last}");
    assert!(number(&json["evaluation"], "accuracy") > 0.9, "{json}");
    assert!(number(&json, "accuracy") > 0.6, "no better than chance on new rows: {json}");
}

#[test]
fn the_json_has_every_key_and_is_all_of_stdout() {
    let Some(house) = House::new() else { return };
    let ended = house.lora("out", "--test-data test.csv --eval-data dev.csv");
    let json = ended.json();
    assert_eq!(ended.out.lines().count(), 1, "{}", ended.out);
    let positive = [
        "accuracy",
        "loss",
        "macro_f1",
        "train_seconds",
        "samples_per_second",
        "steps",
        "peak_rss_mb",
        "epochs",
    ];
    for key in positive {
        assert!(number(&json, key) > 0.0, "{key}: {json}");
    }
    // Query and value in two layers, rank 8, 32 wide; a head for three labels.
    assert_eq!(number(&json, "trainable_parameters") as usize, 2 * 2 * 8 * (32 + 32) + 3 * 32 + 3);
    assert_eq!((&json["cached_features"], &json["ended"]), (&false.into(), &"complete".into()));
    assert_eq!(number(&json, "steps") as usize, house.metrics("out", "step").len());
    assert!(ended.err.contains("4 sites match") && ended.err.contains("saved out"), "{}", ended.err);
}

#[test]
fn an_adapter_holds_its_recipe_its_metrics_and_an_event_file() {
    let Some(house) = House::new() else { return };
    house.lora("out", "--eval-data dev.csv").succeeded();
    let entries = house.entries("out");
    let (events, others): (Vec<_>, Vec<_>) =
        entries.iter().partition(|n| n.starts_with("events.out.tfevents."));
    assert_eq!(
        others,
        [
            "adapter_config.json",
            "adapter_model.safetensors",
            "graft.json",
            "graft_head.safetensors",
            "metrics.jsonl",
            "recipe.toml"
        ]
    );
    assert_eq!(events.len(), 1);
    assert!(house.read(&format!("out/{}", events[0])).len() > 1000, "the losses are in it");
    let steps = house.metrics("out", "step");
    assert!(steps.iter().all(|s| ["loss", "lr", "grad_norm", "seconds"].iter().all(|k| s[k].is_number())));
    let epochs = house.metrics("out", "epoch");
    assert_eq!((epochs.len(), house.metrics("out", "finish").len()), (6, 1));
    assert!(epochs.iter().all(|e| e.to_string().contains("accuracy")), "{}", epochs[0]);
    let graft: serde_json::Value = serde_json::from_slice(&house.read("out/graft.json")).unwrap();
    assert_eq!((&graft["format"], &graft["method"]["id"]), (&1.into(), &"lora".into()));
    assert_eq!(graft["objective"]["labels"], serde_json::json!(["bird", "fruit", "tool"]));
    let data = &graft["training"]["data"];
    assert_eq!(
        (&data[0]["role"], &data[0]["rows"], &data[1]["role"]),
        (&"train".into(), &60.into(), &"eval".into())
    );
    assert!(graft["training"]["onnxruntime"].is_string() && graft["training"]["threads"] == 1, "{graft}");
}

#[test]
fn a_split_selects_the_best_epoch_and_test_data_only_report() {
    let Some(house) = House::new() else { return };
    let with = house.lora("with", "--eval-split 0.25 --test-data test.csv --patience 0").json();
    let without = house.lora("without", "--eval-split 0.25 --patience 0").json();
    let tensors = |a: &str| house.read(&format!("{a}/adapter_model.safetensors"));
    assert!(tensors("with") == tensors("without"), "test data change the adapter");
    assert_eq!(with["evaluation"], without["evaluation"]);
    assert_eq!(with["kept_epoch"], without["kept_epoch"]);
    // 45 rows are left to train on: 6 batches of 8 in each of 6 epochs.
    assert_eq!(number(&with, "steps"), 36.0);
    let epochs = house.metrics("with", "epoch");
    let scores: Vec<f64> = epochs.iter().map(|e| number(&e["evaluation"], "accuracy")).collect();
    let best = scores.iter().fold(0f64, |m, s| m.max(*s));
    let kept = number(&with, "kept_epoch") as usize;
    assert_eq!((scores[kept - 1], number(&with["evaluation"], "accuracy")), (best, best), "{scores:?}");
}

#[test]
fn without_evaluation_data_the_last_epoch_is_kept() {
    let Some(house) = House::new() else { return };
    let json = house.lora("out", "").json();
    assert!(json["kept_epoch"].is_null() && json.get("accuracy").is_none(), "{json}");
    let again = house.lora("best", "--eval-data train.csv --patience 0").json();
    let last = number(&again, "kept_epoch") == 6.0;
    let tensors = |a: &str| house.read(&format!("{a}/adapter_model.safetensors"));
    assert_eq!(tensors("out") == tensors("best"), last);
}

#[test]
fn training_stops_early_when_the_evaluation_no_longer_improves() {
    let Some(house) = House::new() else { return };
    // A learning rate that changes no prediction: the first epoch stays the best.
    let line = "--method lora --epochs 9 --lr 1e-12 --patience 2 --eval-data dev.csv";
    let json = house.run(&House::training("out", line)).json();
    assert_eq!(
        (&json["ended"], &json["epochs"], &json["kept_epoch"]),
        (&"early".into(), &3.into(), &1.into())
    );
}

#[test]
fn a_linear_probe_trains_on_features_that_are_computed_once() {
    let Some(house) = House::new() else { return };
    let line = "--method linear-probe --set method.solve=false --epochs 40 --batch-size 8 --lr 0.05 --eval-data train.csv --patience 0";
    let json = house.run(&House::training("probe", line)).json();
    assert_eq!((&json["cached_features"], &json["trainable_parameters"]), (&true.into(), &99.into()));
    let losses = house.losses("probe");
    assert!(mean(&losses[losses.len() - 8..]) < 0.5 * mean(&losses[..8]), "{losses:?}");
    assert!(number(&json["evaluation"], "accuracy") > 0.9, "{json}");
    // Another way to the same figures: the stored head over the whole base.
    let eval = house.run("eval --base base --adapter probe --data train.csv --threads 1 --json").json();
    assert_eq!(number(&eval, "accuracy"), number(&json["evaluation"], "accuracy"));
    assert!((number(&eval, "loss") - number(&json["evaluation"], "loss")).abs() < 1e-5);
    assert!(!house.path("probe/adapter_config.json").exists(), "PEFT has no place for a head alone");
}
