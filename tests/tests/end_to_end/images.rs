//! Images: a base of convolutions, trained on pictures.

use graft_tests::fixture::House;
use graft_tests::fixture_images;

use super::{ends, number};

const TRAIN: &str =
    "train --base pictures --objective classification --threads 1 --json --batch-size 8 --lr 0.02";

/// A house with a base of images, and pictures to train on and others to test on.
fn house() -> Option<House> {
    let house = House::new()?;
    fixture_images::base(&house.path("pictures"));
    for (k, name) in ["train", "test"].into_iter().enumerate() {
        fixture_images::pictures(&house.path(name), k as u16, 16);
    }
    Some(house)
}

#[test]
fn a_lora_on_convolutions_lowers_the_loss_of_the_bases_own_head() {
    let Some(house) = house() else { return };
    let line = "--data train --eval-data test --out out --method lora --epochs 8 --patience 0 --set objective.pooling=logits \
                --set method.r=4 --set method.target_modules=conv.";
    let json = house.run(&format!("{TRAIN} {line}")).json();
    let (first, last) = ends(&house, "out");
    assert!(last < 0.6 * first, "from {first} to {last}");
    // Two convolutions of kernel 3: 3 → 4 and 4 → 6 channels.
    assert_eq!(number(&json, "trainable_parameters") as usize, 4 * 3 * 9 + 4 * 4 + 4 * 4 * 9 + 6 * 4);
    let tensors = house.tensors("out/adapter_model.safetensors");
    let shape = |name: &str| tensors[&format!("base_model.model.{name}.weight")].shape().to_vec();
    assert_eq!((shape("conv2.lora_A"), shape("conv2.lora_B")), (vec![4, 4, 3, 3], vec![6, 4, 1, 1]));
    // The stored adapter gives what was measured while training.
    let eval = house.run("eval --base pictures --adapter out --data test --threads 1 --json").json();
    for key in ["accuracy", "loss"] {
        assert!((number(&eval, key) - number(&json["evaluation"], key)).abs() < 1e-5, "{key}: {eval}");
    }
    let picture = "test/red/000.png";
    let answer = house.run(&format!("predict --base pictures --adapter out --json {picture}")).json();
    assert!(
        fixture_images::CLASSES.contains(&answer["rows"][0]["answers"]["out"]["label"].as_str().unwrap())
    );
}

#[test]
fn a_table_names_images_and_a_new_head_learns_them() {
    let Some(house) = house() else { return };
    let mut table = String::from("file,colour\n");
    for (class, i) in (0..16).flat_map(|i| fixture_images::CLASSES.map(|c| (c, i))) {
        table.push_str(&format!("train/{class}/{i:03}.png,{class}\n"));
    }
    house.write("pictures.csv", table);
    let line = "--data pictures.csv --image file --label colour --eval-data test --out out --method linear-probe \
                --set method.solve=false --epochs 20 --patience 0 --set objective.pooling=pooled";
    let flags = "--eval-split 0.25";
    let json = house.run(&format!("{TRAIN} {line}").replace("--eval-data test", flags)).json();
    assert_eq!(
        (&json["cached_features"], number(&json, "trainable_parameters")),
        (&true.into(), 3.0 * 6.0 + 3.0)
    );
    let (first, last) = ends(&house, "out");
    assert!(last < 0.7 * first, "from {first} to {last}");
}

#[test]
fn bad_images_are_told_with_file_and_line() {
    let Some(house) = house() else { return };
    let whole = house.read("train/red/000.png");
    house.write("cut.png", &whole[..whole.len() / 2]);
    let line = "--method lora --out out --set objective.pooling=logits --set method.target_modules=conv. --data pictures.csv \
                --image file";
    for (bad, word) in
        [("gone.png", "No such file"), ("cut.png", "cut.png"), ("train.csv", "neither JPEG nor PNG")]
    {
        house.write("pictures.csv", format!("file,label\ntrain/red/000.png,red\n{bad},blue\n"));
        house.run(&format!("{TRAIN} {line}")).refused(&["pictures.csv:3", bad, word]);
    }
    house.write("pictures.csv", "file,label\ntrain/red/000.png,red\ntrain/blue/000.png,blue\n");
    house.run(&format!("{TRAIN} {line}")).refused(&["3 logits", "2 labels", "`labels`"]);
    std::fs::remove_file(house.path("pictures/preprocessor_config.json")).unwrap();
    house.run(&format!("{TRAIN} {line}")).refused(&["preprocessor_config.json", "--preprocessor"]);
    assert!(!house.path("out").exists());
}
