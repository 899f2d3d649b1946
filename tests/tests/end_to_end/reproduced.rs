//! Recipes and seeds give the same adapter again, bit for bit.

use graft_tests::fixture::House;

use super::relative;

fn tensors(house: &House, adapter: &str) -> Vec<u8> {
    house.read(&format!("{adapter}/adapter_model.safetensors"))
}

#[test]
fn the_same_seed_gives_the_same_adapter_and_another_seed_another() {
    let Some(house) = House::new() else { return };
    let settings = "--set method.dropout=0.2 --set objective.dropout=0.1";
    for (out, seed) in [("one", 7), ("two", 7), ("three", 8)] {
        house.lora(out, &format!("--seed {seed} {settings}")).succeeded();
    }
    assert!(tensors(&house, "one") == tensors(&house, "two"));
    assert!(tensors(&house, "one") != tensors(&house, "three"));
    assert_eq!(house.losses("one"), house.losses("two"));
}

#[test]
fn the_recipe_in_an_adapter_trains_the_same_adapter() {
    let Some(house) = House::new() else { return };
    house.lora("first", "--set method.r=4 --set objective.pooling=cls --seed 3 --eval-split 0.2").succeeded();
    house.run("train first/recipe.toml --out second --json").succeeded();
    assert!(tensors(&house, "first") == tensors(&house, "second"));
    let recipe = |a: &str| String::from_utf8(house.read(&format!("{a}/recipe.toml"))).unwrap();
    assert_eq!(recipe("first").replace("out = \"first\"", "out = \"second\""), recipe("second"));
}

#[test]
fn flags_win_over_the_recipe_file() {
    let Some(house) = House::new() else { return };
    house.lora("first", "--set method.r=4").succeeded();
    let json = house.run("train first/recipe.toml --out second --epochs 2 --set method.r=2 --json").json();
    assert_eq!((&json["epochs"], &json["steps"]), (&2.into(), &16.into()));
    let a = house.tensors("second/adapter_model.safetensors");
    let a = a.iter().find(|(n, _)| n.ends_with("lora_A.weight")).unwrap().1;
    assert_eq!(a.shape(), [2, 32]);
    let written = String::from_utf8(house.read("second/recipe.toml")).unwrap();
    assert!(
        written.contains("epochs = 2") && written.contains("r = 2") && written.contains("lr = 0.02"),
        "{written}"
    );
}

#[test]
fn other_thread_counts_change_no_more_than_rounding_does() {
    let Some(house) = House::new() else { return };
    house.run(&House::training("one", "--method lora --epochs 1 --batch-size 8 --lr 0.02")).succeeded();
    let line = House::training("two", "--method lora --epochs 1 --batch-size 8 --lr 0.02");
    house.run(&line.replace("--threads 1", "--threads 2")).succeeded();
    let off = relative(&house.losses("one"), &house.losses("two"));
    assert!(off < 1e-4, "{off:.1e}");
}
