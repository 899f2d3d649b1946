//! Adapters that Hugging Face PEFT and AdapterHub's library wrote give the libraries' own outputs, on bases of both of PyTorch's exporters and on the
//! one that is imported from the checkpoint.
#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::path::{Path, PathBuf};

use graft_adapters::Tensors;
use graft_graph::Tensor;
use graft_tests::fixture::House;
use graft_tests::shared;

/// Largest difference from PEFT's outputs.
const CLOSE: f64 = 1e-5;

/// Every base of a model: of the old exporter, of the new one, imported from the checkpoint.
const BASES: [&str; 3] = ["base.ts.onnx", "base.dynamo.onnx", "imported"];

/// A model of PEFT's with the tensors that go in and come out.
struct Golden {
    house: House,
    folder: PathBuf,
}

impl Golden {
    fn new(model: &str) -> Option<Golden> {
        let (shared, house) = (shared()?, House::new()?);
        Some(Golden { house, folder: shared.join("conformance/adapters").join(model) })
    }

    /// The path of a base; `imported` is made here.
    fn base(&self, base: &str) -> PathBuf {
        if self.house.path(base).exists() {
            return self.house.path(base);
        }
        if base != "imported" {
            return self.folder.join(base);
        }
        let checkpoint = self.folder.join("base");
        self.house.run(&format!("model import {} imported", checkpoint.display())).succeeded();
        self.house.path("imported")
    }

    /// Runs a base, with the adapter in a folder if there is one, and compares its output `name` with a tensor of `io`.
    fn compare(&self, base: &Path, adapter: Option<&Path>, name: &str, io: &Path, wanted: &str) {
        let adapter = adapter.map(|a| format!("--adapter {}", a.display())).unwrap_or_default();
        let tensors = self.folder.join("io.safetensors");
        let (base, tensors) = (base.display(), tensors.display());
        self.house
            .run(&format!("run {base} --tensors {tensors} --out out.safetensors {adapter}"))
            .succeeded();
        self.close(&self.house.tensors("out.safetensors"), name, io, wanted);
    }

    fn close(&self, outputs: &Tensors, name: &str, io: &Path, wanted: &str) {
        let found = outputs.get(name).unwrap_or_else(|| panic!("{name} is not among {:?}", outputs.keys()));
        let wanted = &graft_adapters::read_tensors(io).unwrap()[wanted];
        assert_eq!(found.shape(), wanted.shape());
        let (found, wanted) = (found.to_f64s().unwrap(), wanted.to_f64s().unwrap());
        let worst = found.iter().zip(&wanted).fold(0f64, |m, (a, b)| m.max((a - b).abs()));
        assert!(worst <= CLOSE, "{name} is off by {worst:.1e} from {}", io.display());
    }
}

/// Runs a base with and without PEFT's LoRA and compares with what PEFT gave. `plain` is the output with the model's
/// head; a base without one has its adapter's head.
fn compare(model: &str, base: &str, plain: Option<&str>, adapted: &str) {
    let Some(golden) = Golden::new(model) else { return };
    let (base, io) = (golden.base(base), golden.folder.join("io.safetensors"));
    if let Some(name) = plain {
        golden.compare(&base, None, name, &io, "out:base");
    }
    golden.compare(&base, Some(&golden.folder.join("lora")), adapted, &io, "out:lora");
}

#[test]
fn bert_of_the_old_exporter() {
    compare("bert", "base.ts.onnx", None, "out:logits");
}

#[test]
fn bert_of_the_new_exporter() {
    compare("bert", "base.dynamo.onnx", None, "out:logits");
}

#[test]
fn bert_imported_from_its_checkpoint() {
    compare("bert", "imported", None, "out:logits");
}

#[test]
fn llama_of_the_old_exporter() {
    compare("llama", "base.ts.onnx", Some("out:logits"), "out:logits");
}

#[test]
fn llama_of_the_new_exporter() {
    compare("llama", "base.dynamo.onnx", Some("out:logits"), "out:logits");
}

