//! Gradients of models that PyTorch exported, against the gradients that PyTorch computed.

use std::path::{Path, PathBuf};

use graft_adapters::read_tensors;
use graft_graph::grad::{GradError, gradient_model};
use graft_graph::{Graph, Tensor};
use graft_runtime::Runtime;
use graft_tasks::{Base, BaseOptions, GradientRun, gradients};
use graft_tests::{on_provider, runtime, shared};
use indexmap::IndexMap;

/// Models whose gradients are derived completely.
const COMPLETE: [&str; 8] =
    ["bert.dynamo", "bert.ts", "clip.ts", "gpt2.ts", "llama.dynamo", "resnet.ts", "t5.ts", "vit.dynamo"];

/// Largest error of a gradient or output, relative in norm.
const CLOSE: f64 = 1e-4;

struct Model {
    base: Base,
    tensors: IndexMap<String, Tensor>,
    /// Names of the values that PyTorch's gradients are there of.
    names: Vec<String>,
}

impl Model {
    fn open(runtime: &'static Runtime, folder: &Path) -> Model {
        let base = Base::open(runtime, folder, &BaseOptions::default()).expect("the model opens");
        let tensors = read_tensors(&folder.join("io.safetensors")).expect("a checked file");
        let names: Vec<String> =
            tensors.keys().filter_map(|n| n.strip_prefix("grad:")).map(str::to_string).collect();
        assert!(!names.is_empty(), "{}: no gradients to compare with", folder.display());
        Model { base, tensors, names }
    }

    fn run(&self, wrt: &[String]) -> GradientRun {
        gradients(&self.base, &self.tensors, Some(wrt), None, &on_provider()).expect("gradients run")
    }

    /// Compares outputs, and the gradients of `wrt`, with PyTorch's.
    fn check(&self, wrt: &[String]) {
        let run = self.run(wrt);
        let wanted =
            |n: &&String| n.starts_with("out:") || wrt.iter().any(|w| n.strip_prefix("grad:") == Some(w));
        let keys: Vec<&String> = self.tensors.keys().filter(wanted).collect();
        let mut norms: Vec<f64> = keys.iter().map(|k| norm(&numbers(&self.tensors[*k]))).collect();
        norms.sort_by(f64::total_cmp);
        let typical = norms[norms.len() / 2];
        for key in keys {
            let (want, got) = (&self.tensors[key], &run.tensors[key]);
            assert_eq!(got.shape(), want.shape(), "{key}");
            let (want, got) = (numbers(want), numbers(got));
            let difference: Vec<f64> = want.iter().zip(&got).map(|(a, b)| a - b).collect();
            // What is zero by symmetry, as the gradient of a key's bias, is rounding noise in PyTorch's figures, too.
            let scale = norm(&want).max(1e-2 * typical);
            let error = norm(&difference) / scale;
            assert!(error <= CLOSE, "{}: {key} is off by {error:.1e}", self.base.path.display());
        }
    }
}

fn numbers(t: &Tensor) -> Vec<f64> {
    t.to_f64s().expect("floats")
}

fn norm(v: &[f64]) -> f64 {
    v.iter().map(|x| x * x).sum::<f64>().sqrt()
}

fn folder() -> Option<(PathBuf, &'static Runtime)> {
    Some((shared()?.join("conformance/autodiff"), runtime()?))
}

#[test]
fn every_exported_model_is_in_a_list() {
    let Some((folder, _)) = folder() else { return };
    let mut there: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    let mut listed = COMPLETE.to_vec();
    there.sort();
    listed.sort_unstable();
    assert_eq!(there, listed);
}

#[test]
fn provider_gradients_are_those_of_pytorch() {
    let Some((folder, runtime)) = folder() else { return };
    for name in COMPLETE {
        let model = Model::open(runtime, &folder.join(name));
        model.check(&model.names);
        // Unasked, every trainable parameter is among what gradients are given of.
        let all = gradient_model(&model.base.graph, None).unwrap().wrt;
        let missing: Vec<&String> = model.names.iter().filter(|n| !all.contains(n)).collect();
        assert!(missing.is_empty(), "{name}: no gradients of {missing:?}");
    }
}

/// A model in which the operator that makes the patches is one that has no rule.
fn without_a_rule(model: &Model) -> Graph {
    let mut graph = model.base.graph.clone();
    let conv = graph.nodes.iter_mut().find(|n| n.is("Conv")).expect("a convolution");
    conv.op = "Unheard".into();
    graph
}

#[test]
fn where_a_rule_is_missing_the_error_names_operator_node_and_module() {
    let Some((folder, runtime)) = folder() else { return };
    let known = [
        ("clip.ts", "m.vision_model.embeddings.patch_embedding"),
        ("vit.dynamo", "m.embeddings.patch_embeddings.projection"),
    ];
    for (name, path) in known {
        let model = Model::open(runtime, &folder.join(name));
        let graph = without_a_rule(&model);
        match gradient_model(&graph, Some(&model.names)) {
            Err(GradError::NoRule { op, node, module }) => {
                assert_eq!((op.as_str(), module.as_str()), ("Unheard", path), "{name}");
                assert!(graph.nodes.iter().any(|n| n.name == node && n.op == op), "{node}");
            }
            Err(e) => panic!("{name}: {e}"),
            Ok(_) => panic!("{name}: an operator that nobody has heard of is derived"),
        }
    }
}

#[test]
fn what_lies_behind_the_missing_rule_has_its_gradients_all_the_same() {
    let Some((folder, runtime)) = folder() else { return };
    let model = Model::open(runtime, &folder.join("vit.dynamo"));
    let graph = without_a_rule(&model);
    let derivable = |n: &&String| gradient_model(&graph, Some(std::slice::from_ref(*n))).is_ok();
    let (behind, before): (Vec<&String>, Vec<&String>) = model.names.iter().partition(derivable);
    assert!(behind.len() > 20, "only {behind:?} have gradients");
    assert!(before.iter().all(|n| n.contains("patch_embeddings.projection")), "{before:?} have none");
    assert_eq!(before.len(), 2);
}
