//! The same training as PyTorch's, step by step.

use graft_adapters::read_tensors;
use graft_graph::Tensor;
use graft_tests::fixture::House;
use graft_tests::shared;

use std::path::Path;

use super::relative;

/// Prepared batches in which each step of 16 rows stands once whole and once in two halves.
fn halves(house: &House) {
    let ids = |at: usize, rows: usize| -> Tensor {
        let ids: Vec<i64> =
            (at * 16 * 7..(at * 16 + rows) * 7).map(|i| (i as i64 * 31 + 5) % 90 + 4).collect();
        Tensor::new([rows, 7], &ids).unwrap()
    };
    let labels = |from: usize, rows: usize| -> Tensor {
        let labels: Vec<i64> = (from..from + rows).map(|i| (i as i64 * 7 / 3) % 3).collect();
        Tensor::new([rows], &labels).unwrap()
    };
    let (mut whole, mut halved) = (Vec::new(), Vec::new());
    for step in 0..12 {
        let all = ids(step, 16);
        let values = all.values::<i64>().unwrap();
        whole.push((format!("input_ids:{step}"), all.clone()));
        whole.push((format!("labels:{step}"), labels(step * 16, 16)));
        for micro in 0..2 {
            let part = Tensor::new([8, 7], &values[micro * 56..(micro + 1) * 56]).unwrap();
            halved.push((format!("input_ids:{step}.{micro}"), part));
            halved.push((format!("labels:{step}.{micro}"), labels(step * 16 + micro * 8, 8)));
        }
    }
    for (name, tensors) in [("whole.safetensors", &whole), ("halved.safetensors", &halved)] {
        house.write_tensors(name, tensors.iter().map(|(n, t)| (n.as_str(), t)));
    }
}

#[test]
fn two_micro_batches_of_a_step_are_worth_one_batch_of_both() {
    let Some(house) = House::new() else { return };
    halves(&house);
    for out in ["whole", "halved"] {
        let line = "train --base base --objective classification --method lora --epochs 2 --lr 0.005 --threads 1 --json";
        let json = house.run(&format!("{line} --batches {out}.safetensors --out {out}")).json();
        assert_eq!(json["steps"], 24);
    }
    let off = relative(&house.losses("whole"), &house.losses("halved"));
    assert!(off < 1e-5, "{off:.1e}");
}

#[test]
fn accumulation_averages_micro_batches_of_rows() {
    let Some(house) = House::new() else { return };
    let line = "--method lora --epochs 2 --lr 0.02 --batch-size 8 --accumulation 2";
    let json = house.run(&House::training("out", line)).json();
    // 60 rows are 8 batches, which are 4 steps.
    assert_eq!(json["steps"], 8);
    let samples: u64 = house.metrics("out", "step")[..4].iter().filter_map(|s| s["samples"].as_u64()).sum();
    assert_eq!(samples, 60);
}

/// Norm of the difference between all tensors of two adapter files, relative to the norm of the second's.
fn distance(found: &indexmap::IndexMap<String, Tensor>, wanted: &indexmap::IndexMap<String, Tensor>) -> f64 {
    let (mut off, mut size) = (0f64, 0f64);
    for (name, w) in wanted {
        let f =
            found.get(name).unwrap_or_else(|| panic!("`{name}` is missing; there are {:?}", found.keys()));
        for (f, w) in f.to_f64s().unwrap().iter().zip(w.to_f64s().unwrap()) {
            off += (f - w).powi(2);
            size += w.powi(2);
        }
    }
    (off / size).sqrt()
}

/// Trains over the shared batches from `initial` on, as the shared run did, and compares losses and the adapter behind.
fn as_pytorch(method: &str, file: &str, run: &Path, loss: &str) {
    let (Some(shared), Some(house)) = (shared(), House::new()) else { return };
    let base = shared.join("conformance/adapters/bert/base");
    house.run(&format!("model import {} imported", base.display())).succeeded();
    let line = "train --base imported --objective classification --lr 0.005 --weight-decay 0.01 \
                --schedule linear --warmup-steps 5 --epochs 1 --out out --json";
    let batches = shared.join("conformance/training/bert_lora/run.safetensors");
    let (dir, batches) = (run.display(), batches.display());
    let rest = format!("--method {method} --init-adapter {dir}/initial --batches {batches}");
    let json = house.run(&format!("{line} {rest}")).json();
    assert_eq!(json["steps"], 50);
    let wanted: Vec<f64> = read_tensors(&run.join(loss)).unwrap()["loss"].to_f64s().unwrap();
    let off = relative(&house.losses("out"), &wanted);
    assert!(off < 1e-5, "a loss is off by {off:.1e}");
    let wanted = read_tensors(&run.join("final").join(file)).unwrap();
    // AdapterHub's keys hold the adapter's name, which is one of its own here.
    let wanted =
        wanted.into_iter().map(|(k, t)| (k.replace(".adapters.a.", ".adapters.adapter."), t)).collect();
    let off = distance(&house.tensors(&format!("out/{file}")), &wanted);
    assert!(off < 1e-5, "the adapter is off by {off:.1e}");
}

#[test]
fn fifty_steps_of_lora_are_those_of_pytorch() {
    let Some(shared) = shared() else { return };
    let run = shared.join("conformance/training/bert_lora");
    as_pytorch("lora", "adapter_model.safetensors", &run, "run.safetensors");
}

/// The norm of the weights is detached from the gradient, as PEFT does.
#[test]
fn fifty_steps_of_dora_are_those_of_peft() {
    as_pytorch("lora", "adapter_model.safetensors", &data("bert_dora"), "loss.safetensors");
}

/// Each group of PEFT's `create_loraplus_optimizer` has parameters here: `A`, `B`, an embedding, and vectors, of which some
/// are the base's and one is the head's.
#[test]
fn fifty_steps_of_lora_plus_are_those_of_peft() {
    let method = "lora --set method.loraplus_lr_ratio=4 --set method.loraplus_lr_embedding=0.0125";
    as_pytorch(method, "adapter_model.safetensors", &data("bert_loraplus"), "loss.safetensors");
}

#[test]
fn fifty_steps_of_bottleneck_adapters_are_those_of_adapterhub() {
    as_pytorch("bottleneck-adapter", "adapter.safetensors", &data("bert_houlsby"), "loss.safetensors");
}

fn data(run: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/training").join(run)
}
