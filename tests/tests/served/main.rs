//! A running server, asked from outside: by `graft bench serve`, by clients that others wrote, by a fuzzer that knows no
//! more of it than its OpenAPI document.

mod bench;
mod clients;
mod fuzz;

use graft_tests::fixture::House;

/// A folder with the adapters `one` (LoRA) and `two` (a linear probe), both of three labels, and `rank`, which gives a number;
/// none without ONNX Runtime.
fn house() -> Option<House> {
    let house = House::new()?;
    house.lora("adapters/one", "").succeeded();
    let probe = House::training("adapters/two", "--method linear-probe --epochs 2");
    house.run(&probe).succeeded();
    let scores = (0..16).map(|n| format!("the {} apple,{n}\n", ["old", "small"][n % 2]));
    house.write("scores.csv", String::from("text,score\n") + &scores.collect::<String>());
    house.run("train --base base --objective regression --data scores.csv --text text --target score --out adapters/rank \
               --method lora --epochs 1 --batch-size 8 --threads 1 --json").succeeded();
    Some(house)
}
