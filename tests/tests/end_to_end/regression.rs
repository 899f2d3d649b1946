//! Numbers instead of labels.

use graft_tests::fixture::{Ended, House};
use graft_tests::fixture_images;
use serde_json::Value;

use super::{ends, number, relative, slopes};

/// Loss and answers come out of sums in another order.
const CLOSE: f64 = 1e-4;

const TRAIN: &str = "train --base base --objective regression --threads 1 --json --batch-size 8 --patience 0";

/// The sentences of the fixture and a number for each: 1000, 40 more for each label, and one for each letter.
fn numbers(house: &House, file: &str) -> Vec<(String, f64)> {
    let table = String::from_utf8(house.read(file)).unwrap();
    let row = |line: &str| {
        let (text, label) = line.rsplit_once(',').unwrap();
        let kind = ["bird", "fruit", "tool"].iter().position(|l| *l == label).unwrap();
        (text.to_string(), 1000.0 + 40.0 * kind as f64 + text.len() as f64)
    };
    table.lines().skip(1).map(row).collect()
}

fn house() -> Option<House> {
    let house = House::new()?;
    for name in ["train", "dev"] {
        let mut table = String::from("sentence,weight,half\n");
        for (text, n) in numbers(&house, &format!("{name}.csv")) {
            table.push_str(&format!("{text},{n},{}\n", -n / 2.0));
        }
        house.write(&format!("{name}_numbers.csv"), table);
    }
    Some(house)
}

fn train(house: &House, out: &str, more: &str) -> Ended {
    let columns = if more.contains("objective.targets") { "" } else { "--target weight" };
    let rate = if more.contains("--lr") { "" } else { "--lr 0.02" };
    house
        .run(&format!("{TRAIN} {rate} --data train_numbers.csv --text sentence {columns} --out {out} {more}"))
}

/// What the adapter answers to the training rows.
fn answers(house: &House, adapter: &str) -> Vec<Value> {
    let line = format!("predict --base base --adapter {adapter} --data train_numbers.csv --threads 1 --json");
    let json = house.run(&line).json();
    let answer = |r: &Value| r["answers"][adapter].clone();
    json["rows"].as_array().unwrap().iter().map(answer).collect()
}

#[test]
fn a_lora_learns_numbers_in_their_own_units() {
    let Some(house) = house() else { return };
    let json = train(
        &house,
        "out",
        "--method lora --epochs 12 --eval-data train_numbers.csv --test-data dev_numbers.csv",
    )
    .json();
    let (first, last) = ends(&house, "out");
    assert!(last < 0.3 * first, "from {first} to {last}");
    assert!(number(&json["evaluation"], "pearson") > 0.9, "{json}");
    // The deviation of the numbers is about 33.
    assert!(number(&json["evaluation"], "rmse") < 15.0 && number(&json, "rmse") < 33.0, "{json}");
    let wanted: Vec<f64> = numbers(&house, "train.csv").into_iter().map(|(_, n)| n).collect();
    let given: Vec<f64> = answers(&house, "out").iter().map(|a| number(a, "value")).collect();
    let squares = given.iter().zip(&wanted).map(|(a, b)| (a - b).powi(2));
    let rmse = (squares.sum::<f64>() / wanted.len() as f64).sqrt();
    assert!((rmse - number(&json["evaluation"], "rmse")).abs() < CLOSE * rmse, "{rmse} {json}");
    let eval = house.run("eval --base base --adapter out --data train_numbers.csv --threads 1 --json").json();
    for metric in ["rmse", "mae", "pearson", "spearman", "loss"] {
        let (a, b) = (number(&eval, metric), number(&json["evaluation"], metric));
        assert!((a - b).abs() < CLOSE * b.abs(), "{metric}: {a} {b}");
    }
    let graft: Value = serde_json::from_slice(&house.read("out/graft.json")).unwrap();
    let mean = wanted.iter().sum::<f64>() / wanted.len() as f64;
    assert!((graft["objective"]["config"]["mean"][0].as_f64().unwrap() - mean).abs() < 1e-9, "{graft}");
    assert!(graft["head"]["not_stock"].as_str().unwrap().contains("standardised"), "{}", graft["head"]);
}

#[test]
fn the_loss_is_that_of_the_answers() {
    let Some(house) = house() else { return };
    let all: Vec<f64> = numbers(&house, "train.csv").into_iter().map(|(_, n)| n).collect();
    let mean = all.iter().sum::<f64>() / all.len() as f64;
    let deviation = (all.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / all.len() as f64).sqrt();
    let wanted: Vec<f64> = all.iter().map(|x| (x - mean) / deviation).collect();
    let huber = |e: f64| if e.abs() <= 0.5 { e * e / 2.0 } else { 0.5 * (e.abs() - 0.25) };
    for (name, more) in [("mse", ""), ("huber", "--set objective.loss=huber --set objective.huber_delta=0.5")]
    {
        let loss = |e: f64| if name == "mse" { e * e } else { huber(e) };
        // Steps that change nothing: the answers are those that the losses were taken of.
        train(&house, name, &format!("--method lora --epochs 1 --lr 1e-12 {more}")).succeeded();
        let given = answers(&house, name).into_iter().map(|a| (number(&a, "value") - mean) / deviation);
        let own = given.zip(&wanted).map(|(a, t)| loss(a - t)).sum::<f64>() / wanted.len() as f64;
        // Seven batches of eight and one of four.
        let steps = house.metrics(name, "step");
        let sum: f64 = steps.iter().map(|s| number(s, "loss") * number(s, "samples")).sum();
        assert!(relative(&[own], &[sum / 60.0]) < CLOSE, "{name}: {own} {}", sum / 60.0);
    }
}

