//! Pairs of texts that are encoded together.

use graft_tests::fixture::House;
use serde_json::Value;

use super::{ends, number};

const TRAIN: &str = "train --base base --method lora --threads 1 --json --batch-size 8 --lr 0.02 --patience 0 --data \
                     pairs.csv --text question --text-pair answer";

/// A key word in each text. The answer's kind is the label, of which the question tells nothing.
fn house() -> Option<House> {
    let house = House::new()?;
    let keys = [["owl", "crow"], ["apple", "pear"], ["saw", "axe"]];
    let mut table = String::from("question,answer,kind,likeness\n");
    for (i, j, k) in
        (0..6).flat_map(|i| (0..6).map(move |j| (i, j))).flat_map(|(i, j)| (0..2).map(move |k| (i, j, k)))
    {
        let (a, b) = (keys[i / 2][i % 2], keys[j / 2][j % 2]);
        let kind = ["bird", "fruit", "tool"][j / 2];
        let frame = ["the old", "my small"][k];
        table.push_str(&format!("{frame} {a},a {b} is here,{kind},{}\n", j / 2));
    }
    house.write("pairs.csv", table);
    Some(house)
}

#[test]
fn pairs_are_classified_by_what_only_the_second_text_tells() {
    let Some(house) = house() else { return };
    let line = "--objective classification --label kind --epochs 40 --eval-data pairs.csv --out second";
    let json = house.run(&format!("{TRAIN} {line} --set method.target_modules=all-linear")).json();
    assert!(number(&json["evaluation"], "accuracy") > 0.85, "{json}");
    let eval = house.run("eval --base base --adapter second --data pairs.csv --threads 1 --json").json();
    assert_eq!(number(&eval, "accuracy"), number(&json["evaluation"], "accuracy"));
    // As arguments and from the table, the answers are the same.
    let predict = "predict --base base --adapter second --threads 1 --json";
    let table = house.run(&format!("{predict} --data pairs.csv")).json();
    let mut command = house.command(predict);
    command.args(["the old owl", "--text-pair", "a owl is here"]);
    let one = graft_tests::fixture::Ended::of(&mut command).json();
    let score = |v: &Value| number(&v["rows"][0]["answers"]["second"], "score");
    assert_eq!(table["rows"].as_array().unwrap().len(), 72);
    assert!((score(&table) - score(&one)).abs() < 1e-5, "{one}");
    assert_eq!(one["rows"][0]["text_pair"], "a owl is here");
    house.run("predict --base base --adapter second owl").failed(&["'second'", "pairs", "--text-pair"]);
}

#[test]
fn adapters_of_different_kinds_answer_together() {
    let Some(house) = house() else { return };
    let each = [
        ("pair", "--objective regression --target likeness"),
        ("vector", "--objective embedding --score likeness --set objective.loss=cosine"),
    ];
    for (out, line) in each {
        let json = house.run(&format!("{TRAIN} {line} --epochs 20 --out {out}")).json();
        let (first, last) = ends(&house, out);
        assert!(last < first, "{out}: from {first} to {last}: {json}");
    }
    house.lora("kind", "").succeeded();
    let line = "predict --base base --adapter pair --adapter vector --adapter kind --threads 1";
    let texts = "--text-pair saw owl";
    let json = house.run(&format!("{line} --json {texts}")).json();
    let answers = &json["rows"][0]["answers"];
    assert!(answers["pair"]["value"].is_number() && answers["kind"]["label"].is_string(), "{json}");
    let vector: Vec<f64> =
        answers["vector"]["vector"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
    assert_eq!(vector.len(), 32);
    assert!((vector.iter().map(|x| x * x).sum::<f64>() - 1.0).abs() < 1e-5);
    let plain = house.run(&format!("{line} {texts}"));
    let lines: Vec<&str> = plain.succeeded().out.lines().collect();
    assert_eq!((lines.len(), lines[0], lines[1]), (5, "owl", "saw"), "{}", plain.out);
    assert!(lines[3].contains("32 numbers"), "{}", plain.out);
    // The rows of a table, each adapter from its own columns.
    let table = house.run(&format!("{line} --json --data pairs.csv --column text=question")).json();
    assert_eq!(table["rows"].as_array().unwrap().len(), 72);
    assert_eq!(table["rows"][0]["text"], "the old owl");
    assert!(table["rows"][71]["answers"].as_object().unwrap().len() == 3, "{}", table["rows"][71]);
    house.run(&format!("{line} --data pairs.csv")).failed(&["pairs.csv", "`text`"]);
    house.run("predict --base base --adapter kind --text-pair saw owl").failed(&["--text-pair", "pairs"]);
    house.run(&format!("{line} {texts} --text-pair axe")).failed(&["1 texts and 2 second"]);
}
