//! Vectors of texts, trained on pairs.

use graft_tests::fixture::House;
use serde_json::Value;

use super::{ends, number, relative, slopes};

/// Losses come out of sums in another order.
const CLOSE: f64 = 1e-4;

const TRAIN: &str = "train --base base --objective embedding --method lora --threads 1 --json --batch-size 8 --patience 0 \
                     --data pairs.csv --text one --text-pair other";

const KEYS: [[&str; 4]; 3] =
    [["owl", "crow", "finch", "swan"], ["apple", "pear", "plum", "fig"], ["saw", "axe", "drill", "hammer"]];

/// Pairs of words of one kind (score 5) with one of another kind, and pairs of different kinds (score 1).
fn house() -> Option<House> {
    let house = House::new()?;
    let mut pairs = String::from("one,other,unlike\n");
    let mut scored = String::from("one,other,likeness\n");
    for (kind, i, j) in (0..3).flat_map(|k| (0..4).flat_map(move |i| (0..4).map(move |j| (k, i, j)))) {
        let (a, b, c) = (KEYS[kind][i], KEYS[kind][j], KEYS[(kind + 1 + i % 2) % 3][j]);
        pairs.push_str(&format!("the {a} is here,my old {b},a small {c}\n"));
        scored.push_str(&format!("the {a},my old {b},5\nthe {a},my old {c},1\n"));
    }
    house.write("pairs.csv", pairs);
    house.write("scored.csv", scored);
    Some(house)
}

fn column(house: &House, file: &str, column: usize) -> Vec<String> {
    let table = String::from_utf8(house.read(file)).unwrap();
    table.lines().skip(1).map(|l| l.split(',').nth(column).unwrap().to_string()).collect()
}

