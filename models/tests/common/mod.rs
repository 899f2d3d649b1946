//! Checkpoints for tests: shared ones, small ones beside the tests, and ones made on the spot.

#![allow(dead_code, reason = "each test file uses its part")]

use std::fs;
use std::path::{Path, PathBuf};

use graft_graph::Tensor;
use indexmap::IndexMap;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A folder of the shared test data; `None` with a word on stdout where there is none. On a build server that fails.
pub fn shared(path: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let root = std::env::var_os("GRAFT_SHARED").map_or(root, PathBuf::from);
    present(root.join(path), "shared data (set GRAFT_SHARED)")
}

/// The real MiniLM checkpoint, which `GRAFT_MINILM` names.
pub fn minilm() -> Option<PathBuf> {
    let path = std::env::var_os("GRAFT_MINILM").map(PathBuf::from);
    present(path.unwrap_or_default(), "MiniLM checkpoint (set GRAFT_MINILM)")
}

fn present(path: PathBuf, what: &str) -> Option<PathBuf> {
    if path.is_dir() {
        return Some(path);
    }
    assert!(std::env::var_os("CI").is_none(), "no {what}");
    println!("skipped: no {what}");
    None
}

/// A file beside the tests.
pub fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(path)
}

/// The f32 and i64 tensors of a safetensors file.
pub fn read_tensors(path: &Path) -> IndexMap<String, Tensor> {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = |view: &TensorView<'_>| {
        let dtype = match view.dtype() {
            Dtype::F32 => graft_graph::DType::F32,
            Dtype::I64 => graft_graph::DType::I64,
            other => panic!("{other}"),
        };
        let data = bytes::Bytes::copy_from_slice(view.data());
        Tensor::from_bytes(dtype, view.shape(), data).unwrap()
    };
    file.tensors().iter().map(|(n, v)| (n.clone(), tensor(v))).collect()
}

pub const VOCABULARY: usize = 11;
pub const HIDDEN: usize = 8;
pub const INNER: usize = 12;
pub const POSITIONS: usize = 16;

/// A BERT checkpoint of one layer, in a folder of its own, to be spoilt.
pub struct Checkpoint {
    pub folder: TempDir,
    pub config: Value,
    pub tensors: IndexMap<String, (Dtype, Vec<usize>, Vec<u8>)>,
}

impl Checkpoint {
    pub fn new() -> Checkpoint {
        let config = json!({
            "model_type": "bert", "vocab_size": VOCABULARY, "hidden_size": HIDDEN, "num_hidden_layers": 1,
            "num_attention_heads": 2, "intermediate_size": INNER, "max_position_embeddings": POSITIONS,
            "type_vocab_size": 2, "hidden_act": "gelu", "layer_norm_eps": 1e-12,
        });
        let mut c = Checkpoint { folder: tempfile::tempdir().unwrap(), config, tensors: IndexMap::new() };
        c.add("embeddings.word_embeddings.weight", &[VOCABULARY, HIDDEN]);
        c.add("embeddings.position_embeddings.weight", &[POSITIONS, HIDDEN]);
        c.add("embeddings.token_type_embeddings.weight", &[2, HIDDEN]);
        c.linear("embeddings.LayerNorm", &[HIDDEN]);
        for name in
            ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"]
        {
            c.linear(&format!("encoder.layer.0.{name}"), &[HIDDEN, HIDDEN]);
        }
        c.linear("encoder.layer.0.attention.output.LayerNorm", &[HIDDEN]);
        c.linear("encoder.layer.0.intermediate.dense", &[INNER, HIDDEN]);
        c.linear("encoder.layer.0.output.dense", &[HIDDEN, INNER]);
        c.linear("encoder.layer.0.output.LayerNorm", &[HIDDEN]);
        c
    }

    fn linear(&mut self, module: &str, shape: &[usize]) {
        self.add(&format!("{module}.weight"), shape);
        self.add(&format!("{module}.bias"), &shape[..1]);
    }

    /// A tensor of multiples of 1/64 between −1 and 1, which every float type holds exactly.
    pub fn add(&mut self, name: &str, shape: &[usize]) {
        let count: usize = shape.iter().product();
        let seed = name.len() + self.tensors.len() * 13;
        let values = (0..count).map(|i| ((i * 37 + seed * 11) % 129) as f32 / 64.0 - 1.0);
        let bytes = values.flat_map(f32::to_le_bytes).collect();
        self.tensors.insert(name.into(), (Dtype::F32, shape.to_vec(), bytes));
    }

    /// Every tensor gets the name that `rename` makes of its own.
    pub fn rename(&mut self, rename: impl Fn(&str) -> String) {
        self.tensors = std::mem::take(&mut self.tensors).into_iter().map(|(n, t)| (rename(&n), t)).collect();
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The place for the base, beside nothing else.
    pub fn out(&self) -> PathBuf {
        self.path().join("out/base")
    }

    pub fn write_config(&self) {
        fs::write(self.path().join("config.json"), self.config.to_string()).unwrap();
    }

    pub fn write(&self) {
        self.write_config();
        self.write_tensors("model.safetensors", |_| true);
    }

    pub fn write_tensors(&self, file: &str, keep: impl Fn(usize) -> bool) {
        let kept = self.tensors.iter().enumerate().filter(|(i, _)| keep(*i));
        let views = kept.map(|(_, (n, (d, s, b)))| (n.clone(), TensorView::new(*d, s.clone(), b).unwrap()));
        safetensors::serialize_to_file(views, None, &self.path().join(file)).unwrap();
    }

    /// Imports, and tells what went wrong; nothing may be left at or beside the place for the base then.
    pub fn refused(&self) -> String {
        let error = graft_models::import(self.path(), &self.out()).unwrap_err().to_string();
        let left: Vec<_> = fs::read_dir(self.path().join("out")).map_or_else(|_| Vec::new(), |d| d.collect());
        assert!(left.is_empty(), "left behind: {left:?}");
        error
    }
}