#[test]
fn losses_fall_as_their_gradients_say() {
    let Some(house) = house() else { return };
    let line = TRAIN
        .replace("--batch-size 8 --patience 0", "--batch-size 64 --method lora --data train_numbers.csv");
    let line = format!("{line} --text sentence --target weight");
    slopes::check(&house, "mse", &line);
    let huber = "--set objective.loss=huber --set objective.huber_delta=0.5";
    slopes::check(&house, "huber", &format!("{line} {huber}"));
}

#[test]
fn several_numbers_a_row_each_have_their_metrics() {
    let Some(house) = house() else { return };
    let more = "--method lora --epochs 12 --eval-data train_numbers.csv --set objective.targets=[\"weight\",\"half\"]";
    let json = train(&house, "out", more).json();
    assert!(number(&json["evaluation"], "pearson") > 0.9, "{json}");
    let answer = &answers(&house, "out")[0]["values"];
    let (weight, half) = (number(answer, "weight"), number(answer, "half"));
    assert!((weight - 1020.0).abs() < 80.0 && (half + 510.0).abs() < 40.0, "{answer}");
    assert!(
        number(&json["evaluation"], "rmse/half") < 0.7 * number(&json["evaluation"], "rmse/weight"),
        "{json}"
    );
    let plain = house.run("predict --base base --adapter out owl");
    assert!(plain.succeeded().out.contains("weight 1") && plain.out.contains(", half -"), "{}", plain.out);
}

#[test]
fn a_head_alone_is_trained_on_kept_features() {
    let Some(house) = house() else { return };
    let json = train(&house, "out", "--method linear-probe --epochs 60 --eval-data train_numbers.csv").json();
    assert_eq!((&json["cached_features"], &json["trainable_parameters"]), (&true.into(), &33.into()));
    assert!(number(&json["evaluation"], "pearson") > 0.7, "{json}");
    let eval = house.run("eval --base base --adapter out --data train_numbers.csv --threads 1 --json").json();
    assert!(relative(&[number(&eval, "rmse")], &[number(&json["evaluation"], "rmse")]) < CLOSE);
}

#[test]
fn numbers_of_images() {
    let Some(house) = House::new() else { return };
    fixture_images::base(&house.path("pictures"));
    fixture_images::pictures(&house.path("train"), 1, 16);
    let mut table = String::from("file,wavelength\n");
    for (class, i) in (0..16).flat_map(|i| fixture_images::CLASSES.map(|c| (c, i))) {
        let wavelength = [450, 540, 650][fixture_images::CLASSES.iter().position(|c| *c == class).unwrap()];
        table.push_str(&format!("train/{class}/{i:03}.png,{wavelength}\n"));
    }
    house.write("pictures.csv", table);
    let line = "train --base pictures --objective regression --data pictures.csv --image file --target wavelength \
                --eval-data pictures.csv --out out --method linear-probe --epochs 40 --lr 0.05 --patience 0 --threads 1 \
                --set objective.pooling=pooled --json";
    let json = house.run(line).json();
    assert!(number(&json["evaluation"], "pearson") > 0.7, "{json}");
    let answer = house.run("predict --base pictures --adapter out --json train/red/000.png").json();
    assert!((400.0..700.0).contains(&number(&answer["rows"][0]["answers"]["out"], "value")), "{answer}");
}

#[test]
fn a_head_in_the_datas_own_units_is_one_that_peft_has() {
    let Some(house) = house() else { return };
    let line = "--method lora --epochs 1 --set objective.standardise=false --set objective.pooling=pooled";
    train(&house, "out", line).succeeded();
    let graft: Value = serde_json::from_slice(&house.read("out/graft.json")).unwrap();
    assert!(graft["head"]["not_stock"].is_null(), "{}", graft["head"]);
    let answer = || {
        let json = house.run("predict --base base --adapter out --threads 1 --json owl").json();
        number(&json["rows"][0]["answers"]["out"], "value")
    };
    let with = answer();
    // What is left is what PEFT keeps of a model with a single label.
    std::fs::remove_file(house.path("out/graft.json")).unwrap();
    assert!(relative(&[with], &[answer()]) < CLOSE, "{with} {}", answer());
}

#[test]
fn what_is_no_number_is_told_with_its_line() {
    let Some(house) = house() else { return };
    house.write("bad.csv", "sentence,weight\nthe owl,3\nthe axe,heavy\n");
    let line = format!("{TRAIN} --method lora --text sentence --target weight --out out --data");
    house.run(&format!("{line} bad.csv")).refused(&["bad.csv:3", "heavy", "weight"]);
    house.write("bad.csv", "sentence,weight\nthe owl,3\nthe axe,inf\n");
    house.run(&format!("{line} bad.csv")).refused(&["bad.csv:3", "inf"]);
    house.write("bad.csv", "sentence,mass\nthe owl,3\n");
    house.run(&format!("{line} bad.csv")).refused(&["weight", "mass"]);
    let line = format!("{line} train_numbers.csv --set objective.targets=[\"text\"]");
    house.run(&line).refused(&["targets", "`text`"]);
    assert!(!house.path("out").exists());
}
