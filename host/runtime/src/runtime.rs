//! The one ONNX Runtime environment of the process.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use ort::environment::Environment;
use ort::logging::LogLevel;
use ort::memory::MemoryInfo;

use crate::error::{Doing, Result, RuntimeError};
use crate::library::{self, Search};
use crate::provider::Provider;
use crate::session::{Session, SessionOptions, SessionSource};
use crate::threads::default_threads;

/// How to start ONNX Runtime.
#[derive(Debug, Clone, Default)]
pub struct RuntimeOptions {
    /// The library file, or the folder it lies in; `None` searches as [`Search`] describes.
    pub library: Option<PathBuf>,
    /// Threads per session where a session does not say; `None` follows the CPU quota.
    pub threads: Option<usize>,
}

/// ONNX Runtime, loaded and ready. There is one per process, and it is never torn down (doing so crashes at exit
/// under CUDA).
#[derive(Debug)]
pub struct Runtime {
    pub(crate) environment: Environment,
    pub(crate) host_memory: MemoryInfo<'static>,
    library: PathBuf,
    version: String,
    threads: usize,
}

static RUNTIME: OnceLock<Runtime> = OnceLock::new();
static STARTING: Mutex<()> = Mutex::new(());

impl Runtime {
    /// Starts ONNX Runtime, or returns the one that runs already.
    ///
    /// # Errors
    /// The library's absence, wrong version or failure to load; [`RuntimeError::AlreadyLoaded`] when another library
    /// is asked for than the one in use.
    pub fn start(options: &RuntimeOptions) -> Result<&'static Runtime> {
        // A start that panicked left nothing behind that a second start could trip over.
        let _one_at_a_time = STARTING.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(runtime) = RUNTIME.get() {
            return match &options.library {
                Some(asked) if !same_library(asked, &runtime.library) => {
                    Err(RuntimeError::AlreadyLoaded { loaded: runtime.library.clone(), asked: asked.clone() })
                }
                _ => Ok(runtime),
            };
        }
        let found = Search::from_process(options.library.clone()).find()?;
        let version = library::check(&found)?;
        let path = found.canonicalize().unwrap_or(found);
        let environment = environment(&path)?;
        environment.set_log_level(LogLevel::Warning);
        let runtime = Runtime {
            environment,
            host_memory: MemoryInfo::default(),
            library: path,
            version,
            threads: options.threads.unwrap_or_else(default_threads).max(1),
        };
        Ok(RUNTIME.get_or_init(|| runtime))
    }

    /// The library's version, `1.31.1`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The library file in use.
    pub fn library(&self) -> &Path {
        &self.library
    }

    /// Threads that a session gets when it does not say.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Tries each provider by running a one-node model on it, on its first device, in the order cpu, cuda, tensorrt.
    pub fn providers_that_start(&'static self) -> Vec<(Provider, Result<()>)> {
        ["cpu", "cuda", "tensorrt"]
            .into_iter()
            .filter_map(|name| name.parse::<Provider>().ok())
            .map(|p| {
                let started = self.try_provider(&p);
                (p, started)
            })
            .collect()
    }

    /// Runs a one-node model on `provider`.
    ///
    /// # Errors
    /// [`RuntimeError::ProviderUnavailable`] when it can't be had, and what ONNX Runtime says of the model otherwise.
    pub fn try_provider(&'static self, provider: &Provider) -> Result<()> {
        let options = SessionOptions {
            name: format!("trial of {provider}"),
            provider: provider.clone(),
            threads: Some(1),
            kernels: false,
            ..SessionOptions::default()
        };
        let mut session = Session::new(self, &SessionSource::plain(TRIAL.to_vec()), &options)?;
        let x = graft_graph::Tensor::vector(&[1.5f32, -2.0]);
        let out = session.run(&[("x", &x)], &["y"])?;
        match out.f32s("y")? {
            [3.0, -4.0] => Ok(()),
            other => Err(RuntimeError::ProviderUnavailable {
                provider: provider.to_string(),
                reason: format!("1.5 + 1.5 and -2 - 2 gave {other:?}"),
                help: "the provider computes wrongly on this machine; check driver and libraries".into(),
            }),
        }
    }
}

/// An ONNX model (opset 17) of one node, `y = x + x`, f32 of two elements.
const TRIAL: &[u8] = b"\x08\x08\x3a\x39\x0a\x0e\x0a\x01x\x0a\x01x\x12\x01y\"\x03Add\x12\x05trial\x5a\x0f\x0a\x01x\x12\x0a\
\x0a\x08\x08\x01\x12\x04\x0a\x02\x08\x02\x62\x0f\x0a\x01y\x12\x0a\x0a\x08\x08\x01\x12\x04\x0a\x02\x08\x02\x42\x04\x0a\x00\x10\x11";

fn same_library(asked: &Path, loaded: &Path) -> bool {
    let search = Search { explicit: Some(asked.to_path_buf()), ..Search::default() };
    search.find().is_ok_and(|p| p.canonicalize().unwrap_or(p) == loaded)
}

fn environment(path: &Path) -> Result<Environment> {
    let builder = ort::init_from(path).map_err(|e| RuntimeError::NotALibrary {
        path: path.to_path_buf(),
        reason: e.to_string(),
        needed: library::ORT_VERSION,
    })?;
    builder
        .with_name("graft")
        .with_telemetry(false)
        .with_logger(Arc::new(forward))
        .build()
        .doing(|| "starting ONNX Runtime".into())
}

/// What ONNX Runtime warns of on every device: sizes are reckoned on the processor, on purpose. `graft train --profile` shows
/// what runs where.
const USUAL: [&str; 3] = [
    "Memcpy nodes are added to the graph",
    "Some nodes were not assigned to the preferred execution providers",
    "Rerunning with verbose output on a non-minimal build",
];

/// Hands a message of ONNX Runtime to `tracing`.
fn forward(level: LogLevel, _category: &str, id: &str, location: &str, message: &str) {
    match level {
        LogLevel::Warning if USUAL.iter().any(|u| message.contains(u)) => {
            tracing::debug!(target: "onnxruntime", id, location, "{message}")
        }
        LogLevel::Fatal | LogLevel::Error => {
            tracing::error!(target: "onnxruntime", id, location, "{message}")
        }
        LogLevel::Warning => tracing::warn!(target: "onnxruntime", id, location, "{message}"),
        LogLevel::Info => tracing::info!(target: "onnxruntime", id, location, "{message}"),
        LogLevel::Verbose => tracing::trace!(target: "onnxruntime", id, location, "{message}"),
    }
}
