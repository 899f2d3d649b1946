//! A server over a tiny BERT with PEFT's own adapters, asked without a socket.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test binary uses its own part; what fails is a test that fails"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use graft_graph::Tensor;
use graft_runtime::{Runtime, SessionOptions};
use graft_serve::http::{App, Settings, router};
use graft_serve::{Access, Engine, Keeping, Limits, Rates, Store};
use graft_tasks::{Base, BaseOptions};
use graft_tests::{fixture, fixture_base, runtime, shared};
use serde_json::Value;
use tempfile::TempDir;
use tower::ServiceExt;

/// The name under which the base is served.
pub const BASE: &str = "tiny";
/// PEFT's adapters: classifiers of three labels.
pub const ADAPTERS: [&str; 2] = ["lora", "ia3"];
/// One that is made of `lora` here: a single number, as rerankers have it.
pub const RANKER: &str = "ranker";

/// How a house differs from the usual one.
#[derive(Default)]
pub struct Plan {
    pub limits: Option<Limits>,
    pub access: Access,
    pub rates: Rates,
    pub body_bytes: Option<usize>,
    pub aliases: Vec<String>,
    pub keeping: Keeping,
    pub options: SessionOptions,
}

/// A server, and the folder that it serves.
pub struct House {
    pub engine: Arc<Engine>,
    pub app: App,
    pub router: Router,
    golden: PathBuf,
    dir: TempDir,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("{} {}", self.status, self.text))
    }

    /// A header as text, empty where it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    /// The body of an answer that is none of an error.
    #[track_caller]
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text);
        self.json()
    }
}

pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::write(to.join(entry.file_name()), std::fs::read(entry.path()).unwrap()).unwrap();
    }
}

/// Multiplies the tensors of an adapter that have `part` in their name, so that it answers something else.
pub fn change(dir: &Path, part: &str, factor: f32) {
    rewrite(dir, |name, t| match name.contains(part) {
        true => {
            let values: Vec<f32> = t.to_f64s().unwrap().into_iter().map(|v| v as f32 * factor).collect();
            Tensor::new(t.shape(), &values).unwrap()
        }
        false => t.clone(),
    });
}

fn rewrite(dir: &Path, of: impl Fn(&str, &Tensor) -> Tensor) {
    let file = dir.join("adapter_model.safetensors");
    let tensors = graft_adapters::read_tensors_owned(&file).unwrap();
    let new: Vec<(String, Tensor)> = tensors.iter().map(|(n, t)| (n.clone(), of(n, t))).collect();
    graft_adapters::write_tensors(&file, new.iter().map(|(n, t)| (n.as_str(), t))).unwrap();
}

/// Leaves one output of a classifier of three.
fn one_output(name: &str, t: &Tensor) -> Tensor {
    if !name.contains("classifier") {
        return t.clone();
    }
    let values: Vec<f32> = t.to_f64s().unwrap().into_iter().map(|v| v as f32).collect();
    let width = values.len() / 3;
    let shape: Vec<usize> = std::iter::once(1).chain(t.shape()[1..].iter().copied()).collect();
    Tensor::new(shape, &values[..width]).unwrap()
}

impl House {
    /// The usual one; none where there are no shared data or no ONNX Runtime.
    pub fn new() -> Option<House> {
        House::with(Plan::default())
    }

    /// One as planned.
    pub fn with(plan: Plan) -> Option<House> {
        let (golden, runtime) = (shared()?.join("conformance/adapters/bert"), runtime()?);
        let dir = tempfile::tempdir().unwrap();
        let checkpoint = dir.path().join("checkpoint");
        // The tokenizer of the fixture, which has as many words; the weights are those that PEFT's outputs come from.
        fixture_base::checkpoint(&checkpoint);
        copy(&golden.join("base"), &checkpoint);
        graft_models::import(&checkpoint, &dir.path().join("base")).unwrap();
        let adapters = dir.path().join("adapters");
        ADAPTERS.iter().for_each(|a| copy(&golden.join(a), &adapters.join(a)));
        copy(&golden.join("lora"), &adapters.join(RANKER));
        rewrite(&adapters.join(RANKER), one_output);
        Some(House::open(dir, golden, runtime, plan))
    }

    /// One over another base, without adapters; none where there is no ONNX Runtime.
    pub fn over(base: &Path, plan: Plan) -> Option<House> {
        let (runtime, dir) = (runtime()?, tempfile::tempdir().unwrap());
        std::os::unix::fs::symlink(base.canonicalize().unwrap(), dir.path().join("base")).unwrap();
        std::fs::create_dir(dir.path().join("adapters")).unwrap();
        Some(House::open(dir, PathBuf::new(), runtime, plan))
    }

