//! Sessions: a graph, loaded and optimised for one provider.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use graft_graph::DType;
use ort::memory::{Allocator, MemoryInfo};
use ort::value::{Outlet, TensorElementType, ValueType};

use crate::build;
use crate::cancel::CancelToken;
use crate::error::{Doing, Result, RuntimeError};
use crate::lent::Lending;
use crate::profile;
use crate::provider::Provider;
use crate::runtime::Runtime;
use crate::weights::SharedWeights;

/// How far ONNX Runtime may rewrite a graph while loading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Optimization {
    /// Not at all: the graph runs as written.
    Off,
    /// Rewrites that keep to standard operators.
    Basic,
    /// Also fusions into ONNX Runtime's own operators.
    Extended,
    /// Everything, memory layouts included.
    #[default]
    All,
}

/// How a session is built.
#[derive(Debug, Clone)]
pub struct SessionOptions {
    /// Name used in messages and logs.
    pub name: String,
    /// Where the graph runs.
    pub provider: Provider,
    /// Threads within an operator; `None` takes [`Runtime::threads`].
    pub threads: Option<usize>,
    /// How far ONNX Runtime may rewrite the graph.
    pub optimization: Optimization,
    /// Whether memory is planned ahead from the first run's shapes; of use where shapes repeat.
    pub memory_pattern: bool,
    /// Whether freed memory is kept for the next run.
    pub arena: bool,
    /// Whether only kernels that give the same bits each time may be used.
    pub deterministic: bool,
    /// Whether Graft's own kernels run the nodes of domain `graft`; otherwise, and in graphs where such a node is of
    /// another type than f32, their function bodies do.
    pub kernels: bool,
    /// When idle threads look for work all the time.
    pub spinning: Spinning,
    /// File that ONNX Runtime's profile is written to by [`Session::finish_profile`].
    pub profile: Option<PathBuf>,
}

/// When threads without work look for some all the time: the next operator starts sooner, and others don't get the
/// processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Spinning {
    /// Never.
    Never,
    /// While the graph runs: for a process that has other work between runs.
    InRuns,
    /// For a while after a run as well: where one follows the other.
    #[default]
    Always,
}

impl Default for SessionOptions {
    fn default() -> SessionOptions {
        SessionOptions {
            name: "session".into(),
            provider: Provider::Cpu,
            threads: None,
            optimization: Optimization::All,
            memory_pattern: true,
            arena: true,
            deterministic: true,
            kernels: true,
            spinning: Spinning::default(),
            profile: None,
        }
    }
}

/// A graph to load: the serialised `ModelProto`, and where the initializers lie whose bytes it leaves out.
#[derive(Debug, Clone, Default)]
pub struct SessionSource {
    /// The `ModelProto`.
    pub proto: Vec<u8>,
    /// Weights for initializers that the model declares as external data, by name. Weights that the model does not
    /// use are ignored.
    pub weights: Option<Arc<SharedWeights>>,
    /// Folder that `location` entries of external data are relative to. ONNX Runtime wants a file at every location
    /// even when all tensors come from `weights`; any existing file does, whatever its size.
    pub external_dir: Option<PathBuf>,
}

impl SessionSource {
    /// A model that holds all it needs.
    pub fn plain(proto: Vec<u8>) -> SessionSource {
        SessionSource { proto, ..SessionSource::default() }
    }
}

/// One input or output of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Element type; `None` for what is no tensor or of a type that Graft does not handle.
    pub dtype: Option<DType>,
    /// Dimensions: `Some` where the graph fixes them.
    pub dims: Vec<Option<usize>>,
    shown: String,
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// A loaded graph. Runs take `&mut self`: ONNX Runtime's are not safe to overlap.
pub struct Session {
    pub(crate) keep: Arc<Keep>,
    /// Tells the plans of different sessions apart.
    pub(crate) id: u64,
    pub(crate) runtime: &'static Runtime,
    pub(crate) name: String,
    pub(crate) inputs: Vec<Port>,
    pub(crate) outputs: Vec<Port>,
    pub(crate) cancel: Option<CancelToken>,
    /// For each input what its last values are.
    pub(crate) lending: Vec<Lending>,
    inner: ort::session::Session,
    profile: Option<PathBuf>,
}

