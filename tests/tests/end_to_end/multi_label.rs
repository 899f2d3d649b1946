//! Rows with any number of labels.

use graft_tests::fixture::House;
use serde_json::Value;

use super::{ends, number, relative, slopes};

const TRAIN: &str = "train --base base --objective classification --set objective.multi_label=true --method lora --threads \
                     1 --json --batch-size 8 --patience 0 --data tags.csv --text text --label tags";

/// Sentences of up to three key words and a label for each kind of them; some have none.
fn house() -> Option<House> {
    let house = House::new()?;
    let words = [("owl", "bird"), ("apple", "fruit"), ("saw", "tool")];
    let mut table = String::from("text,tags\n");
    for i in 0..64usize {
        let there: Vec<usize> = (0..3).filter(|k| (i >> k) & 1 == 1).collect();
        let text: Vec<&str> = there.iter().map(|k| words[*k].0).collect();
        let tags: Vec<&str> = there.iter().map(|k| words[*k].1).collect();
        let frame = ["the", "my old", "a small", "here is the"][(i / 8) % 4];
        table.push_str(&format!("{frame} table {},{}\n", text.join(" and "), tags.join("; ")));
    }
    house.write("tags.csv", table);
    Some(house)
}

#[test]
fn several_labels_are_learnt_and_their_thresholds_tuned() {
    let Some(house) = house() else { return };
    let json = house
        .run(&format!("{TRAIN} --lr 0.02 --epochs 12 --eval-data tags.csv --test-data tags.csv --out out"))
        .json();
    let (first, last) = ends(&house, "out");
    assert!(last < 0.5 * first, "from {first} to {last}");
    assert!(
        number(&json["evaluation"], "micro_f1") > 0.9 && number(&json["evaluation"], "macro_f1") > 0.9,
        "{json}"
    );
    let graft: Value = serde_json::from_slice(&house.read("out/graft.json")).unwrap();
    let thresholds = graft["objective"]["config"]["thresholds"].as_array().unwrap();
    assert!(thresholds.len() == 3 && thresholds.iter().all(Value::is_number), "{graft}");
    assert_eq!(graft["objective"]["labels"], serde_json::json!(["bird", "fruit", "tool"]));
    // What is reported is what the stored adapter does, on evaluation and test data alike.
    let eval = house.run("eval --base base --adapter out --data tags.csv --threads 1 --json").json();
    for metric in ["micro_f1", "macro_f1", "exact_match"] {
        assert_eq!(number(&eval, metric), number(&json["evaluation"], metric), "{metric}");
        assert_eq!(number(&eval, metric), number(&json, metric), "{metric}");
    }
    let answers = house.run("predict --base base --adapter out --data tags.csv --threads 1 --json").json();
    for row in answers["rows"].as_array().unwrap() {
        let answer = &row["answers"]["out"];
        let over: Vec<&Value> = graft["objective"]["labels"]
            .as_array()
            .unwrap()
            .iter()
            .zip(thresholds)
            .filter(|(l, t)| number(&answer["probabilities"], l.as_str().unwrap()) >= t.as_f64().unwrap())
            .map(|(l, _)| l)
            .collect();
        assert_eq!(answer["labels"].as_array().unwrap().iter().collect::<Vec<_>>(), over, "{row}");
    }
    let mut command = house.command("predict --base base --adapter out --threads 1");
    command.arg("the old table owl and saw");
    let plain = graft_tests::fixture::Ended::of(&mut command);
    assert!(plain.succeeded().out.contains("bird ") && plain.out.contains("tool "), "{}", plain.out);
}

#[test]
fn the_loss_is_the_binary_cross_entropy_of_the_answers() {
    let Some(house) = house() else { return };
    house.run(&format!("{TRAIN} --lr 1e-12 --epochs 1 --out out")).succeeded();
    let answers = house.run("predict --base base --adapter out --data tags.csv --threads 1 --json").json();
    let table = String::from_utf8(house.read("tags.csv")).unwrap();
    let mut sum = 0.0;
    for (line, row) in table.lines().skip(1).zip(answers["rows"].as_array().unwrap()) {
        let tags: Vec<&str> = line.rsplit_once(',').unwrap().1.split(';').map(str::trim).collect();
        for label in ["bird", "fruit", "tool"] {
            let p = number(&row["answers"]["out"]["probabilities"], label);
            sum -= if tags.contains(&label) { p.ln() } else { (1.0 - p).ln() };
        }
    }
    // Eight batches of eight.
    let losses = house.losses("out");
    let mean = losses.iter().sum::<f64>() / losses.len() as f64;
    assert!(relative(&[sum / (64.0 * 3.0)], &[mean]) < 1e-5, "{sum} {losses:?}");
}

#[test]
fn the_loss_falls_as_its_gradient_says() {
    let Some(house) = house() else { return };
    slopes::check(&house, "binary", &TRAIN.replace("--batch-size 8 --patience 0", "--batch-size 64"));
}

#[test]
fn given_thresholds_stay_and_settings_for_one_label_are_refused() {
    let Some(house) = house() else { return };
    let line = format!("{TRAIN} --lr 0.02 --epochs 1 --eval-split 0.25");
    house.run(&format!("{line} --out given --set objective.thresholds=[0.2,0.4,0.6]")).succeeded();
    let graft: Value = serde_json::from_slice(&house.read("given/graft.json")).unwrap();
    assert_eq!(graft["objective"]["config"]["thresholds"], serde_json::json!([0.2, 0.4, 0.6]));
    house
        .run(&format!("{line} --out no --set objective.label_smoothing=0.1"))
        .refused(&["label_smoothing", "multi_label"]);
    house
        .run(&format!("{line} --out no --set objective.thresholds=[0.2]"))
        .refused(&["thresholds", "3 labels"]);
    house.write("other.csv", "text,tags\nan owl,bird\na crow,brid\n");
    let other = line.replace("--eval-split 0.25", "--eval-data other.csv");
    house.run(&format!("{other} --out no")).refused(&["other.csv", "`brid`", "`bird`"]);
}