/// The vectors that an adapter gives for texts, each by itself.
fn vectors(house: &House, adapter: &str, texts: &[String]) -> Vec<Vec<f64>> {
    let line = format!("predict --base base --adapter {adapter} --threads 1 --json -");
    let json = house.run_on(&line, &texts.join("\n")).json();
    let numbers = |r: &Value| {
        let v = r["answers"][adapter]["vector"].as_array().unwrap();
        v.iter().map(|x| x.as_f64().unwrap()).collect()
    };
    json["rows"].as_array().unwrap().iter().map(numbers).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// −ln of the softmax of row `i` at `i`, over cosines divided by the temperature.
fn cross_entropy(text: &[f64], others: &[&Vec<f64>], own: usize, temperature: f64) -> f64 {
    let logits: Vec<f64> = others.iter().map(|o| dot(text, o) / temperature).collect();
    logits.iter().map(|l| l.exp()).sum::<f64>().ln() - logits[own]
}

#[test]
fn pairs_come_near_each_other() {
    let Some(house) = house() else { return };
    let scored = "eval --base base --threads 1 --json --data scored.csv --column score=likeness --adapter";
    house.run(&format!("{TRAIN} --lr 1e-12 --epochs 1 --out raw")).succeeded();
    let json = house.run(&format!("{TRAIN} --lr 0.01 --epochs 12 --eval-split 0.25 --out out")).json();
    let (first, last) = ends(&house, "out");
    assert!(last < 0.8 * first, "from {first} to {last}");
    assert!(number(&json["evaluation"], "mrr") > 0.0 && json["evaluation"]["accuracy"].is_number(), "{json}");
    let spearman = |adapter: &str| number(&house.run(&format!("{scored} {adapter}")).json(), "spearman");
    assert!(
        spearman("out") > 0.6 && spearman("out") > spearman("raw") + 0.3,
        "{} {}",
        spearman("raw"),
        spearman("out")
    );
}

#[test]
fn the_loss_is_info_nce_over_the_batch() {
    let Some(house) = house() else { return };
    let columns = [0, 1, 2].map(|c| column(&house, "pairs.csv", c));
    // One batch of all pairs, in which nothing changes: the order of the rows is of no account to the mean.
    let train = TRAIN.replace("--batch-size 8", "--batch-size 48 --lr 1e-12 --epochs 1");
    for (out, more, temperature) in [
        ("plain", "", 0.05),
        ("warm", "--set objective.temperature=0.5", 0.5),
        ("symmetric", "--set objective.symmetric=true --set objective.temperature=0.2", 0.2),
        ("triples", "--negative unlike", 0.05),
    ] {
        house.run(&format!("{train} {more} --out {out}")).succeeded();
        let [first, pair, negative] = [0, 1, 2].map(|c| vectors(&house, out, &columns[c]));
        let mut others: Vec<&Vec<f64>> = pair.iter().collect();
        if out == "triples" {
            others.extend(&negative);
        }
        let n = first.len();
        let mut own =
            (0..n).map(|i| cross_entropy(&first[i], &others, i, temperature)).sum::<f64>() / n as f64;
        if out == "symmetric" {
            let back: Vec<&Vec<f64>> = first.iter().collect();
            let other =
                (0..n).map(|i| cross_entropy(&pair[i], &back, i, temperature)).sum::<f64>() / n as f64;
            own = (own + other) / 2.0;
        }
        let losses = house.losses(out);
        assert_eq!(losses.len(), 1);
        assert!(relative(&[own], &losses) < CLOSE, "{out}: {own} {losses:?}");
    }
}

#[test]
fn cosines_come_to_be_the_scores() {
    let Some(house) = house() else { return };
    let train = TRAIN.replace("pairs.csv", "scored.csv");
    let line = format!("{train} --score likeness --set objective.loss=cosine --set objective.score_low=0");
    house.run(&format!("{} --lr 1e-12 --epochs 1 --out raw", line.replace("size 8", "size 96"))).succeeded();
    let [one, other] = [0, 1].map(|c| vectors(&house, "raw", &column(&house, "scored.csv", c)));
    let scores: Vec<f64> =
        column(&house, "scored.csv", 2).iter().map(|s| s.parse::<f64>().unwrap() / 5.0).collect();
    let squares = one.iter().zip(&other).zip(&scores).map(|((a, b), s)| (dot(a, b) - s).powi(2));
    let own = squares.sum::<f64>() / scores.len() as f64;
    assert!(relative(&[own], &house.losses("raw")) < CLOSE, "{own} {:?}", house.losses("raw"));
    let json = house.run(&format!("{line} --lr 0.01 --epochs 12 --eval-data scored.csv --out out")).json();
    assert!(number(&json["evaluation"], "spearman") > 0.8, "{json}");
    let eval = house.run("eval --base base --adapter out --data scored.csv --threads 1 --json").json();
    for metric in ["spearman", "pearson", "loss"] {
        assert!(
            relative(&[number(&eval, metric)], &[number(&json["evaluation"], metric)]) < CLOSE,
            "{metric}"
        );
    }
}

#[test]
fn losses_fall_as_their_gradients_say() {
    let Some(house) = house() else { return };
    let line = TRAIN.replace("--batch-size 8 --patience 0", "--batch-size 96");
    slopes::check(&house, "plain", &line);
    slopes::check(&house, "symmetric", &format!("{line} --set objective.symmetric=true"));
    slopes::check(&house, "triples", &format!("{line} --negative unlike"));
    let scored = line.replace("pairs.csv", "scored.csv");
    slopes::check(&house, "cosine", &format!("{scored} --score likeness --set objective.loss=cosine"));
}

#[test]
fn triples_learn_from_what_is_unlike() {
    let Some(house) = house() else { return };
    house.run(&format!("{TRAIN} --negative unlike --lr 0.01 --epochs 6 --out out")).succeeded();
    let (first, last) = ends(&house, "out");
    assert!(last < 0.9 * first, "from {first} to {last}");
    let eval = "eval --base base --adapter out --threads 1 --json --data";
    house.run(&format!("{eval} scored.csv --column score=likeness")).failed(&["unlike"]);
    let json = house.run(&format!("{eval} scored.csv --column score=likeness --column negative=")).json();
    assert!(json["spearman"].is_number(), "{json}");
}

#[test]
fn what_cannot_be_trained_on_is_told() {
    let Some(house) = house() else { return };
    let line = format!("{TRAIN} --lr 0.01 --epochs 1 --out no");
    house.run(&format!("{line} --set objective.loss=cosine")).refused(&["score"]);
    house.run(&format!("{line} --set objective.pooling=logits")).refused(&["pooling"]);
    house.run(&line.replace("--method lora", "--method linear-probe")).failed(&["no parameters"]);
    house.run(&line.replace("--text-pair other", "")).refused(&["text_pair"]);
    assert!(!house.path("no").exists());
}