/// What must outlive every value that a session gave out; fields are dropped in this order.
pub(crate) struct Keep {
    pub(crate) inner: Arc<ort::session::SharedSessionInner>,
    _weights: Option<Arc<SharedWeights>>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({}, {} inputs, {} outputs)", self.name, self.inputs.len(), self.outputs.len())
    }
}

impl Session {
    /// Loads a graph.
    ///
    /// # Errors
    /// [`RuntimeError::ProviderUnavailable`] when the provider can't be had, [`RuntimeError::Ort`] with ONNX Runtime's
    /// own words when the graph is not one that it accepts.
    pub fn new(
        runtime: &'static Runtime,
        source: &SessionSource,
        options: &SessionOptions,
    ) -> Result<Session> {
        let inner = build::commit(runtime, source, options)?;
        let inputs: Vec<Port> = inner.inputs().iter().map(port).collect();
        let outputs: Vec<Port> = inner.outputs().iter().map(port).collect();
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Ok(Session {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            lending: inputs.iter().map(|_| Lending::default()).collect(),
            keep: Arc::new(Keep { inner: inner.inner(), _weights: source.weights.clone() }),
            runtime,
            name: options.name.clone(),
            inputs,
            outputs,
            cancel: None,
            inner,
            profile: options.profile.clone(),
        })
    }

    /// ONNX Runtime's allocator for memory that this session uses.
    pub(crate) fn allocator(&self, memory: MemoryInfo<'static>) -> ort::Result<Allocator> {
        Allocator::new(&self.inner, memory)
    }

    /// The name given in the options.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Inputs in the graph's order.
    pub fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    /// Outputs in the graph's order.
    pub fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    /// Lets `token` stop this session's runs; `None` takes it away.
    pub fn set_cancel(&mut self, token: Option<CancelToken>) {
        self.cancel = token;
    }

    /// Ends profiling and writes the file that the options named; returns its path. The file is ONNX Runtime's JSON,
    /// which [`profile::summary`] reads and trace viewers show.
    ///
    /// # Errors
    /// [`RuntimeError::BadSetting`] when the session does not profile, [`RuntimeError::Profile`] when the file can't
    /// be written.
    pub fn finish_profile(&mut self) -> Result<PathBuf> {
        let Some(path) = self.profile.take() else {
            return Err(RuntimeError::BadSetting {
                setting: "SessionOptions::profile".into(),
                reason: format!("session {} does not profile, or its profile was written already", self.name),
            });
        };
        let written = self.inner.end_profiling().doing(|| format!("ending the profile of {}", self.name))?;
        profile::put(Path::new(&written), &path)?;
        Ok(path)
    }
}

fn port(outlet: &Outlet) -> Port {
    let (dtype, dims, shown) = match outlet.dtype() {
        ValueType::Tensor { ty, shape, dimension_symbols } => {
            let dims: Vec<Option<usize>> = shape.iter().map(|d| usize::try_from(*d).ok()).collect();
            let text: Vec<String> = dims
                .iter()
                .enumerate()
                .map(|(i, d)| match (d, dimension_symbols.get(i)) {
                    (Some(d), _) => d.to_string(),
                    (None, Some(s)) if !s.is_empty() => s.clone(),
                    _ => "?".into(),
                })
                .collect();
            let dtype = dtype_of(*ty);
            let name = dtype.map_or_else(|| ty.to_string(), |d| d.to_string());
            (dtype, dims, format!("{name} [{}]", text.join(", ")))
        }
        other => (None, Vec::new(), other.to_string()),
    };
    Port { name: outlet.name().to_owned(), dtype, dims, shown }
}

fn dtype_of(ty: TensorElementType) -> Option<DType> {
    let kind: ort::sys::ONNXTensorElementDataType = ty.into();
    DType::from_onnx(kind as i32)
}
