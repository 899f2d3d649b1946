//! A linear probe solved to its optimum, features kept between runs, and sweeps over them.

use graft_tests::fixture::House;
use serde_json::Value;

use super::number;

fn probe(out: &str, more: &str) -> String {
    House::training(out, &format!("--method linear-probe {more}"))
}

fn features(house: &House) -> Vec<std::path::PathBuf> {
    let list = std::fs::read_dir(house.path(".cache/graft/features")).into_iter().flatten();
    list.map(|e| e.unwrap().path()).collect()
}

#[test]
fn a_probe_is_solved_to_its_optimum_and_saved_as_it_was_judged() {
    let Some(house) = House::new() else { return };
    let ended = house.run(&probe("out", "--eval-data dev.csv --test-data test.csv"));
    let json = ended.json();
    let solver = &json["solver"];
    assert_eq!((&solver["folds"], &solver["converged"]), (&5.into(), &true.into()), "{json}");
    assert!(number(solver, "gradient") < 1e-6 && number(solver, "iterations") > 0.0, "{solver}");
    let grid = solver["grid"].as_array().unwrap();
    let loss = |p: &Value| number(p, "held_out_loss");
    let best = grid.iter().min_by(|a, b| loss(a).total_cmp(&loss(b))).unwrap();
    assert_eq!(best["l2"], solver["l2"]);
    assert!(ended.err.contains("chosen by 5-fold cross-validation"), "{}", ended.err);
    let eval = house.run("eval --base base --adapter out --data test.csv --threads 1 --json").json();
    assert_eq!(eval["accuracy"], json["accuracy"]);
    assert!((number(&eval, "loss") - number(&json, "loss")).abs() < 1e-6, "{eval} {json}");
    // No step leads further down: the loss that is stepped on is the loss that was solved, but for the penalty.
    let on = "--set method.solve=false --init-adapter out --epochs 1 --lr 1e-9 --optimizer sgd --batch-size 60 \
              --eval-data train.csv";
    house.run(&probe("on", on)).json();
    assert!((house.losses("on")[0] - number(solver, "loss")).abs() < 1e-5, "{solver}");
}

#[test]
fn weights_and_smoothing_are_solved_and_dropout_is_stepped() {
    let Some(house) = House::new() else { return };
    for (i, more) in [
        "--set objective.class_weights=[0.5,2.0,1.0]",
        "--set objective.label_smoothing=0.1 --set objective.pooling=cls",
        "--set objective.class_weights=balanced --set objective.label_smoothing=0.2 --set method.l2=0.01",
    ]
    .into_iter()
    .enumerate()
    {
        let json = house.run(&probe(&format!("out{i}"), more)).json();
        assert_eq!(json["solver"]["converged"], true, "{more}: {json}");
    }
    for (out, more, why) in [
        ("dropped", "--set objective.dropout=0.1", "declares no convex head"),
        ("stepped", "--set method.solve=false", ""),
    ] {
        let ended = house.run(&probe(out, more));
        let json = ended.json();
        assert!(json["solver"].is_null() && number(&json, "steps") > 0.0, "{more}: {json}");
        assert!(ended.err.contains(why), "{}", ended.err);
    }
    house.run(&probe("bad", "--set method.folds=1")).refused(&["`folds`"]);
    house.run(&probe("bad", "--set method.l2=-1")).refused(&["`l2`"]);
}

#[test]
fn a_second_run_reads_the_features_of_the_first_and_gives_the_same_bits() {
    let Some(house) = House::new() else { return };
    let more = "--eval-data dev.csv";
    let first = house.run(&probe("one", more)).json();
    assert_eq!(first["feature_cache"], serde_json::json!({ "read": 0, "written": 2 }));
    let again = house.run(&probe("two", more)).json();
    assert_eq!(again["feature_cache"], serde_json::json!({ "read": 2, "written": 0 }));
    assert_eq!(house.read("one/graft_head.safetensors"), house.read("two/graft_head.safetensors"));
    let off = house.run(&probe("off", &format!("{more} --feature-cache false"))).json();
    assert_eq!(off["feature_cache"], serde_json::json!({ "read": 0, "written": 0 }));
    assert_eq!(house.read("one/graft_head.safetensors"), house.read("off/graft_head.safetensors"));
    // Whatever changes the numbers, is computed anew.
    for (out, other) in [
        ("half", "--feature-precision f16"),
        ("pooled", "--set objective.pooling=cls"),
        ("short", "--max-length 4"),
    ] {
        let json = house.run(&probe(out, other)).json();
        assert_eq!(number(&json["feature_cache"], "read"), 0.0, "{other}");
    }
}

