//! A running server, asked from outside: by `graft bench serve`, by clients that others wrote, by a fuzzer that knows no
//! more of it than its OpenAPI document.

mod bench;
mod clients;
mod fuzz;

use graft_tests::fixture::House;

/// A folder with the adapters `one` (LoRA) and `two` (a linear probe), both of three labels; none without ONNX Runtime.
fn house() -> Option<House> {
    let house = House::new()?;
    house.lora("adapters/one", "").succeeded();
    let probe = House::training("adapters/two", "--method linear-probe --epochs 2");
    house.run(&probe).succeeded();
    Some(house)
}
