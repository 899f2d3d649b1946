//! Settings of the method, the objective and the optimiser, each through a whole run.

use graft_tests::fixture::House;

use super::{ends, number};

/// Metrics of an adapter on the training rows, as `graft eval` gives them.
fn evaluated(house: &House, adapter: &str) -> serde_json::Value {
    house.run(&format!("eval --base base --adapter {adapter} --data train.csv --threads 1 --json")).json()
}

/// Trains, and asserts that the loss falls and that the stored adapter is as good as training said.
fn learns(house: &House, out: &str, more: &str) -> serde_json::Value {
    let json = house.lora(out, &format!("--eval-data train.csv {more}")).json();
    let (first, last) = ends(house, out);
    assert!(last < 0.8 * first, "{more}: from {first} to {last}");
    let eval = evaluated(house, out);
    assert_eq!(number(&eval, "accuracy"), number(&json["evaluation"], "accuracy"), "{more}");
    assert!(
        (number(&eval, "loss") - number(&json["evaluation"], "loss")).abs() < 1e-6,
        "{more}: {eval} {json}"
    );
    json
}

#[test]
fn every_pooling_learns() {
    let Some(house) = House::new() else { return };
    for pooling in ["mean", "cls", "last", "pooled"] {
        learns(&house, pooling, &format!("--set objective.pooling={pooling}"));
        let graft: serde_json::Value =
            serde_json::from_slice(&house.read(&format!("{pooling}/graft.json"))).unwrap();
        // Stock PEFT can rebuild the head over the base's own pooler only.
        assert_eq!(graft["head"]["not_stock"].is_null(), pooling == "pooled", "{}", graft["head"]);
    }
}

#[test]
fn every_linear_site_with_rank_stabilised_scaling_learns() {
    let Some(house) = House::new() else { return };
    let json = learns(
        &house,
        "out",
        "--set method.target_modules=all-linear --set method.use_rslora=true --set method.alpha=4",
    );
    // Six linear layers in each of two, and the pooler, which mean pooling leaves untrained.
    let layer = 4 * 8 * (32 + 32) + 2 * 8 * (32 + 64);
    assert_eq!(number(&json, "trainable_parameters") as usize, 2 * layer + 99);
}

#[test]
fn biases_are_trained_kept_and_loaded() {
    let Some(house) = House::new() else { return };
    for (bias, trained) in [("all", true), ("lora_only", true), ("none", false)] {
        learns(&house, bias, &format!("--set method.bias={bias}"));
        let tensors = house.tensors(&format!("{bias}/adapter_model.safetensors"));
        let of_base = |n: &&String| n.ends_with(".bias") && !n.contains("classifier");
        let count = tensors.keys().filter(of_base).count();
        assert_eq!(count > 0, trained, "{bias}: {:?}", tensors.keys());
        let query = tensors.iter().find(|(n, _)| n.contains("layer.1") && n.ends_with("query.bias"));
        let first = house.tensors("checkpoint/model.safetensors");
        if let Some((_, bias)) = query {
            assert_ne!(*bias, first["encoder.layer.1.attention.self.query.bias"], "it was not trained");
        }
    }
}

#[test]
fn dropout_makes_training_noisy_and_leaves_evaluation_alone() {
    let Some(house) = House::new() else { return };
    house.lora("plain", "").succeeded();
    learns(&house, "noisy", "--set method.dropout=0.2 --set objective.dropout=0.2");
    assert_ne!(house.losses("plain")[0], house.losses("noisy")[0]);
    let metrics = || evaluated(&house, "noisy")["adapters"].clone();
    assert_eq!(metrics(), metrics());
}

#[test]
fn class_weights_and_label_smoothing_learn() {
    let Some(house) = House::new() else { return };
    house.lora("plain", "").succeeded();
    learns(&house, "smooth", "--set objective.label_smoothing=0.1");
    // The rows are balanced, so that balanced weights change nothing, and others do.
    learns(&house, "balanced", "--set objective.class_weights=balanced");
    learns(&house, "given", "--set objective.class_weights=[1.0,2.0,0.5]");
    let first = |a: &str| house.losses(a)[0];
    assert!((first("plain") - first("balanced")).abs() < 1e-6);
    assert!(
        (first("plain") - first("smooth")).abs() > 1e-6 && (first("plain") - first("given")).abs() > 1e-6
    );
}

#[test]
fn sgd_and_every_schedule_train() {
    let Some(house) = House::new() else { return };
    for schedule in ["linear", "cosine", "constant"] {
        let line = format!("--method lora --epochs 4 --batch-size 8 --schedule {schedule} --warmup-steps 4");
        let sgd = "--optimizer sgd --momentum 0.9 --nesterov true --lr 0.1 --clip-norm 1";
        house.run(&House::training(schedule, &format!("{line} {sgd}"))).succeeded();
        let (first, last) = ends(&house, schedule);
        assert!(last < first, "{schedule}: from {first} to {last}");
        let rates: Vec<f64> = house.metrics(schedule, "step").iter().map(|s| number(s, "lr")).collect();
        assert_eq!((rates.len(), rates[0], rates[4]), (32, 0.0, 0.1), "{schedule}: {rates:?}");
        match schedule {
            "constant" => assert_eq!(rates[31], 0.1),
            _ => assert!(rates[31] < 0.02 && rates.windows(2).skip(4).all(|w| w[1] < w[0]), "{rates:?}"),
        }
    }
    assert_ne!(house.metrics("linear", "step")[20]["lr"], house.metrics("cosine", "step")[20]["lr"]);
}

#[test]
fn batches_in_random_order_train_as_well() {
    let Some(house) = House::new() else { return };
    learns(&house, "out", "--group-by-length false");
}
