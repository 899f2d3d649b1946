//! `graft plugins new`: the crate that it writes builds outside of the workspace, passes its tests, and can be trained with
//! when nothing but its library lies in a folder.

use graft_tests::fixture::House;
use graft_tests::outside::{made, numbers, today};

#[test]
fn a_new_method_is_built_outside_of_the_workspace_and_trained_with() {
    let Some(house) = House::new() else { return };
    made(&house, "first-scale", "method", &today(), None);
    let line =
        "--method first-scale --plugin-dir plugins --epochs 4 --batch-size 8 --lr 0.02 --eval-data train.csv";
    let json = house.run(&House::training("out", line)).json();
    // A scale for each of the 32 outputs of query and value in two layers, and the head.
    assert_eq!(json["trainable_parameters"], 4 * 32 + 3 * 32 + 3);
    let eval = "eval --base base --adapter out --data train.csv --plugin-dir plugins --threads 1 --json";
    assert_eq!(house.run(eval).json()["accuracy"], json["evaluation"]["accuracy"]);
    let scales = house.tensors("out/graft_parameters.safetensors");
    assert_eq!(scales.len(), 4);
    assert!(
        scales.values().all(|t| t.values::<f32>().unwrap().iter().any(|v| *v != 1.0)),
        "nothing was learnt"
    );
}

#[test]
fn the_lora_of_the_manual_learns_what_the_one_of_this_repository_does() {
    let Some(house) = House::new() else { return };
    let manual = include_str!("../../docs/plugins.md");
    let source = manual.split("```rust\n").nth(1).and_then(|s| s.split("```").next()).unwrap();
    made(&house, "my-lora", "method", &today(), Some(source));
    let common = "--epochs 4 --batch-size 8 --lr 0.02 --seed 3 --set method.r=4";
    let mine = format!("--method my-lora --plugin-dir plugins {common}");
    house.run(&House::training("mine", &mine)).succeeded();
    house.run(&House::training("ours", &format!("--method lora {common}"))).succeeded();
    assert_eq!(house.losses("mine"), house.losses("ours"));
}

#[test]
fn a_new_objective_is_built_outside_of_the_workspace_and_trained_with() {
    let Some(house) = House::new() else { return };
    made(&house, "first-number", "objective", &today(), None);
    numbers(&house);
    let line = "train --base base --objective first-number --method lora --data numbers.csv --eval-data numbers.csv \
                --out out --plugin-dir plugins --epochs 12 --batch-size 8 --lr 0.02 --threads 1 --json";
    let json = house.run(line).json();
    // The variance of the numbers is what the best constant leaves.
    let loss = json["evaluation"]["loss"].as_f64().unwrap();
    assert!(loss < 0.25 * 2.7, "{json}");
    let answers = house.run("predict --base base --adapter out --plugin-dir plugins --json owl saw").json();
    let number = |row: usize| answers["rows"][row]["answers"]["out"].as_f64().unwrap();
    assert!(number(0) > 1.0 && number(1) < 0.5, "{answers}");
}

#[test]
fn names_and_places_that_will_not_do_are_refused() {
    let Some(house) = House::new() else { return };
    house.run("plugins new My_Method --kind method").refused(&["`My_Method`", "lower-case"]);
    house.run("plugins new base --kind method").refused(&["base exists already"]);
    house.run("plugins new good --kind method --api nowhere").refused(&["--api nowhere", "Cargo.toml"]);
    assert!(!house.path("good").exists());
}