#[test]
fn damaged_features_are_computed_again() {
    let Some(house) = House::new() else { return };
    house.run(&probe("one", "")).json();
    let files = features(&house);
    assert_eq!(files.len(), 1);
    let mut bytes = std::fs::read(&files[0]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&files[0], &bytes).unwrap();
    let ended = house.run(&probe("two", ""));
    assert_eq!(ended.json()["feature_cache"], serde_json::json!({ "read": 0, "written": 1 }));
    assert!(ended.err.contains("damaged"), "{}", ended.err);
    assert_eq!(house.read("one/graft_head.safetensors"), house.read("two/graft_head.safetensors"));
    std::fs::write(house.path("none"), "a file, not a folder").unwrap();
    let mut command = house.command(&probe("three", ""));
    let ended = graft_tests::fixture::Ended::of(command.env("GRAFT_FEATURES", "none/where"));
    ended.json();
    assert!(ended.err.contains("are not kept"), "{}", ended.err);
}

#[test]
fn a_sweep_keeps_the_best_by_the_evaluation_and_goes_on_where_it_ended() {
    let Some(house) = House::new() else { return };
    let line = |more: &str| {
        let training = probe("swept", "--eval-data dev.csv --test-data test.csv");
        format!(
            "{} --set method.l2=100,0.001 --set seed=0,1 {more}",
            training.replacen("train ", "sweep ", 1)
        )
    };
    let json = house.run(&line("")).json();
    let done = json["table"]["done"].as_array().unwrap();
    assert_eq!(done.len(), 4, "{json}");
    let accuracy = |p: &Value| number(&p["evaluation"], "accuracy");
    let best = done.iter().find(|p| p["number"] == json["table"]["best"]).unwrap();
    assert!(done.iter().all(|p| accuracy(p) <= accuracy(best)), "{json}");
    assert_eq!(house.entries("swept"), ["best", "sweep.json", "sweep.md"]);
    let eval = house.run("eval --base base --adapter swept/best --data dev.csv --threads 1 --json").json();
    assert_eq!(number(&eval, "accuracy"), accuracy(best));
    let text = String::from_utf8(house.read("swept/sweep.md")).unwrap();
    assert_eq!(text.lines().count(), 6, "{text}");
    // As if it had been interrupted after the first point.
    house.run(&line("")).refused(&["--resume"]);
    let mut table: Value = serde_json::from_slice(&house.read("swept/sweep.json")).unwrap();
    let kept = table["best"].clone();
    table["done"].as_array_mut().unwrap().retain(|p| p["number"] == kept);
    house.write("swept/sweep.json", table.to_string());
    let again = house.run(&line("--resume")).json();
    assert_eq!(again["table"]["done"].as_array().unwrap().len(), 4);
    assert_eq!(again["table"]["best"], json["table"]["best"]);
    house.run(&line("--resume --set lr=0.5")).refused(&["another recipe"]);
}

#[test]
fn a_sweep_needs_evaluation_data_and_tells_of_points_that_fail() {
    let Some(house) = House::new() else { return };
    let sweep = |out: &str, more: &str| probe(out, more).replacen("train ", "sweep ", 1);
    house.run(&sweep("out", "--set method.l2=1,2 --test-data test.csv")).refused(&["--eval-data"]);
    house.run(&sweep("out", "--set lr=1,x --eval-data dev.csv")).refused(&["`lr`"]);
    let json = house.run(&sweep("out", "--set method.folds=1,3 --eval-data dev.csv")).json();
    assert!(json["table"]["done"][0]["error"].as_str().unwrap().contains("`folds`"), "{json}");
    assert_eq!(json["table"]["best"], 2);
    house.run(&sweep("none", "--set method.folds=0,1 --eval-data dev.csv")).refused(&["no point"]);
}
