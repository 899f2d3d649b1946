//! Models that PyTorch exported, against the outputs that PyTorch gave.

mod common;

use std::path::{Path, PathBuf};

use bytes::Bytes;
use common::runtime;
use graft_graph::{DType, Tensor};
use graft_runtime::{Session, SessionOptions, SessionSource};
use safetensors::{Dtype, SafeTensors};

fn shared() -> Option<PathBuf> {
    let folder = std::env::var_os("GRAFT_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    if folder.join("conformance").is_dir() {
        return Some(folder);
    }
    assert!(std::env::var_os("CI").is_none(), "no shared data: set GRAFT_SHARED");
    println!("skipped: no shared data");
    None
}

fn tensor(view: &safetensors::tensor::TensorView<'_>) -> Tensor {
    let dtype = match view.dtype() {
        Dtype::F32 => DType::F32,
        Dtype::I64 => DType::I64,
        other => panic!("{other:?} is not expected in these files"),
    };
    let bytes = Bytes::copy_from_slice(view.data());
    Tensor::from_bytes(dtype, view.shape().to_vec(), bytes).expect("a checked file")
}

/// Models that ONNX Runtime itself can't run: this one gives one name to the lengths of two different inputs, and ONNX
/// Runtime reuses memory by those names.
const KNOWN_FAILURES: [&str; 1] = ["t5.ts"];

/// Runs a model on its `in:` tensors and compares with its `out:` tensors; gives the largest relative error.
fn error_of(folder: &Path) -> f32 {
    let runtime = runtime().expect("checked by the caller");
    let model = std::fs::read(folder.join("model.onnx")).expect("the model");
    let file = std::fs::read(folder.join("io.safetensors")).expect("its tensors");
    let io = SafeTensors::deserialize(&file).expect("a checked file");
    let named = |prefix: &str| -> Vec<(String, Tensor)> {
        let all = io.iter().filter_map(|(n, v)| Some((n.strip_prefix(prefix)?.to_owned(), tensor(&v))));
        all.collect()
    };
    let (inputs, outputs) = (named("in:"), named("out:"));
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let options = SessionOptions { name, ..SessionOptions::default() };
    let mut s = Session::new(runtime, &SessionSource::plain(model), &options).expect("the model loads");
    let given: Vec<(&str, &Tensor)> = inputs.iter().map(|(n, t)| (n.as_str(), t)).collect();
    let wanted: Vec<&str> = outputs.iter().map(|(n, _)| n.as_str()).collect();
    let first = s.run(&given, &wanted).expect("the model runs");
    let again = s.run(&given, &wanted).expect("the model runs");
    let mut worst = 0f32;
    for (name, want) in &outputs {
        let want = want.values::<f32>().expect("f32 outputs");
        let got = first.f32s(name).expect("f32 outputs");
        assert_eq!(got.len(), want.len(), "{folder:?} {name}");
        assert_eq!(
            first.tensor(name).ok(),
            again.tensor(name).ok(),
            "{folder:?}: the second run gives other bits"
        );
        let size = want.iter().fold(1e-20f32, |m, v| m.max(v.abs()));
        worst = got.iter().zip(want.iter()).fold(worst, |m, (a, b)| m.max((a - b).abs() / size));
    }
    worst
}

#[test]
fn exported_models_give_the_outputs_of_pytorch_and_the_same_bits_each_time() {
    let (Some(shared), Some(_)) = (shared(), runtime()) else { return };
    let folders = std::fs::read_dir(shared.join("conformance/autodiff")).unwrap();
    let mut tried = 0;
    for folder in folders {
        let folder = folder.unwrap().path();
        if KNOWN_FAILURES.iter().any(|k| folder.ends_with(k)) {
            continue;
        }
        let error = error_of(&folder);
        assert!(error < 1e-4, "{folder:?}: relative error {error}");
        tried += 1;
    }
    assert!(tried >= 2, "the folder holds several models");
}
