//! `graft adapters list | convert | diff`.
#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use graft_tests::fixture::House;
use serde_json::{Value, json};

fn names(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|a| a["name"].as_str().unwrap()).collect()
}

#[test]
fn a_folder_of_adapters_is_listed_with_what_is_broken() {
    let Some(house) = House::new() else { return };
    house.lora("all/kind", "--eval-data dev.csv").succeeded();
    house.run(&House::training("all/probe", "--method linear-probe --epochs 1")).succeeded();
    std::fs::create_dir_all(house.path("all/other")).unwrap();
    std::fs::create_dir_all(house.path("all/half")).unwrap();
    house.write("all/half/adapter_config.json", "{\"peft_type\": \"LORA\", \"r\": 2}");
    let json = house.run("adapters list all --json").succeeded().out.clone();
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(names(&json["adapters"]), ["kind", "probe"]);
    let kind = &json["adapters"][0];
    assert_eq!(
        (&kind["method"], &kind["objective"], &kind["base"]["name"]),
        (&json!("lora"), &json!("classification"), &json!("base"))
    );
    assert!(json["broken"][0]["path"].as_str().unwrap().ends_with("half"), "{json}");
    let shown = house.run("adapters list all");
    let row = shown.succeeded().out.lines().find(|l| l.starts_with("kind ")).unwrap();
    for word in ["lora", "classification", "base", "steps", "eval_accuracy"] {
        assert!(row.contains(word), "no {word} in: {row}");
    }
    assert!(shown.out.contains("Cannot be used:") && shown.out.contains("half"), "{}", shown.out);
    house.run("adapters list nowhere").refused(&["nowhere cannot be listed"]);
}

#[test]
fn what_is_converted_to_peft_and_back_answers_the_same() {
    let Some(house) = House::new() else { return };
    house.lora("kind", "--set objective.pooling=pooled").succeeded();
    let said = house.run("adapters convert kind --to peft plain");
    for left_out in
        ["the labels bird, fruit, tool", "the objective `classification`", "the digest of the base"]
    {
        assert!(said.succeeded().out.contains(left_out), "{}", said.out);
    }
    assert_eq!(house.entries("plain"), ["adapter_config.json", "adapter_model.safetensors"]);
    assert!(house.read("plain/adapter_model.safetensors") == house.read("kind/adapter_model.safetensors"));
    house.run("adapters convert plain --to graft --base base --labels bird,fruit,tool back").succeeded();
    let answers = |adapter: &str| {
        let json = house
            .run(&format!("predict --base base --adapter {adapter} --threads 1 --json owl saw fig"))
            .json();
        let rows = json["rows"].as_array().unwrap().clone();
        rows.iter().map(|r| r["answers"][adapter].clone()).collect::<Vec<_>>()
    };
    assert_eq!(answers("back"), answers("kind"));
    assert_eq!(answers("plain")[0]["score"], answers("kind")[0]["score"], "plain labels are LABEL_0 …");
    house
        .run("adapters convert plain --to graft --base base --labels a,b x")
        .refused(&["3 outputs", "2 labels"]);
    house.run("adapters convert kind --to graft --base base x").refused(&["own file already"]);
    house.run("adapters convert plain --to graft x").refused(&["--to graft needs --base"]);
    house.run("adapters convert kind --to peft plain").refused(&["plain exists already"]);
}

#[test]
fn nothing_is_dropped_on_the_way_to_peft_unless_asked_for() {
    let Some(house) = House::new() else { return };
    house.lora("mean", "").succeeded();
    house.run("adapters convert mean --to peft x").refused(&["no place for its head", "--without-head"]);
    assert!(!house.path("x").exists());
    let json = house.run("adapters convert mean --to peft x --without-head --json").succeeded().out.clone();
    assert!(json.contains("the head: "), "{json}");
    assert_eq!(house.entries("x"), ["adapter_config.json", "adapter_model.safetensors"]);
    house.run("adapters convert x --to graft --base base y").refused(&["it has no head"]);
    house.run(&House::training("probe", "--method linear-probe --epochs 1")).succeeded();
    house.run("adapters convert probe --to peft y").refused(&["no format", "linear-probe"]);
}

#[test]
fn adapters_are_compared_by_settings_shapes_and_numbers() {
    let Some(house) = House::new() else { return };
    house.lora("one", "--seed 1").succeeded();
    house.lora("two", "--seed 2").succeeded();
    house.lora("wide", "--seed 1 --set method.r=4").succeeded();
    let diff = |line: &str| -> Value {
        serde_json::from_str(&house.run(&format!("adapters diff {line} --json")).succeeded().out).unwrap()
    };
    let same = diff("one one");
    assert_eq!((&same["same"], same["settings"].as_array().unwrap().len()), (&json!(true), 0));
    assert!(same["modules"].as_array().unwrap().iter().all(|m| m["relative"] == 0.0));
    let other = diff("one two");
    assert_eq!(
        (&other["same"], &other["settings"], &other["shapes"]),
        (&json!(false), &json!([]), &json!([]))
    );
    let modules = other["modules"].as_array().unwrap();
    assert_eq!(modules.len(), 5, "query and value of two layers, and the head");
    // By hand for one module.
    let path = "encoder.layer.0.attention.self.query";
    let (a, b) =
        (house.tensors("one/adapter_model.safetensors"), house.tensors("two/adapter_model.safetensors"));
    let norms = ["lora_A", "lora_B"].iter().fold([0f64; 3], |s, part| {
        let key = format!("base_model.model.{path}.{part}.weight");
        let (a, b) = (a[&key].to_f64s().unwrap(), b[&key].to_f64s().unwrap());
        let sum = |f: &dyn Fn(f64, f64) -> f64| a.iter().zip(&b).map(|(a, b)| f(*a, *b)).sum::<f64>();
        [s[0] + sum(&|a, _| a * a), s[1] + sum(&|_, b| b * b), s[2] + sum(&|a, b| (a - b).powi(2))]
    });
    let expected = norms[2].sqrt() / norms[0].max(norms[1]).sqrt();
    let found = modules.iter().find(|m| m["module"] == path).unwrap()["relative"].as_f64().unwrap();
    assert!((found - expected).abs() < 1e-12 && found > 0.0, "{found} {expected}");
    let wide = diff("one wide");
    let setting =
        |name: &str| wide["settings"].as_array().unwrap().iter().find(|s| s["name"] == name).cloned();
    assert_eq!(setting("method.r"), Some(json!({ "name": "method.r", "a": 8, "b": 4 })));
    assert_eq!(wide["shapes"].as_array().unwrap().len(), 8);
    let shown = house.run("adapters diff one wide");
    assert!(shown.succeeded().out.contains("method.r") && shown.out.contains("[8, 32]"), "{}", shown.out);
    house.run("adapters diff one nowhere").refused(&["nowhere"]);
}
