//! Tables with a flaw, and settings that do not exist.

use graft_tests::fixture::House;

use super::training_refused;

/// Writes `train.csv` from its lines.
fn table(house: &House, lines: &[&str]) {
    house.write("train.csv", format!("{}\n", lines.join("\n")));
}

#[test]
fn no_data() {
    let Some(house) = House::new() else { return };
    house.write("train.csv", "text,label\n");
    training_refused(&house, "", &["train.csv", "no rows"]);
    std::fs::remove_file(house.path("train.csv")).unwrap();
    training_refused(&house, "", &["cannot read train.csv", "check the path"]);
}

#[test]
fn labels_in_the_evaluation_data_that_training_never_saw() {
    let Some(house) = House::new() else { return };
    house.write("dev.csv", "text,label\nthe owl,bird\nmars,planet\n");
    for role in ["eval", "test"] {
        let words = ["dev.csv", "`planet`", "not among those that were trained", "bird, fruit, tool"];
        training_refused(&house, &format!("--{role}-data dev.csv"), &words);
    }
    house.lora("adapter", "").succeeded();
    house
        .run("eval --base base --adapter adapter --data dev.csv")
        .refused(&["`planet`", "bird, fruit, tool"]);
}

#[test]
fn an_empty_text() {
    let Some(house) = House::new() else { return };
    table(&house, &["text,label", "owl,bird", "fig,fruit", "  ,tool"]);
    training_refused(&house, "", &["train.csv:4", "`text` is empty", "fill it or remove the row"]);
    table(&house, &["text,label", "owl,bird", "fig,", "axe,tool"]);
    training_refused(&house, "", &["train.csv:3", "`label`", "fill it or remove the row"]);
    house.write("train.csv", "text,label\nowl,bird\nfig,fruit\n");
    house.run(&House::training("adapter", "--method lora --epochs 1")).succeeded();
    house.run_on("predict --base base --adapter adapter", "\n \n").refused(&["no text"]);
    let mut empty = house.command("predict --base base --adapter adapter");
    graft_tests::fixture::Ended::of(empty.args(["owl", " "])).refused(&["text 2", "empty"]);
}

#[test]
fn one_bad_row() {
    let Some(house) = House::new() else { return };
    table(&house, &["text,label", "owl,bird", "\"fig, plum\",fruit", "axe, saw,tool", "crow,bird"]);
    training_refused(&house, "", &["train.csv:4", "3 fields where 2 are expected", "quote"]);
    table(&house, &["text,label", "owl,bird", "\"fig,fruit", "axe,tool"]);
    training_refused(&house, "", &["train.csv:3", "never closed"]);
}

#[test]
fn a_missing_column() {
    let Some(house) = House::new() else { return };
    table(&house, &["texts,label", "owl,bird"]);
    training_refused(&house, "", &["train.csv", "no column `text`", "did you mean `texts`?"]);
    let line = House::training("out", "--method lora").replace("--text text", "--text texts");
    house.run(&line.replace("--label label", "--label lable")).refused(&["no column `lable`", "`label`?"]);
    assert!(!house.path("out").exists());
}

#[test]
fn text_in_latin_1() {
    let Some(house) = House::new() else { return };
    house.write("train.csv", b"text,label\nowl,bird\nol\xe9 axe,tool\n");
    training_refused(&house, "", &["train.csv:3", "byte 0xe9", "offset 22", "--encoding latin1"]);
    training_refused(&house, "--encoding latin17", &["latin17", "no text encoding"]);
    house.run(&House::training("out", "--method lora --epochs 1 --encoding latin1")).succeeded();
    house.run("eval --base base --adapter out --data train.csv").refused(&["0xe9", "--encoding latin1"]);
    house.run("eval --base base --adapter out --data train.csv --encoding latin1").succeeded();
}

#[test]
fn one_label_only() {
    let Some(house) = House::new() else { return };
    table(&house, &["text,label", "owl,bird", "crow,bird"]);
    training_refused(&house, "", &["label"]);
}

#[test]
fn settings_and_names_that_do_not_exist() {
    let Some(house) = House::new() else { return };
    training_refused(&house, "--set method.rr=4", &["`lora`", "no option `rr`", "did you mean `r`?"]);
    training_refused(&house, "--set method.r=0", &["option `r`", "rank of 0"]);
    training_refused(&house, "--set method.r=many", &["`lora`", "r"]);
    training_refused(&house, "--set objective.poling=cls", &["`classification`", "`poling`", "`pooling`"]);
    training_refused(&house, "--set objective.pooling=max", &["`classification`", "max", "mean"]);
    training_refused(&house, "--set methd.r=4", &["no key `methd`", "did you mean `method`?"]);
    training_refused(&house, "--lr 0", &["`lr`", "greater than 0"]);
    training_refused(&house, "--schedule cosin", &["`schedule`", "cosine"]);
    let line = House::training("out", "");
    house
        .run(&format!("{line} --method lorra"))
        .refused(&["no plugin has a method `lorra`", "Did you mean `lora`?"]);
    let line = line.replace("--objective classification", "--objective clasification --method lora");
    house.run(&line).refused(&["objective `clasification`", "Did you mean `classification`?", "Searched: "]);
    house.write("recipe.toml", "epoch = 3\n");
    house.run("train recipe.toml").refused(&["recipe.toml", "`epoch`", "`epochs`"]);
    assert!(!house.path("out").exists());
}

#[test]
fn no_site_matches() {
    let Some(house) = House::new() else { return };
    for targets in ["qery", "[\"qery\"]"] {
        let words = ["no site matches", "qery", "nearest", "encoder.layer.0.attention.self.query"];
        let more = format!("--set method.target_modules={targets}");
        training_refused(&house, &more, &words);
    }
}
