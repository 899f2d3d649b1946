//! What the tests of this crate share.
#![allow(dead_code, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, reason = "a helper of tests that fails is a test that fails")]

use std::path::{Path, PathBuf};

use graft_adapters::{
    BaseRef, Component, Composition, GraftFile, LoraConfig, ObjectiveInfo, ParamKey, PeftConfig,
    StoredAdapter,
};
use graft_graph::Tensor;

/// A folder of the shared test data, or `None` (with a word about it) where there is none and this is not CI.
pub fn shared(folder: &str) -> Option<PathBuf> {
    let root = std::env::var_os("GRAFT_SHARED").map(PathBuf::from);
    let root = root.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"));
    let path = root.join(folder);
    if path.exists() {
        return Some(path);
    }
    assert!(std::env::var_os("CI").is_none(), "shared data is needed in CI: {folder}");
    println!("skipped: no shared data");
    None
}

/// A tensor of small different numbers.
pub fn numbers(shape: &[usize]) -> Tensor {
    let n = shape.iter().product::<usize>();
    let values: Vec<f32> = (0..n).map(|i| (i as f32 - n as f32 / 2.0) / 64.0).collect();
    Tensor::new(shape.to_vec(), &values).unwrap()
}

/// What a training run on a wrapped BERT base hands over: LoRA on query and value of two layers of width 8.
pub fn composition(pooling: &str) -> Composition {
    let config =
        LoraConfig::new(2, 4.0, graft_adapters::peft::Targets::List(vec!["query".into(), "value".into()]));
    let mut parameters = Vec::new();
    let mut base_modules = Vec::new();
    for layer in 0..2 {
        for module in ["query", "key", "value"] {
            let path = format!("m.encoder.layer.{layer}.attention.self.{module}");
            base_modules.push(path.clone());
            if module != "key" {
                parameters.push((ParamKey::new(&path, "lora_A.weight"), numbers(&[2, 8])));
                parameters.push((ParamKey::new(&path, "lora_B.weight"), numbers(&[8, 2])));
            }
        }
    }
    let objective = ObjectiveInfo {
        id: "classification".into(),
        labels: ["low", "middle", "high"].map(String::from).to_vec(),
        ..Default::default()
    };
    let base = BaseRef { digest: "blake3:00".into(), name: "tiny".into(), model_type: Some("bert".into()) };
    let head = [("weight", numbers(&[3, 8])), ("bias", numbers(&[3]))];
    Composition {
        graft: GraftFile::new(Component { id: "lora".into(), ..Default::default() }, objective, base),
        peft: Some(PeftConfig::Lora(config)),
        hub: None,
        parameters,
        head: head.into_iter().map(|(n, t)| (n.to_string(), t)).collect(),
        pooling: Some(pooling.into()),
        base_modules,
    }
}

/// A composed adapter.
pub fn adapter(pooling: &str) -> StoredAdapter {
    StoredAdapter::compose(composition(pooling)).unwrap()
}

/// The same without the directory that it came from.
pub fn homeless(adapter: StoredAdapter) -> StoredAdapter {
    let mut out = StoredAdapter { dir: PathBuf::new(), ..adapter };
    if let Some(g) = &mut out.graft {
        g.files.clear();
    }
    out
}
