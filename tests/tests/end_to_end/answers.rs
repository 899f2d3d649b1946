//! `graft eval` and `graft predict`.

use graft_tests::fixture::House;

use super::number;

/// A house with two adapters, one of them for another task over the same rows.
fn trained() -> Option<House> {
    let house = House::new()?;
    house.lora("kind", "--eval-data train.csv --seed 1").succeeded();
    let sizes = |row: &str| if row.len() > 24 { "long" } else { "short" };
    let table = String::from_utf8(house.read("train.csv")).unwrap();
    let rows = table.lines().skip(1).map(|l| l.rsplit_once(',').unwrap().0);
    let table: String = rows.map(|r| format!("{r},{}\n", sizes(r))).collect();
    house.write("sizes.csv", format!("message,size\n{table}"));
    let line = "train --base base --objective classification --method linear-probe --data sizes.csv --text message \
                --label size --epochs 20 --lr 0.05 --out size";
    house.run(line).succeeded();
    Some(house)
}

#[test]
fn one_answer_from_each_adapter_over_one_base() {
    let Some(house) = trained() else { return };
    let line = "predict --base base --adapter kind --adapter size --json";
    let ended = house.run_on(
        &format!("{line} -"),
        "the owl is here\n\nmy old hammer\na fig and a plum on the old table\n",
    );
    let json = ended.json();
    let rows = json["rows"].as_array().unwrap();
    let texts: Vec<&str> = rows.iter().map(|r| r["text"].as_str().unwrap()).collect();
    assert_eq!(texts, ["the owl is here", "my old hammer", "a fig and a plum on the old table"]);
    for (row, label) in rows.iter().zip(["bird", "tool", "fruit"]) {
        let (kind, size) = (&row["answers"]["kind"], &row["answers"]["size"]);
        assert_eq!(kind["label"], label, "{row}");
        for (answer, labels) in [(kind, 3), (size, 2)] {
            let p: Vec<f64> =
                answer["probabilities"].as_object().unwrap().values().map(|p| p.as_f64().unwrap()).collect();
            assert_eq!(p.len(), labels);
            assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-5, "{answer}");
            assert_eq!(number(answer, "score"), p.iter().fold(0f64, |m, p| m.max(*p)));
        }
    }
    // The same texts as arguments, one at a time and without padding, and as a file.
    let one = house.run(&format!("{line} owl")).json();
    assert_eq!(one["rows"].as_array().unwrap().len(), 1);
    house.write("texts.txt", "the owl is here\nmy old hammer\na fig and a plum on the old table\n");
    assert_eq!(house.run(&format!("{line} --input texts.txt")).json(), json);
    let plain = house.run("predict --base base --adapter kind --adapter size owl");
    assert!(plain.succeeded().out.starts_with("owl\n  kind  "), "{}", plain.out);
}

#[test]
fn eval_gives_what_training_reported() {
    let Some(house) = House::new() else { return };
    let json = house.lora("out", "--eval-data dev.csv --test-data test.csv").json();
    for (data, reported) in [("dev.csv", &json["evaluation"]), ("test.csv", &json)] {
        let eval =
            house.run(&format!("eval --base base --adapter out --data {data} --threads 1 --json")).json();
        for metric in ["accuracy", "macro_f1"] {
            assert_eq!(number(&eval, metric), number(reported, metric), "{data}");
        }
        assert!((number(&eval, "loss") - number(reported, "loss")).abs() < 1e-6, "{data}");
        assert_eq!(eval["adapters"]["out"]["accuracy"], eval["accuracy"]);
    }
}

#[test]
fn columns_default_to_those_of_training_and_can_be_named() {
    let Some(house) = trained() else { return };
    let table = String::from_utf8(house.read("sizes.csv")).unwrap();
    house.write("renamed.csv", table.replacen("message,size", "words,how", 1));
    let line = "eval --base base --adapter size --threads 1 --json --data";
    let same = house.run(&format!("{line} sizes.csv")).json();
    let renamed = house.run(&format!("{line} renamed.csv --text words --label how")).json();
    assert_eq!(same["adapters"], renamed["adapters"]);
}

#[test]
fn every_format_holds_the_same_rows() {
    let Some(house) = House::new() else { return };
    let table = String::from_utf8(house.read("train.csv")).unwrap();
    house.write("train.tsv", table.replace(',', "\t"));
    let line = |l: &str| {
        let (text, label) = l.rsplit_once(',').unwrap();
        format!("{}\n", serde_json::json!({ "text": text, "label": label }))
    };
    house.write("train.jsonl", table.lines().skip(1).map(line).collect::<String>());
    house.lora("csv", "").succeeded();
    for format in ["tsv", "jsonl"] {
        let training = House::training(format, "--method lora --epochs 6 --batch-size 8 --lr 0.02");
        house.run(&training.replace("train.csv", &format!("train.{format}"))).succeeded();
        let tensors = |a: &str| house.read(&format!("{a}/adapter_model.safetensors"));
        assert!(tensors(format) == tensors("csv"), "{format}");
    }
}
