//! Several adapters over one base in one command: one pass for those that leave the base as it is.

use graft_adapters::load;
use graft_graph::fused::is_attention;
use graft_runtime::{Runtime, RuntimeOptions, SessionOptions};
use graft_tasks::{Base, BaseOptions, Examples, Fitted, Intake, passes};
use graft_tests::fixture::{House, library, target_dir};
use serde_json::{Value, json};

/// The same numbers come out of products of other sizes.
const CLOSE: f64 = 1e-6;
const PROBES: [&str; 3] = ["kind", "length", "words"];

/// A house with probes of three kinds and a LoRA of a fourth, over one base.
fn house() -> Option<House> {
    let house = House::new()?;
    let table = String::from_utf8(house.read("train.csv")).unwrap();
    let texts: Vec<&str> = table.lines().skip(1).map(|l| l.rsplit_once(',').unwrap().0).collect();
    let lengths = texts.iter().map(|t| format!("{t},{}\n", t.len())).collect::<String>();
    house.write("lengths.csv", format!("text,letters\n{lengths}"));
    let tags = |t: &&str| {
        let tag = |w| format!("{w}\t{}\n", if ["my", "the", "a"].contains(&w) { "B-article" } else { "O" });
        t.split(' ').map(tag).collect::<String>() + "\n"
    };
    house.write("words.conll", texts.iter().map(tags).collect::<String>());
    let pairs = texts.iter().zip(texts.iter().skip(3)).map(|(a, b)| format!("{a},{b}\n")).collect::<String>();
    house.write("pairs.csv", format!("text,other\n{pairs}"));
    let train = |out: &str, rest: &str| {
        house.run(&format!("train --base base --threads 1 --batch-size 8 --out {out} {rest}")).succeeded();
    };
    train(
        "kind",
        "--method linear-probe --objective classification --data train.csv --text text --label label",
    );
    train(
        "length",
        "--method linear-probe --objective regression --lr 0.02 --data lengths.csv --text text --target letters",
    );
    train(
        "words",
        "--method linear-probe --objective token-classification --epochs 40 --lr 0.05 --data words.conll",
    );
    train("alike", "--method lora --objective embedding --data pairs.csv --text text --text-pair other");
    Some(house)
}

/// The largest difference of two answers' numbers; infinite where they differ otherwise.
fn difference(a: &Value, b: &Value) -> f64 {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => (a.as_f64().unwrap() - b.as_f64().unwrap()).abs(),
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).map(|(a, b)| difference(a, b)).fold(0.0, f64::max)
        }
        (Value::Object(a), Value::Object(b)) if a.keys().eq(b.keys()) => {
            a.values().zip(b.values()).map(|(a, b)| difference(a, b)).fold(0.0, f64::max)
        }
        _ if a == b => 0.0,
        _ => f64::INFINITY,
    }
}

#[test]
fn four_kinds_of_adapters_give_four_kinds_of_answers() {
    let Some(house) = house() else { return };
    let texts = "the owl is here\nmy old hammer\na fig and a plum on the old table\n";
    let all =
        "predict --base base --threads 1 --adapter kind --adapter length --adapter alike --adapter words";
    let together = house.run_on(&format!("{all} --json -"), texts).json();
    assert_eq!(together["passes"], json!([PROBES, ["alike"]]));
    for adapter in ["kind", "length", "words", "alike"] {
        let alone = format!("predict --base base --threads 1 --adapter {adapter} --json -");
        let alone = house.run_on(&alone, texts).json();
        assert_eq!(alone["passes"], json!([[adapter]]));
        for (a, b) in alone["rows"].as_array().unwrap().iter().zip(together["rows"].as_array().unwrap()) {
            let off = difference(&a["answers"][adapter], &b["answers"][adapter]);
            assert!(off <= CLOSE, "{adapter}: {off} between {a} and {b}");
        }
    }
    let answers = &together["rows"][0]["answers"];
    assert!(answers["kind"]["label"].is_string() && answers["length"]["value"].is_number(), "{answers}");
    assert_eq!(answers["words"][0]["text"], "the", "{answers}");
    assert_eq!(answers["alike"]["vector"].as_array().unwrap().len(), 32);
    let shown = house.run(&format!("{all} owl")).succeeded().out.clone();
    let names: Vec<&str> = shown.lines().skip(1).filter_map(|l| l.split_whitespace().next()).collect();
    assert_eq!(names, ["kind", "length", "alike", "words"], "{shown}");
}

#[test]
fn eval_measures_several_in_one_pass_as_each_alone() {
    let Some(house) = house() else { return };
    let table = String::from_utf8(house.read("train.csv")).unwrap();
    house.write("both.csv", table.replace("\n", ",7\n").replacen("label,7", "label,letters", 1));
    let line = "eval --base base --threads 1 --json --data both.csv --adapter";
    let both = house.run(&format!("{line} kind --adapter length")).json();
    assert_eq!(both["passes"], json!([["kind", "length"]]));
    for adapter in ["kind", "length"] {
        let alone = house.run(&format!("{line} {adapter}")).json();
        let off = difference(&alone["adapters"][adapter], &both["adapters"][adapter]);
        assert!(off < 1e-4, "{adapter}: {alone} {both}");
    }
}

#[test]
fn the_base_is_in_a_shared_pass_once() {
    let Some(house) = house() else { return };
    let Some(library) = library() else { return };
    let options = RuntimeOptions { library: Some(library), threads: Some(1) };
    let runtime = Runtime::start(&options).unwrap();
    let base = Base::open(runtime, &house.path("base"), &BaseOptions::default()).unwrap();
    let intake = Intake::open(&base).unwrap();
    let dirs = [target_dir().to_path_buf()];
    let open = |a: &str| Fitted::open(&base, &load(&house.path(a)).unwrap(), &dirs).unwrap();
    let fitted = PROBES.map(open);
    let examples = intake.arguments(&["the owl".into(), "my old axe".into()], None).unwrap();
    let asked: Vec<(&Fitted, &Examples)> = fitted.iter().map(|f| (f, &examples)).collect();
    let made = passes(&base, &asked);
    assert_eq!(made.iter().map(|p| p.adapters.clone()).collect::<Vec<_>>(), [[0, 1, 2]]);
    let graph = &made[0].graph;
    let attentions = |g: &graft_graph::Graph| g.nodes.iter().filter(|n| is_attention(n)).count();
    assert_eq!((attentions(graph), attentions(&base.graph)), (2, 2));
    // Every product of the base that leads to the hidden states, and one for each head.
    let products = |g: &graft_graph::Graph| g.nodes.iter().filter(|n| n.op == "MatMul").count();
    let alone = passes(&base, &asked[..1]);
    assert_eq!(products(graph), products(&alone[0].graph) + 2);
    // Adapters that read other texts have passes of their own.
    let others = intake.arguments(&["the fig".into(), "my old axe".into()], None).unwrap();
    let asked = [(&fitted[0], &examples), (&fitted[1], &others), (&fitted[2], &examples)];
    let apart = passes(&base, &asked);
    assert_eq!(apart.iter().map(|p| p.adapters.clone()).collect::<Vec<_>>(), [vec![0, 2], vec![1]]);
    let outputs = apart[0].run(&base, &examples, intake.pad_id(), &SessionOptions::default()).unwrap();
    assert!(outputs.iter().all(|o| o.len() == 1 && o[0].name == "logits"), "{outputs:?}");
}
