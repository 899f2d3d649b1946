//! Token classification: data of both kinds, evaluation, answers with their places in the text.

use graft_tests::fixture::House;
use serde_json::{Value, json};

use super::number;

const BIRDS: [&str; 4] = ["owl", "crow", "finch", "swan"];
const TOOLS: [&str; 4] = ["saw", "axe", "drill", "hammer"];
const OTHERS: [&str; 6] = ["the", "my", "old", "table", "is", "here"];

/// Sentences of words with their tags: a bird, and two tools in a row, between words that are neither.
fn sentences(count: usize) -> Vec<(Vec<&'static str>, Vec<&'static str>)> {
    let one = |n: usize| {
        let other = |k: usize| OTHERS[(n * 5 + k) % OTHERS.len()];
        let words = vec![other(0), BIRDS[n % 4], other(1), TOOLS[n % 3], TOOLS[(n + 1) % 4], other(2)];
        (words, vec!["O", "B-bird", "O", "B-tool", "I-tool", "O"])
    };
    (0..count).map(one).collect()
}

fn conll(rows: &[(Vec<&str>, Vec<&str>)]) -> String {
    let one = |(words, tags): &(Vec<&str>, Vec<&str>)| {
        words.iter().zip(tags).map(|(w, t)| format!("{w}\t{t}\n")).collect::<String>()
    };
    rows.iter().map(|r| one(r) + "\n").collect()
}

/// The same sentences as texts with spans, in JSON lines.
fn spans(rows: &[(Vec<&str>, Vec<&str>)]) -> String {
    let one = |(words, _): &(Vec<&str>, Vec<&str>)| {
        let start = |w: usize| words[..w].iter().map(|w| w.len() + 1).sum::<usize>();
        let end = |w: usize| start(w) + words[w].len();
        let spans = json!([
            { "start": start(1), "end": end(1), "label": "bird" }, { "start": start(3), "end": end(4), "label": "tool" },
        ]);
        json!({ "text": words.join(" "), "spans": spans, "more": { "of": ["no", "use"] } }).to_string() + "\n"
    };
    rows.iter().map(one).collect()
}

fn lists(rows: &[(Vec<&str>, Vec<&str>)]) -> String {
    rows.iter().map(|(w, t)| json!({ "tokens": w, "tags": t }).to_string() + "\n").collect()
}

fn house() -> Option<House> {
    let house = House::new()?;
    let (train, dev) = (sentences(36), &sentences(48)[36..]);
    house.write("train.conll", conll(&train));
    house.write("dev.conll", conll(dev));
    house.write("train.jsonl", lists(&train));
    house.write("spans.jsonl", spans(&train));
    house.write("dev-spans.jsonl", spans(dev));
    Some(house)
}

const LINE: &str = "train --base base --objective token-classification --method lora --epochs 8 --batch-size 8 --lr 0.02 \
                    --patience 0 --threads 1 --seed 1 --json";

#[test]
fn words_with_tags_are_learnt_and_found_in_a_text() {
    let Some(house) = house() else { return };
    let json = house.run(&format!("{LINE} --data train.conll --eval-data dev.conll --out words")).json();
    assert!(number(&json["evaluation"], "f1") > 0.95, "{json}");
    let eval = house.run("eval --base base --adapter words --data dev.conll --threads 1 --json").json();
    for metric in ["f1", "precision", "recall", "accuracy"] {
        assert_eq!(number(&eval, metric), number(&json["evaluation"], metric), "{metric}");
    }
    let predict = "predict --base base --adapter words --threads 1";
    let found = house.run_on(&format!("{predict} --json -"), "my owl is saw axe here\n").json();
    let answer: &Value = &found["rows"][0]["answers"]["words"];
    let short: Vec<Value> = answer
        .as_array()
        .unwrap()
        .iter()
        .map(|s| json!([s["label"], s["text"], s["start"], s["end"]]))
        .collect();
    assert_eq!(short, [json!(["bird", "owl", 3, 6]), json!(["tool", "saw axe", 10, 17])], "{answer}");
    assert!(answer.as_array().unwrap().iter().all(|s| (0.3..=1.0).contains(&number(s, "score"))), "{answer}");
}

#[test]
fn lists_in_json_lines_are_the_same_data() {
    let Some(house) = house() else { return };
    house.run(&format!("{LINE} --data train.conll --out conll")).succeeded();
    house.run(&format!("{LINE} --data train.jsonl --out lists")).succeeded();
    assert_eq!(house.losses("conll"), house.losses("lists"));
}

#[test]
fn spans_of_a_text_are_the_same_targets() {
    let Some(house) = house() else { return };
    let line = format!(
        "{LINE} --set objective.format=spans --data spans.jsonl --eval-data dev-spans.jsonl --out spans"
    );
    let json = house.run(&line).json();
    assert!(number(&json["evaluation"], "f1") > 0.95, "{json}");
    house.run(&format!("{LINE} --data train.conll --out words")).succeeded();
    // The tiny tokenizer splits at blanks, so words and targets are the same; only the labels' order could differ.
    assert_eq!(house.losses("spans"), house.losses("words"));
}

#[test]
fn adapters_of_both_objectives_answer_together() {
    let Some(house) = house() else { return };
    house.run(&format!("{LINE} --data train.conll --out words")).succeeded();
    house.lora("kind", "").succeeded();
    let line = "predict --base base --adapter kind --adapter words --threads 1";
    let json = house.run_on(&format!("{line} --json -"), "the owl is old\n").json();
    let answers = &json["rows"][0]["answers"];
    assert!(answers["kind"]["label"].is_string() && answers["words"].is_array(), "{json}");
    let plain = house.run_on(&format!("{line} --max-length 4 -"), "the owl is old\n");
    assert!(plain.succeeded().out.contains("  words  bird \"owl\" "), "{}", plain.out);
    assert!(plain.err.contains("1 of 1 texts were cut at 4 tokens"), "{}", plain.err);
    let json = house.run_on(&format!("{line} --max-length 4 --json -"), "the owl is old\n").json();
    assert_eq!(json["rows"][0]["cut"], true);
}

#[test]
fn data_that_does_not_fit_is_refused_with_its_place() {
    let Some(house) = house() else { return };
    house.write("no-tag.conll", "the\tO\nowl\n\n");
    house.run(&format!("{LINE} --data no-tag.conll --out x")).refused(&["no-tag.conll:2", "`owl`", "tag"]);
    house.write(
        "number.jsonl",
        "{\"tokens\": [\"the\"], \"tags\": [\"O\"]}\n{\"tokens\": [1], \"tags\": [\"O\"]}\n",
    );
    house.run(&format!("{LINE} --data number.jsonl --out x")).refused(&["number.jsonl:2", "list of words"]);
    house.write("few.jsonl", "{\"tokens\": [\"the\", \"owl\"], \"tags\": [\"B-bird\"]}\n");
    house.run(&format!("{LINE} --data few.jsonl --out x")).refused(&["1 labels for the 2 words"]);
    house.write("mixed.conll", "the\tO\nowl\tB-bird\nsaw\ttool\n");
    house.run(&format!("{LINE} --data mixed.conll --out x")).refused(&["`tool` has no prefix"]);
}
