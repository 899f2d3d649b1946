//! Plugins that were built against the plugin API as it was last released run in today's host. The API and the sources of
//! the plugins are kept in `data/released_api`.
#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::path::{Path, PathBuf};
use std::process::Command;

use graft_plugins::api::abi::{API_VERSION, compatible};
use graft_plugins::api::wire::{self, Message};
use graft_tests::fixture::{Ended, House};
use graft_tests::outside::{built, numbers};

/// The released API, unpacked in the house; its version is `MAJOR.MINOR`.
struct Released {
    folder: PathBuf,
    version: (u32, u32),
}

fn kept() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/released_api")
}

fn unpacked(house: &House) -> Released {
    let files = std::fs::read_dir(kept()).unwrap().map(|e| e.unwrap().path());
    let crates: Vec<PathBuf> = files.filter(|p| p.extension().is_some_and(|e| e == "crate")).collect();
    let [file] = crates.as_slice() else { panic!("one released API is kept: {crates:?}") };
    let mut tar = Command::new("tar");
    tar.arg("-xzf").arg(file).arg("-C").arg(house.path(""));
    Ended::of(&mut tar).succeeded();
    let name = file.file_stem().unwrap().to_str().unwrap();
    let mut numbers = name.strip_prefix("graft-plugin-api-").unwrap().split('.').map(|n| n.parse().unwrap());
    Released { folder: house.path(name), version: (numbers.next().unwrap(), numbers.next().unwrap()) }
}

/// The plugin that `graft plugins new` wrote at the release.
fn source(kind: &str, id: &str, type_name: &str) -> String {
    let text = std::fs::read_to_string(kept().join(format!("{kind}.rs.in"))).unwrap();
    text.replace("{{id}}", id).replace("{{type}}", type_name)
}

/// Before 1.0 a new minor version may break with the one before. What was built against that is then refused in words.
fn is_taken(house: &House, released: &Released, library: &str) -> bool {
    let checked = house.run(&format!("plugins verify {library}"));
    let taken = compatible(API_VERSION, released.version);
    match taken {
        true => assert!(checked.succeeded().out.contains("is a sound plugin"), "{}", checked.out),
        false => drop(checked.failed(&["was built against version", "Rebuild"])),
    }
    taken
}

#[test]
fn a_method_of_the_released_api_trains_and_answers_today() {
    let Some(house) = House::new() else { return };
    let api = unpacked(&house);
    let source = source("method", "older-scale", "OlderScale");
    let library = built(&house, "older-scale", "method", &api.folder, Some(&source));
    if !is_taken(&house, &api, &library) {
        return;
    }
    let line = "--method older-scale --plugin-dir plugins --epochs 4 --batch-size 8 --lr 0.02";
    house.run(&House::training("out", line)).succeeded();
    let losses = house.losses("out");
    let (first, last): (f64, f64) = (losses[..8].iter().sum(), losses[losses.len() - 8..].iter().sum());
    assert!(last < 0.9 * first, "{losses:?}");
    let scales = house.tensors("out/graft_parameters.safetensors");
    assert!(scales.values().all(|t| t.values::<f32>().unwrap().iter().any(|v| *v != 1.0)));
    let answers = house.run("predict --base base --adapter out --plugin-dir plugins --json owl saw").json();
    assert!(answers["rows"][1]["answers"]["out"]["label"].is_string(), "{answers}");
    // What it refuses is an error of today's host, though it names no line.
    let wrong = "--method older-scale --plugin-dir plugins --set method.target_modules=nowhere";
    house.run(&House::training("none", wrong)).failed(&["older-scale", "nowhere"]);
}

#[test]
fn an_objective_of_the_released_api_trains_and_answers_today() {
    let Some(house) = House::new() else { return };
    let api = unpacked(&house);
    let source = source("objective", "older-number", "OlderNumber");
    let library = built(&house, "older-number", "objective", &api.folder, Some(&source));
    if !is_taken(&house, &api, &library) {
        return;
    }
    numbers(&house);
    let line = "train --base base --objective older-number --method lora --data numbers.csv --out out \
                --plugin-dir plugins --epochs 8 --batch-size 8 --lr 0.02 --threads 1 --json";
    house.run(line).succeeded();
    let answers = house.run("predict --base base --adapter out --plugin-dir plugins --json owl saw").json();
    let number = |row: usize| answers["rows"][row]["answers"]["out"].as_f64().unwrap();
    assert!(number(0) > number(1) + 0.5, "{answers}");
}

#[test]
fn messages_that_have_grown_are_read_on_both_sides() {
    // As plugins of API 0.1 sent it, without the line that asks.
    let old = wire::Values { ids: vec![7] }.encode_to_vec();
    let read = wire::StopGradient::decode(old.as_slice()).unwrap();
    assert_eq!(read, wire::StopGradient { ids: vec![7], place: String::new() });
    let new = wire::StopGradient { ids: vec![7], place: "src/lib.rs:3".to_owned() }.encode_to_vec();
    assert_eq!(wire::Values::decode(new.as_slice()).unwrap().ids, [7]);
    // What a side does not say of its needs is none.
    let hello = wire::Values { ids: Vec::new() }.encode_to_vec();
    assert!(wire::Hello::decode(hello.as_slice()).unwrap().requires.is_empty());
}