/// An adapter of BERT's gives what PEFT gave, on every base.
fn on_every_base(adapter: &str) {
    let Some(golden) = Golden::new("bert") else { return };
    let (folder, io) = (golden.folder.join(adapter), golden.folder.join("io.safetensors"));
    for base in BASES {
        golden.compare(&golden.base(base), Some(&folder), "out:logits", &io, &format!("out:{adapter}"));
    }
}

#[test]
fn scaled_features_of_bert() {
    on_every_base("ia3");
}

#[test]
fn directions_and_magnitudes_of_bert() {
    on_every_base("dora");
}

/// Virtual tokens, with the rows of the tokens themselves where PEFT keeps them in the outputs.
#[test]
fn soft_prompts_and_prefixes() {
    for (model, bases) in [("bert", &BASES[..]), ("llama", &BASES[..2])] {
        let Some(golden) = Golden::new(model) else { return };
        let io = golden.folder.join("io.safetensors");
        for base in bases.iter().map(|b| golden.base(b)) {
            for adapter in ["prompt", "prefix"] {
                let folder = golden.folder.join(adapter);
                golden.compare(&base, Some(&folder), "out:logits", &io, &format!("out:{adapter}"));
            }
        }
    }
}

/// Beside a decoder a soft prompt is in the encoder's text, and a prefix in the decoder's. What an encoder made of a
/// prompt in training is kept as it came out.
#[test]
fn virtual_tokens_beside_a_decoder_and_out_of_an_encoder() {
    for (model, name) in [("t5", "t5_prompt"), ("t5", "t5_prefix"), ("bert", "bert_p_tuning")] {
        let Some(golden) = Golden::new(model) else { return };
        let adapter = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
        let io = adapter.join("out.safetensors");
        for base in &BASES[..2] {
            golden.compare(&golden.base(base), Some(&adapter), "out:logits", &io, "out:logits");
        }
    }
}

