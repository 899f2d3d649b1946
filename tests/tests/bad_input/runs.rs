//! Runs that do not come to their end lose nothing that was good.
#![cfg(unix)]

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use graft_tests::fixture::{Ended, House};

/// The adapter in `out` loads and answers.
fn usable(house: &House) {
    let json = house.run("eval --base base --adapter out --data dev.csv --threads 1 --json").json();
    assert!(json["accuracy"].is_number(), "{json}");
}

#[test]
fn an_output_directory_that_exists() {
    let Some(house) = House::new() else { return };
    house.run(&House::training("out", "--method lora --epochs 1")).succeeded();
    let before: Vec<(String, Vec<u8>)> =
        house.entries("out").into_iter().map(|n| (n.clone(), house.read(&format!("out/{n}")))).collect();
    let ended = house.run(&House::training("out", "--method lora --epochs 2 --seed 5"));
    ended.refused(&["out exists already", "--out", "nothing is overwritten"]);
    assert!(before.iter().all(|(n, bytes)| house.read(&format!("out/{n}")) == *bytes));
    assert_eq!(house.entries("out").len(), before.len());
}

#[test]
fn a_loss_that_is_not_finite() {
    let Some(house) = House::new() else { return };
    let line = House::training("out", "--method lora --batch-size 8 --epochs 3 --lr 1e6 --warmup-steps 4");
    house.run(&line).refused(&["NaN at step ", "(epoch 1)", "training stopped", "lower the learning rate"]);
    let steps = house.metrics("out", "step");
    assert!(steps.len() > 1 && steps.iter().all(|s| s["loss"].is_number()), "{steps:?}");
    for (name, tensor) in house.tensors("out/adapter_model.safetensors") {
        assert!(tensor.to_f64s().unwrap().iter().all(|v| v.is_finite()), "{name}");
    }
    house.run("predict --base base --adapter out owl").succeeded();
}

/// Runs `graft` where no file may grow beyond 16 or 32 KiB, by the shell's unit, which is what a full disk looks like
/// to a writer: the signal for it is ignored, so that the write fails.
fn on_a_full_disk(house: &House, line: &str) -> Ended {
    let graft = house.command(line);
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"trap '' XFSZ; ulimit -f 32; exec "$0" "$@""#]);
    shell.arg(graft.get_program()).args(graft.get_args()).current_dir(house.path("."));
    for (name, value) in graft.get_envs() {
        match value {
            Some(v) => shell.env(name, v),
            None => shell.env_remove(name),
        };
    }
    Ended::of(shell.stdin(Stdio::null()))
}

#[test]
fn a_disk_that_fills_up_during_training_keeps_the_adapter_of_the_last_epoch() {
    let Some(house) = House::new() else { return };
    // The metrics outgrow the disk long before the last epoch.
    let line = House::training("out", "--method lora --batch-size 8 --epochs 200 --lr 1e-3");
    on_a_full_disk(&house, &line).refused(&["out/", "could not be written", "free space"]);
    assert!(house.metrics("out", "epoch").len() > 1);
    usable(&house);
}

#[test]
fn a_disk_that_is_full_while_saving_leaves_no_half_an_adapter() {
    let Some(house) = House::new() else { return };
    let line = House::training(
        "out",
        "--method lora --epochs 1 --set method.r=64 --set method.target_modules=all-linear",
    );
    on_a_full_disk(&house, &line).refused(&["out/adapter_model.safetensors", "writing failed"]);
    let left = house.entries("out");
    // The recipe is written when a run begins; of the adapter there is nothing.
    let of_the_run = |n: &String| n == "metrics.jsonl" || n == "recipe.toml" || n.starts_with("events.out");
    assert!(left.iter().all(of_the_run), "{left:?}");
    assert_eq!(
        house.entries(".").iter().filter(|n| n.contains("out")).count(),
        1,
        "{:?}",
        house.entries(".")
    );
}

#[test]
fn ctrl_c_finishes_the_step_and_leaves_a_usable_adapter() {
    let Some(house) = House::new() else { return };
    for (more, kept) in [("", false), ("--eval-data dev.csv --patience 0", true)] {
        let _ = std::fs::remove_dir_all(house.path("out"));
        let line = House::training(
            "out",
            &format!("--method lora --batch-size 8 --epochs 1000000 --lr 1e-3 {more}"),
        );
        let mut command = house.command(&line);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let began = Instant::now();
        // Steps are in the metrics as soon as they are done.
        let metrics = house.path("out/metrics.jsonl");
        let stepped = || std::fs::read_to_string(&metrics).is_ok_and(|t| t.contains("\"epoch\":3"));
        while !stepped() {
            assert!(began.elapsed() < Duration::from_secs(60), "training does not begin");
            std::thread::sleep(Duration::from_millis(20));
        }
        let kill = Command::new("sh").args(["-c", r#"kill -INT "$0""#, &child.id().to_string()]).status();
        assert!(kill.unwrap().success());
        let ended = Ended::from(child.wait_with_output().unwrap());
        let json = ended.json();
        assert_eq!(json["ended"], "interrupted", "{json}");
        assert_eq!(json["kept_epoch"].is_number(), kept, "{json}");
        assert_eq!(json["steps"].as_u64().unwrap() as usize, house.metrics("out", "step").len());
        assert!(
            ended.err.contains("stopping after this step") && ended.err.contains("saved out"),
            "{}",
            ended.err
        );
        assert!(house.path("out/recipe.toml").is_file());
        usable(&house);
    }
}
