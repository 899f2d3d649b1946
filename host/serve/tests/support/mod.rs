//! An engine over a tiny BERT of PEFT's, with PEFT's own adapters and the outputs that PEFT gave.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test binary uses its own part; what fails is a test that fails"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use graft_runtime::SessionOptions;
use graft_serve::access::{Access, KeyFile};
use graft_serve::http::{App, Settings};
use graft_serve::{Engine, Limits, Store};
use graft_tasks::{Base, BaseOptions};
use graft_tests::{fixture, fixture_base, runtime, shared};
use tempfile::TempDir;

/// The name under which the base is served.
pub const BASE: &str = "tiny";
/// The adapters.
pub const ADAPTERS: [&str; 4] = ["lora", "ia3", "dora", "prompt"];

/// The administrator's key.
pub const ADMIN: &str = "root";

/// A served folder.
pub struct House {
    /// The engine.
    pub engine: Arc<Engine>,
    golden: PathBuf,
    dir: TempDir,
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::write(to.join(entry.file_name()), std::fs::read(entry.path()).unwrap()).unwrap();
    }
}

/// Gives the tokenizer as many pieces as the model has rows: PEFT's inputs were drawn from all of them.
fn fill_vocabulary(file: &Path) {
    let mut tokenizer: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let pieces = tokenizer["model"]["vocab"].as_object_mut().unwrap();
    for id in pieces.len()..fixture_base::VOCABULARY {
        pieces.insert(format!("[unused{id}]"), id.into());
    }
    std::fs::write(file, tokenizer.to_string()).unwrap();
}

impl House {
    /// A new one; none where there are no shared data or no ONNX Runtime.
    pub fn new() -> Option<House> {
        let (golden, runtime) = (shared()?.join("conformance/adapters/bert"), runtime()?);
        let dir = tempfile::tempdir().unwrap();
        let checkpoint = dir.path().join("checkpoint");
        // The tokenizer of the fixture, which has as many words; the weights are those that PEFT's outputs come from.
        fixture_base::checkpoint(&checkpoint);
        copy(&golden.join("base"), &checkpoint);
        fill_vocabulary(&checkpoint.join("tokenizer.json"));
        graft_models::import(&checkpoint, &dir.path().join("base")).unwrap();
        let adapters = dir.path().join("adapters");
        ADAPTERS.iter().for_each(|a| copy(&golden.join(a), &adapters.join(a)));
        let base = Base::open(runtime, &dir.path().join("base"), &BaseOptions::default()).unwrap();
        let plugins = vec![fixture::target_dir().to_owned()];
        let store = Arc::new(Store::new(base, BASE.into(), plugins).unwrap());
        let failed = store.load_all(&adapters).unwrap();
        assert!(failed.is_empty(), "{failed:?}");
        let engine = Engine::start(store, Limits::default(), SessionOptions::default()).unwrap();
        Some(House { engine: Arc::new(engine), golden, dir })
    }

    /// A server that has no key but the administrator's.
    pub fn app(&self) -> App {
        let access = Access::new(&KeyFile { admin: Some(ADMIN.into()), ..KeyFile::default() });
        let settings = Settings { access, adapters: Some(self.adapters()), ..Settings::default() };
        App::new(Arc::clone(&self.engine), settings)
    }

    /// The folder of the adapters.
    pub fn adapters(&self) -> PathBuf {
        self.dir.path().join("adapters")
    }

    /// Token ids and mask of three rows of nine tokens, padded on the right.
    pub fn tokens(&self) -> [Vec<i64>; 2] {
        let io = graft_adapters::read_tensors_owned(&self.golden.join("io.safetensors")).unwrap();
        ["in:input_ids", "in:attention_mask"].map(|name| io[name].to_i64s().unwrap())
    }

    /// The label and its probability of each of these rows, as PEFT has them.
    pub fn expected(&self, adapter: &str) -> Vec<(String, f64)> {
        let io = graft_adapters::read_tensors_owned(&self.golden.join("io.safetensors")).unwrap();
        let logits = io[&format!("out:{adapter}")].to_f64s().unwrap();
        let row = |row: &[f64]| {
            let (best, top) = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap();
            let sum: f64 = row.iter().map(|x| (x - top).exp()).sum();
            (format!("LABEL_{best}"), 1.0 / sum)
        };
        logits.chunks_exact(3).map(row).collect()
    }
}

/// The bytes of a tensor of BYTES.
pub fn bytes(elements: &[&str]) -> Vec<u8> {
    graft_serve::v2::tensor::encode_bytes(elements).unwrap()
}

/// The bytes of a tensor of INT64.
pub fn int64s(values: &[i64]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}
