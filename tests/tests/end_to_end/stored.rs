//! What is saved and loaded gives the same numbers, bit for bit.

use std::collections::HashMap;

use graft_adapters::load;
use graft_graph::{DType, Tensor};
use graft_plugins::adapt;
use graft_runtime::{SessionOptions, View};
use graft_tasks::{Program, Task};
use graft_tests::fixture::{House, target_dir};
use graft_tests::runtime;
use graft_train::engine::{Job, Prepare};
use graft_train::recipe::Layer;
use graft_train::{Event, Interrupt, Observer, Recipe, TrainError};
use indexmap::IndexMap;

/// Ids and mask of two rows, one of them padded.
fn inputs() -> Vec<(&'static str, Tensor)> {
    let ids = [2i64, 60, 5, 71, 3, 2, 66, 3, 0, 0];
    let mask = [1i64, 1, 1, 1, 1, 1, 1, 1, 0, 0];
    let named = [("input_ids", ids), ("attention_mask", mask), ("token_type_ids", [0; 10])];
    named.map(|(n, v)| (n, Tensor::new([2, 5], &v).unwrap())).to_vec()
}

#[test]
fn running_an_adapter_twice_gives_the_same_bits() {
    let Some(house) = House::new() else { return };
    house.lora("out", "").succeeded();
    let named: Vec<(String, Tensor)> = inputs().into_iter().map(|(n, t)| (format!("in:{n}"), t)).collect();
    house.write_tensors("in.safetensors", named.iter().map(|(n, t)| (n.as_str(), t)));
    for out in ["one", "two"] {
        let line = "run base --tensors in.safetensors --threads 1";
        house.run(&format!("{line} --adapter out --out {out}.safetensors")).succeeded();
        house.run(&format!("{line} --out base-{out}.safetensors")).succeeded();
    }
    assert!(house.read("one.safetensors") == house.read("two.safetensors"));
    let (adapted, plain) = (house.tensors("one.safetensors"), house.tensors("base-one.safetensors"));
    assert_eq!((adapted["out:logits"].shape(), adapted["out:logits"].dtype()), (&[2, 3][..], DType::F32));
    assert_eq!(plain.keys().collect::<Vec<_>>(), ["out:last_hidden_state", "out:pooler_output"]);
    assert_ne!(adapted.get("out:last_hidden_state"), plain.get("out:last_hidden_state"));
}

/// A folder, a method and its settings.
const METHODS: [(&str, &str, &[&str]); 11] = [
    ("lora", "lora", &[]),
    ("biases", "lora", &["method.bias=all"]),
    ("magnitudes", "lora", &["method.use_dora=true"]),
    ("bottlenecks", "bottleneck-adapter", &[]),
    ("probe", "linear-probe", &[]),
    ("scales", "ia3", &[]),
    ("norms", "norm-tuning", &[]),
    ("bitfit", "norm-tuning", &["method.parameters=biases"]),
    ("full", "full", &[]),
    ("prompt", "prompt-tuning", &["method.virtual_tokens=3"]),
    ("prefix", "prefix-tuning", &["method.virtual_tokens=3"]),
];

/// Keeps what the parameters were when training ended.
#[derive(Default)]
struct Last(HashMap<String, Tensor>);

impl Observer for Last {
    fn observe(&mut self, event: &Event<'_>) -> Result<(), TrainError> {
        if let Event::Epoch { params, .. } | Event::Solved { params, .. } = event {
            let tensor = |p: &graft_train::Parameter| Tensor::new(p.shape.clone(), &p.values).unwrap();
            self.0 = params.iter().map(|p| (p.name.clone(), tensor(p))).collect();
        }
        Ok(())
    }
}

#[test]
fn a_loaded_adapter_gives_the_logits_of_the_parameters_that_were_trained() {
    let Some(house) = House::new() else { return };
    let Some(runtime) = runtime() else { return };
    for (out, method, settings) in METHODS {
        let mut layer = Layer::command_line();
        let text = |p: &str| house.path(p).display().to_string();
        let flags =
            [("base", text("base")), ("data", text("train.csv")), ("out", text(out)), ("lr", "0.02".into())];
        for (name, value) in flags {
            layer.flag(name, &value).unwrap();
        }
        for (name, value) in [
            ("method", method),
            ("objective", "classification"),
            ("threads", "1"),
            ("feature-cache", "false"),
        ] {
            layer.flag(name, value).unwrap();
        }
        for setting in settings {
            layer.set(setting).unwrap();
        }
        let recipe = Recipe::resolve(&[layer]).unwrap();
        let options = SessionOptions { threads: Some(1), ..SessionOptions::default() };
        let dirs = [target_dir().to_path_buf()];
        let with = Prepare { runtime, plugin_dirs: &dirs, options: options.clone() };
        let job = Job::prepare(recipe, &with).unwrap();
        let mut last = Last::default();
        job.run(&mut [&mut last], &Interrupt::new()).unwrap();
        let graph =
            adapt(&job.base.graph, &job.base.model, Some(&job.method), Some(&job.objective), false).unwrap();
        let mut fed: IndexMap<String, Tensor> =
            inputs().into_iter().map(|(n, t)| (n.to_string(), t)).collect();
        let mut loaded = Task::open(&job.base, &load(&house.path(out)).unwrap(), &dirs, &options).unwrap();
        let from_disk = loaded.run(&fed).unwrap();
        fed.extend(graph.settings.iter().map(|s| (s.input.clone(), Tensor::scalar(s.number))));
        fed.extend(last.0);
        let mut program = Program::new(&job.base, &graph.graph, &options).unwrap();
        let in_memory = program.run(&|n| fed.get(n).map(View::from)).unwrap().tensors().unwrap();
        assert!(from_disk == in_memory, "{out}");
        assert!(from_disk.iter().any(|(n, t)| n == "logits" && t.shape() == [2, 3]), "{out}");
    }
}

#[test]
fn an_adapter_that_is_trained_on_begins_where_it_ended() {
    let Some(house) = House::new() else { return };
    house.lora("first", "--set method.r=4 --set objective.pooling=cls --eval-data train.csv").succeeded();
    let line = "--method lora --epochs 1 --lr 1e-9 --init-adapter first --eval-data train.csv";
    let json = house.run(&House::training("second", line)).json();
    let eval = house.run("eval --base base --adapter first --data train.csv --threads 1 --json").json();
    assert_eq!(json["evaluation"]["accuracy"], eval["accuracy"]);
    let a = house.tensors("second/adapter_model.safetensors");
    assert_eq!(
        a.keys().collect::<Vec<_>>(),
        house.tensors("first/adapter_model.safetensors").keys().collect::<Vec<_>>()
    );
}