/// An export without its pooler and an adapter without its head have both from the checkpoint.
#[test]
fn a_pooler_and_a_head_are_found_in_the_checkpoint() {
    let Some(golden) = Golden::new("bert") else { return };
    let house = &golden.house;
    let (lora, from) = (golden.folder.join("lora"), golden.folder.join("base"));
    let mut adapter = graft_adapters::read_tensors(&lora.join("adapter_model.safetensors")).unwrap();
    let mut checkpoint = graft_adapters::read_tensors(&from.join("model.safetensors")).unwrap();
    for name in ["classifier.weight", "classifier.bias"] {
        let head = adapter.shift_remove(&format!("base_model.model.{name}")).unwrap();
        checkpoint.insert(name.into(), head);
    }
    let config = std::fs::read_to_string(lora.join("adapter_config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
    config["modules_to_save"] = serde_json::Value::Null;
    for folder in ["headless", "trained"] {
        std::fs::create_dir(house.path(folder)).unwrap();
    }
    house.write("headless/adapter_config.json", config.to_string());
    std::fs::copy(from.join("config.json"), house.path("trained/config.json")).unwrap();
    for (file, tensors) in [("headless/adapter_model", &adapter), ("trained/model", &checkpoint)] {
        house.write_tensors(&format!("{file}.safetensors"), tensors.iter().map(|(n, t)| (n.as_str(), t)));
    }
    let io = golden.folder.join("io.safetensors");
    for base in &BASES[..2] {
        let mut graph = graft_graph::onnx::read(&golden.folder.join(base)).unwrap();
        let kept = graph.outputs.iter().copied().filter(|v| !graph.name_of(*v).contains("pool")).collect();
        graph.outputs = kept;
        graph.remove_dead();
        let bare = house.path(&format!("bare.{base}"));
        graft_graph::onnx::write(&graph, &bare, graft_graph::onnx::Placement::Inline).unwrap();
        let line = format!("run {} --tensors {} --out out.safetensors", bare.display(), io.display());
        let with = format!("{line} --adapter headless");
        house.run(&format!("{with} --checkpoint trained")).succeeded();
        golden.close(&house.tensors("out.safetensors"), "out:logits", &io, "out:lora");
        house.run(&format!("{with} --checkpoint headless")).refused(&["model.safetensors"]);
    }
}

#[test]
fn trained_norms_of_bert() {
    let Some(golden) = Golden::new("bert") else { return };
    let adapter = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/bert_ln_tuning");
    for base in BASES {
        golden.compare(
            &golden.base(base),
            Some(&adapter),
            "out:logits",
            &adapter.join("out.safetensors"),
            "out:logits",
        );
    }
}

/// The head of the checkpoint, in the files that AdapterHub's library keeps one in.
fn with_head(golden: &Golden, adapter: &str) -> PathBuf {
    let (from, to) = (golden.folder.join(adapter), golden.house.path(adapter));
    std::fs::create_dir(&to).unwrap();
    for name in ["adapter_config.json", "adapter.safetensors"] {
        std::fs::write(to.join(name), std::fs::read(from.join(name)).unwrap()).unwrap();
    }
    let all = graft_adapters::read_tensors(&golden.folder.join("base/model.safetensors")).unwrap();
    let head = ["classifier.bias", "classifier.weight"].map(|name| (name, &all[name]));
    graft_adapters::write_tensors(&to.join("model_head.safetensors"), head).unwrap();
    to
}

#[test]
fn bottlenecks_of_bert() {
    let Some(golden) = Golden::new("bert") else { return };
    let (adapter, io) = (with_head(&golden, "ah_seq_bn"), golden.folder.join("io.safetensors"));
    for base in BASES {
        golden.compare(&golden.base(base), Some(&adapter), "out:logits", &io, "out:ah_seq_bn");
    }
}

/// Compares adapters in a folder of this test's data, on every base, with what stands beside each of them.
fn beside(folder: &str, adapters: &[&str]) {
    let Some(golden) = Golden::new("bert") else { return };
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(folder);
    for name in adapters {
        let adapter = data.join(name);
        let out = adapter.join("out.safetensors");
        for base in BASES {
            golden.compare(&golden.base(base), Some(&adapter), "out:logits", &out, "out:logits");
        }
    }
}

/// After attention too; beside the layers; with norms and learned scales; and with everything else that may be set.
#[test]
fn every_place_of_a_bottleneck_in_bert() {
    beside("bert_bottleneck", &["houlsby", "parallel", "norms", "around"]);
}

/// Ranks and alphas of some modules, some layers, embeddings, and DoRA of these.
#[test]
fn options_of_lora_in_bert() {
    beside("bert_lora_options", &["patterns", "embeddings", "embeddings_dora", "layers"]);
}

/// Compares an adapter of this test's data with what stands beside it, on bases of both exporters, and so what it is
/// merged to.
fn run_and_merged(name: &str) {
    let model = name.split('_').next().unwrap();
    let Some(golden) = Golden::new(model) else { return };
    let adapter = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    let out = adapter.join("out.safetensors");
    for base in &BASES[..2] {
        let base = golden.base(base);
        golden.compare(&base, Some(&adapter), "out:logits", &out, "out:logits");
        let merged = golden.house.path(&format!("{}.onnx", base.file_stem().unwrap().display()));
        let line = format!("merge {} {} {}", base.display(), adapter.display(), merged.display());
        golden.house.run(&line).succeeded();
        golden.compare(&merged, None, "out:logits", &out, "out:logits");
    }
}

/// Projections that the file holds, and those that are drawn as PyTorch draws them.
#[test]
fn scales_of_shared_projections() {
    for name in ["bert_vera", "bert_vera_drawn", "bert_vera_layers", "llama_vera", "t5_vera"] {
        run_and_merged(name);
    }
}

#[test]
fn products_of_low_rank_updates() {
    for name in ["bert_loha", "llama_loha", "t5_loha"] {
        run_and_merged(name);
    }
}

/// LoHa with strides, groups, and the kernel taken apart by its axes; and DoRA. Updates of a convolution in groups have no
/// place in its weight.
#[test]
fn updates_of_convolutions() {
    let Some(house) = House::new() else { return };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/conv");
    let golden = Golden { house, folder: folder.clone() };
    std::fs::copy(folder.join("in.safetensors"), golden.house.path("in.safetensors")).unwrap();
    let run = |line: String| {
        golden.house.run(&format!("{line} --out out.safetensors")).succeeded();
    };
    for (adapter, merges) in
        [("loha", true), ("dora", true), ("loha_effective", false), ("loha_groups", false)]
    {
        let (adapter, out) = (folder.join(adapter), folder.join(adapter).join("out.safetensors"));
        let close =
            || golden.close(&golden.house.tensors("out.safetensors"), "out:logits", &out, "out:logits");
        for base in ["ts.onnx", "dynamo.onnx"] {
            let plain = folder.join(base);
            run(format!("run {} --tensors in.safetensors --adapter {}", plain.display(), adapter.display()));
            close();
            let merged = format!("{}.{base}", adapter.file_name().unwrap().display());
            let line = format!("merge {} {} {merged}", plain.display(), adapter.display());
            if merges {
                golden.house.run(&line).succeeded();
                run(format!("run {merged} --tensors in.safetensors"));
                close();
            } else {
                golden.house.run(&line).refused(&["middle", "in groups"]);
            }
        }
    }
}

/// What `graft export` and `graft merge` write are plain models: run without any adapter they give PEFT's outputs.
fn plain(model: &str, adapter: &str, verbs: &[&str]) {
    let Some(golden) = Golden::new(model) else { return };
    let (folder, io) = (golden.folder.join(adapter), golden.folder.join("io.safetensors"));
    for base in &BASES[..2] {
        for verb in verbs {
            let out = format!("{verb}.{base}");
            let from = golden.folder.join(base);
            let line = format!("{verb} {} {} {out}", from.display(), folder.display());
            golden.house.run(&line).succeeded();
            golden.compare(&golden.house.path(&out), None, "out:logits", &io, &format!("out:{adapter}"));
            golden.house.run(&line).refused(&[&out, "exists"]);
        }
    }
}

#[test]
fn a_lora_that_is_exported_or_merged_gives_pefts_outputs_without_graft() {
    for (model, adapter) in [("bert", "lora"), ("bert", "dora"), ("llama", "lora"), ("t5", "lora")] {
        plain(model, adapter, &["export", "merge"]);
    }
}

#[test]
fn virtual_tokens_that_are_exported_give_pefts_outputs_without_graft() {
    for model in ["bert", "llama"] {
        for adapter in ["prompt", "prefix"] {
            plain(model, adapter, &["export"]);
        }
    }
}

/// PEFT keeps the weight of a norm of Gemma's, exporters write 1 more into the graph. Norms that were moved so far that this
/// does not show are taken only with the architecture's name.
#[test]
fn norms_that_multiply_by_one_more_than_their_weight() {
    let Some(house) = House::new() else { return };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/gemma_norms");
    let golden = Golden { house, folder: folder.clone() };
    let house = &golden.house;
    let (adapter, out) = (folder.join("adapter"), folder.join("out.safetensors"));
    let tensors = folder.join("in.safetensors");
    let trained = graft_adapters::read_tensors(&adapter.join("adapter_model.safetensors")).unwrap();
    let half = |t: &Tensor| {
        let moved: Vec<f32> = t.values::<f32>().unwrap().iter().map(|v| v + 0.5).collect();
        Tensor::new(t.shape(), &moved).unwrap()
    };
    let far: Vec<(&str, Tensor)> = trained.iter().map(|(n, t)| (n.as_str(), half(t))).collect();
    for place in ["far", "named"] {
        std::fs::create_dir(house.path(place)).unwrap();
    }
    std::fs::copy(adapter.join("adapter_config.json"), house.path("far/adapter_config.json")).unwrap();
    house.write_tensors("far/adapter_model.safetensors", far.iter().map(|(n, t)| (*n, t)));
    house.write("named/config.json", r#"{"model_type": "gemma"}"#);
    for base in ["ts.onnx", "dynamo.onnx"] {
        let run = |base: &Path, adapter: &Path| {
            let line = format!("run {} --tensors {}", base.display(), tensors.display());
            house.run(&format!("{line} --adapter {} --out out.safetensors", adapter.display()))
        };
        run(&folder.join(base), &adapter).succeeded();
        golden.close(&house.tensors("out.safetensors"), "out:logits", &out, "out:logits");
        run(&folder.join(base), &house.path("far")).refused(&["layers.0.input_layernorm", "config.json"]);
        let named = house.path("named").join(base);
        std::fs::copy(folder.join(base), &named).unwrap();
        run(&named, &house.path("far")).succeeded();
    }
}
