//! Adapters that Hugging Face PEFT wrote give PEFT's own outputs, on bases of both of PyTorch's exporters and on the
//! one that is imported from the checkpoint.
#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use graft_tests::fixture::House;
use graft_tests::shared;

/// Runs a base with and without PEFT's adapter and compares with what PEFT gave. `output` is the output with the
/// model's head; a base without one has its adapter's head.
fn compare(model: &str, base: &str, plain: Option<&str>, adapted: &str) {
    let (Some(shared), Some(house)) = (shared(), House::new()) else { return };
    let folder = shared.join("conformance/adapters").join(model);
    let io = graft_adapters::read_tensors(&folder.join("io.safetensors")).unwrap();
    let base = if base == "imported" {
        house.run(&format!("model import {} imported", folder.join("base").display())).succeeded();
        house.path("imported")
    } else {
        folder.join(base)
    };
    let run = |more: &str| {
        let (base, io) = (base.display(), folder.join("io.safetensors").display().to_string());
        house.run(&format!("run {base} --tensors {io} --out out.safetensors {more}")).succeeded();
        house.tensors("out.safetensors")
    };
    let close = |found: &graft_graph::Tensor, wanted: &str| {
        let wanted = &io[wanted];
        assert_eq!(found.shape(), wanted.shape());
        let (found, wanted) = (found.to_f64s().unwrap(), wanted.to_f64s().unwrap());
        let worst = found.iter().zip(&wanted).fold(0f64, |m, (a, b)| m.max((a - b).abs()));
        assert!(worst <= 1e-5, "{model} on {}: off by {worst:.1e}", base.display());
    };
    if let Some(name) = plain {
        close(&run("")[name], "out:base");
    }
    let outputs = run(&format!("--adapter {}", folder.join("lora").display()));
    let found = outputs.get(adapted).unwrap_or_else(|| panic!("{adapted} is not among {:?}", outputs.keys()));
    close(found, "out:lora");
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
