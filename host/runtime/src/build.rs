//! From options and a graph to ONNX Runtime's own session.

use std::sync::{Arc, Mutex};

use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};

use crate::declared::external;
use crate::error::{Doing, Result, RuntimeError};
use crate::kernels::{self, KERNELS};
use crate::runtime::Runtime;
use crate::session::{Optimization, SessionOptions, SessionSource, Spinning};

/// Sessions are created one at a time: ONNX Runtime's table of domains (custom operators add to it) and the device
/// providers' libraries do not bear it otherwise.
static CREATING: Mutex<()> = Mutex::new(());

/// Makes the session; without Graft's kernels where the graph is not of their type.
pub(crate) fn commit(
    runtime: &'static Runtime,
    source: &SessionSource,
    options: &SessionOptions,
) -> Result<ort::session::Session> {
    let _one_at_a_time = CREATING.lock().unwrap_or_else(|e| e.into_inner());
    let attempt = |kernels| -> Result<Result<_, ort::Error>> {
        Ok(configure(runtime, source, options, kernels)?.commit_from_memory(&source.proto))
    };
    // They are the processor's: on a device the function bodies run, and nothing is copied there and back.
    let kernels = options.kernels && !options.provider.is_device();
    let mut made = attempt(kernels)?;
    if let Err(e) = &made
        && kernels
        && is_kernel_type(e.message())
    {
        tracing::debug!(session = options.name, "no kernel for this type, function bodies run: {e}");
        made = attempt(false)?;
    }
    made.map_err(|e| {
        if options.provider.is_device() && is_provider_failure(e.message()) {
            return options.provider.unavailable(e.message());
        }
        RuntimeError::Ort { doing: format!("loading {}", options.name), message: e.message().to_owned() }
    })
}

/// Whether ONNX Runtime refused a graph because one of Graft's operators is of a type that there is no kernel for. Its
/// function body serves every type, but is only looked at where no kernel of that name is registered.
fn is_kernel_type(message: &str) -> bool {
    message.contains("Type Error") && KERNELS.iter().any(|k| message.contains(&format!("operator ({k})")))
}

/// CUDA and TensorRT load their libraries while a session is made; what they say then is not about the graph.
fn is_provider_failure(message: &str) -> bool {
    [
        "CUDA failure",
        "CUDA error",
        "Failed to load library",
        "cannot open shared object",
        "no CUDA-capable device",
    ]
    .iter()
    .any(|m| message.contains(m))
}

fn configure(
    runtime: &'static Runtime,
    source: &SessionSource,
    o: &SessionOptions,
    kernels: bool,
) -> Result<SessionBuilder> {
    let doing = || format!("preparing {}", o.name);
    let level = match o.optimization {
        Optimization::Off => GraphOptimizationLevel::Disable,
        Optimization::Basic => GraphOptimizationLevel::Level1,
        Optimization::Extended => GraphOptimizationLevel::Level2,
        Optimization::All => GraphOptimizationLevel::All,
    };
    let mut b = SessionBuilder::new(&runtime.environment).doing(doing)?;
    b = o.provider.register(b, o.arena)?;
    b = b.with_log_id(o.name.replace('\0', "")).doing(doing)?;
    b = b.with_intra_threads(o.threads.unwrap_or(runtime.threads()).max(1)).doing(doing)?;
    b = b.with_optimization_level(level).doing(doing)?;
    b = b.with_memory_pattern(o.memory_pattern).doing(doing)?;
    b = b.with_deterministic_compute(o.deterministic).doing(doing)?;
    b = b.with_intra_op_spinning(o.spinning != Spinning::Never).doing(doing)?;
    if o.spinning == Spinning::InRuns {
        b = b.with_config_entry("session.force_spinning_stop", "1").doing(doing)?;
    }
    // Products with a dequantised weight may be joined to one kernel, which would by default round activations to 8 bits.
    b = b.with_config_entry("session.qdq_matmulnbits_accuracy_level", "1").doing(doing)?;
    if kernels {
        b = b.with_operators(kernels::domain().doing(doing)?).doing(doing)?;
    }
    if let Some(path) = &o.profile {
        b = b.with_profiling(path).doing(doing)?;
    }
    if let Some(dir) = &source.external_dir {
        let dir = dir.to_str().filter(|d| !d.contains('\0')).ok_or_else(|| RuntimeError::BadSetting {
            setting: format!("folder of external data {}", dir.display()),
            reason: "its path must be UTF-8 without zero bytes".into(),
        })?;
        b = b.with_config_entry("session.model_external_initializers_file_folder_path", dir).doing(doing)?;
    }
    if let Some(weights) = &source.weights {
        let declared = external(&o.name, &source.proto)?;
        for w in weights.values() {
            // Weights that this graph does not use would only cost time.
            let Some(declaration) = declared.get(&w.name) else { continue };
            declaration.check(&o.name, &w.name, w.dtype, &w.shape)?;
            let value = Arc::clone(&w.value);
            // A device copies the weights into its own memory; only the processor can use them where they lie.
            b = match o.provider.is_device() {
                true => b.with_external_initializer(&w.name, value).doing(doing)?,
                false => b.with_initializer(&w.name, value).doing(doing)?,
            };
        }
        if !o.provider.is_device() {
            b = b.with_prepacked_weights(weights.packed()).doing(doing)?;
        }
    }
    Ok(b)
}