    /// Another server over the same folder, in the place of this one.
    pub fn restarted(self, plan: Plan) -> House {
        let House { engine, app, router, golden, dir } = self;
        engine.stop();
        drop((engine, app, router));
        graft_serve::store::clear_leftovers(&dir.path().join("adapters")).unwrap();
        House::open(dir, golden, runtime().unwrap(), plan)
    }

    fn open(dir: TempDir, golden: PathBuf, runtime: &'static Runtime, plan: Plan) -> House {
        let adapters = dir.path().join("adapters");
        let base = Base::open(runtime, &dir.path().join("base"), &BaseOptions::default()).unwrap();
        let store = Store::new(base, BASE.into(), vec![fixture::target_dir().to_owned()]).unwrap();
        let store = Arc::new(store.keeping(plan.keeping));
        let failed = store.load_all(&adapters).unwrap();
        assert!(failed.is_empty(), "{failed:?}");
        let engine = Engine::start(store, plan.limits.unwrap_or_default(), plan.options).unwrap();
        let engine = Arc::new(engine.with_rates(plan.rates));
        let usual = Settings::default();
        let settings = Settings {
            access: plan.access,
            adapters: Some(adapters),
            aliases: plan.aliases,
            body_bytes: plan.body_bytes.unwrap_or(usual.body_bytes),
            ..usual
        };
        let app = App::new(Arc::clone(&engine), settings);
        let router = router(app.clone());
        House { engine, app, router, golden, dir }
    }

    /// The folder of the adapters.
    pub fn adapters(&self) -> PathBuf {
        self.dir.path().join("adapters")
    }

    /// A folder of PEFT's adapters.
    pub fn golden(&self, name: &str) -> PathBuf {
        self.golden.join(name)
    }

    /// The token ids that PEFT was given, without padding, and what it answered.
    pub fn expected(&self, adapter: &str) -> (Vec<Vec<i64>>, Vec<Vec<f64>>) {
        let io = graft_adapters::read_tensors_owned(&self.golden.join("io.safetensors")).unwrap();
        let ints = |name: &str| io[name].values::<i64>().unwrap().into_owned();
        let real = |row: (&[i64], &[i64])| {
            row.0.iter().zip(row.1).filter(|(_, mask)| **mask > 0).map(|(id, _)| *id).collect()
        };
        let (ids, mask) = (ints("in:input_ids"), ints("in:attention_mask"));
        let length = io["in:input_ids"].shape()[1];
        let out = &io[&format!("out:{adapter}")];
        let outputs = out.to_f64s().unwrap().chunks(out.shape()[1]).map(<[f64]>::to_vec).collect();
        (ids.chunks(length).zip(mask.chunks(length)).map(real).collect(), outputs)
    }

    /// Sends a request.
    pub async fn send(&self, method: &str, path: &str, key: Option<&str>, body: impl Into<Body>) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(key) = key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let response = self.router.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, usize::MAX).await.unwrap();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        Answer { status: parts.status, headers: parts.headers, text }
    }

    /// A number of `/metrics`; 0 where nothing was counted.
    pub async fn number(&self, line: &str) -> f64 {
        let text = self.send("GET", "/metrics", Some("root"), "").await.text;
        let found = text.lines().find_map(|l| l.strip_prefix(&format!("{line} ")));
        found.map_or(0.0, |n| n.parse().unwrap())
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, None, Body::empty()).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send("POST", path, None, body.to_string()).await
    }
}

/// A folder as a tar.
pub fn packed(dir: &Path) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_dir_all("some", dir).unwrap();
    tar.into_inner().unwrap()
}

/// The digest of an adapter's files.
pub fn digest(dir: &Path) -> String {
    graft_adapters::digest_files(graft_adapters::files_of(dir)).unwrap()
}

/// The numbers of a list.
pub fn numbers(list: &Value) -> Vec<f64> {
    list.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

#[track_caller]
pub fn close(found: &[f64], wanted: &[f64], within: f64) {
    assert_eq!(found.len(), wanted.len());
    let worst = found.iter().zip(wanted).fold(0f64, |m, (a, b)| m.max((a - b).abs()));
    assert!(worst <= within, "off by {worst:.1e}: {found:?} {wanted:?}");
}
