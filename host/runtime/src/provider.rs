//! Execution providers: what a user writes, and what ONNX Runtime is told. Never a silent fallback.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use ort::ep::{ArenaExtendStrategy, ExecutionProviderDispatch};
use ort::ep::{CPU, CUDA, TensorRT};
use ort::session::builder::{AutoDevicePolicy, SessionBuilder};

use crate::error::{Doing, Result, RuntimeError};
use crate::library::ORT_VERSION;

/// Where a graph runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Provider {
    /// The processor.
    Cpu,
    /// An NVIDIA GPU through CUDA.
    Cuda(Cuda),
    /// An NVIDIA GPU through TensorRT; what TensorRT can't run is run by CUDA on the same device.
    TensorRt(TensorRt),
}

/// Settings of the CUDA provider.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cuda {
    /// Device number.
    pub device: i32,
    /// Largest size of the device memory arena in bytes; `None` leaves all memory to it.
    pub memory_limit: Option<usize>,
    /// Whether the arena grows by what is asked for; otherwise by powers of two.
    pub exact_growth: bool,
    /// Whether matrix products may round to TensorFloat-32.
    pub tf32: bool,
}

/// Settings of the TensorRT provider.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TensorRt {
    /// Device number.
    pub device: i32,
    /// Largest workspace of an engine in bytes, and the arena's limit for what CUDA runs.
    pub memory_limit: Option<usize>,
    /// Whether engines may compute in half precision.
    pub fp16: bool,
    /// Folder that built engines are kept in; `None` builds them for every session.
    pub engine_cache: Option<PathBuf>,
    /// Range of shapes that engines are built for; without it, an engine is built again for each new shape.
    pub shapes: Option<ShapeProfile>,
}

/// Shapes an engine is built for, each as `input:1x16,other:1x16`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShapeProfile {
    /// The smallest shapes.
    pub min: String,
    /// The shapes engines are tuned for.
    pub opt: String,
    /// The largest shapes.
    pub max: String,
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Provider::Cpu => f.write_str("cpu"),
            Provider::Cuda(c) => write!(f, "cuda:{}", c.device),
            Provider::TensorRt(t) => write!(f, "tensorrt:{}", t.device),
        }
    }
}

impl FromStr for Provider {
    type Err = RuntimeError;

    /// Reads `cpu`, `cuda[:id]` or `tensorrt[:id]`.
    fn from_str(text: &str) -> Result<Provider> {
        let bad = |reason: &str| RuntimeError::BadProvider { text: text.into(), reason: reason.into() };
        let (name, id) = text.split_once(':').map_or((text, None), |(n, i)| (n, Some(i)));
        let device = match id {
            None => 0,
            Some(i) => i
                .parse::<u16>()
                .map(i32::from)
                .map_err(|_| bad("what follows the colon must be a device number"))?,
        };
        match name {
            "cpu" if id.is_some() => Err(bad("the cpu has no device number")),
            "cpu" => Ok(Provider::Cpu),
            "cuda" => Ok(Provider::Cuda(Cuda { device, ..Cuda::default() })),
            "tensorrt" => Ok(Provider::TensorRt(TensorRt { device, ..TensorRt::default() })),
            _ => Err(bad("there is no such provider")),
        }
    }
}

impl Provider {
    /// Settings that [`set`](Self::set) knows for this provider.
    pub fn settings(&self) -> &'static [&'static str] {
        match self {
            Provider::Cpu => &[],
            Provider::Cuda(_) => &["memory-limit", "arena", "tf32"],
            Provider::TensorRt(_) => {
                &["memory-limit", "fp16", "engine-cache", "shapes-min", "shapes-opt", "shapes-max"]
            }
        }
    }

    /// Changes one setting, as `--provider-option KEY=VALUE` would: `memory-limit` (bytes, or with the ending K, M, G
    /// for 2¹⁰, 2²⁰, 2³⁰), `arena` (`power-of-two` or `as-requested`), `tf32`, `fp16` (`true`, `false`),
    /// `engine-cache` (a folder), `shapes-min`, `shapes-opt`, `shapes-max` (`input:1x16,other:1x16`).
    ///
    /// # Errors
    /// [`RuntimeError::BadSetting`] for a setting that this provider lacks or a value that can't be read.
    pub fn set(&mut self, key: &str, value: &str) -> Result<()> {
        let known = self.settings().join(", ");
        let shown = self.to_string();
        let bad =
            |reason: String| RuntimeError::BadSetting { setting: format!("{shown} {key}={value}"), reason };
        if value.contains('\0') {
            return Err(bad("the value holds a zero byte".into()));
        }
        let yes = || value.parse::<bool>().map_err(|_| bad("the value must be true or false".into()));
        let size =
            || bytes(value).ok_or_else(|| bad("the value must be a size such as 4G, 512M or 1000000".into()));
        match (self, key) {
            (Provider::Cuda(c), "memory-limit") => c.memory_limit = Some(size()?),
            (Provider::Cuda(c), "tf32") => c.tf32 = yes()?,
            (Provider::Cuda(c), "arena") => {
                c.exact_growth = match value {
                    "as-requested" => true,
                    "power-of-two" => false,
                    _ => return Err(bad("the value must be power-of-two or as-requested".into())),
                }
            }
            (Provider::TensorRt(t), "memory-limit") => t.memory_limit = Some(size()?),
            (Provider::TensorRt(t), "fp16") => t.fp16 = yes()?,
            (Provider::TensorRt(t), "engine-cache") => t.engine_cache = Some(PathBuf::from(value)),
            (Provider::TensorRt(t), "shapes-min" | "shapes-opt" | "shapes-max") => {
                if !is_shape_list(value) {
                    return Err(bad("the value must look like input_ids:1x16,attention_mask:1x16".into()));
                }
                let shapes = t.shapes.get_or_insert_default();
                match key {
                    "shapes-min" => shapes.min = value.into(),
                    "shapes-opt" => shapes.opt = value.into(),
                    _ => shapes.max = value.into(),
                }
            }
            _ if known.is_empty() => return Err(bad("this provider has no settings".into())),
            _ => return Err(bad(format!("this provider has the settings {known}"))),
        }
        Ok(())
    }

    /// True where a session's memory lies on a device of its own.
    pub fn is_device(&self) -> bool {
        !matches!(self, Provider::Cpu)
    }

    /// Number of the device, where there is one.
    pub(crate) fn device(&self) -> Option<i32> {
        match self {
            Provider::Cpu => None,
            Provider::Cuda(c) => Some(c.device),
            Provider::TensorRt(t) => Some(t.device),
        }
    }

    /// CUDA on the device of TensorRT; others as they are.
    pub(crate) fn as_cuda(&self) -> Provider {
        match self {
            Provider::TensorRt(t) => Provider::Cuda(t.fallback()),
            other => other.clone(),
        }
    }

    /// Registers the provider with a session. `arena` is about host memory: ONNX Runtime's CPU provider keeps freed
    /// memory for the next run in an arena, and registering that provider with its defaults switches the arena *off*.
    pub(crate) fn register(&self, builder: SessionBuilder, arena: bool) -> Result<SessionBuilder> {
        let unavailable = |message: &str| self.unavailable(message);
        // Without a policy of its own, ort lets ONNX Runtime choose a device by efficiency.
        let builder = builder
            .with_auto_device(AutoDevicePolicy::PreferCPU)
            .doing(|| "choosing the processor".into())?;
        let mut providers = self.dispatch()?;
        providers.push(CPU::default().with_arena_allocator(arena).build().error_on_failure());
        builder.with_execution_providers(providers).map_err(|e| unavailable(e.message()))
    }

    fn dispatch(&self) -> Result<Vec<ExecutionProviderDispatch>> {
        Ok(match self {
            Provider::Cpu => Vec::new(),
            Provider::Cuda(c) => vec![c.dispatch()],
            Provider::TensorRt(t) => {
                vec![t.dispatch()?, t.fallback().dispatch()]
            }
        })
    }

    /// The error for a provider that ONNX Runtime could not start, with what is missing.
    pub(crate) fn unavailable(&self, message: &str) -> RuntimeError {
        RuntimeError::ProviderUnavailable {
            provider: self.to_string(),
            reason: message.lines().next().unwrap_or_default().trim().to_owned(),
            help: missing(message),
        }
    }
}

impl Cuda {
    fn dispatch(&self) -> ExecutionProviderDispatch {
        let growth = match self.exact_growth {
            true => ArenaExtendStrategy::SameAsRequested,
            false => ArenaExtendStrategy::NextPowerOfTwo,
        };
        let mut ep = CUDA::default()
            .with_device_id(self.device)
            .with_arena_extend_strategy(growth)
            .with_tf32(self.tf32);
        if let Some(limit) = self.memory_limit {
            ep = ep.with_memory_limit(limit);
        }
        ep.build().error_on_failure()
    }
}

impl TensorRt {
    /// What runs what TensorRT can't.
    fn fallback(&self) -> Cuda {
        Cuda { device: self.device, memory_limit: self.memory_limit, ..Cuda::default() }
    }

    fn dispatch(&self) -> Result<ExecutionProviderDispatch> {
        let mut ep = TensorRT::default().with_device_id(self.device).with_fp16(self.fp16);
        if let Some(limit) = self.memory_limit {
            ep = ep.with_max_workspace_size(limit);
        }
        if let Some(folder) = &self.engine_cache {
            ep = ep.with_engine_cache(true).with_engine_cache_path(folder.display()).with_timing_cache(true);
        }
        if let Some(s) = &self.shapes {
            if [&s.min, &s.opt, &s.max].iter().any(|p| p.is_empty()) {
                return Err(RuntimeError::BadSetting {
                    setting: "tensorrt shapes".into(),
                    reason: "shapes-min, shapes-opt and shapes-max must be given together".into(),
                });
            }
            ep = ep
                .with_profile_min_shapes(&s.min)
                .with_profile_opt_shapes(&s.opt)
                .with_profile_max_shapes(&s.max);
        }
        Ok(ep.build().error_on_failure())
    }
}

/// What to install, from the words that ONNX Runtime and the system's loader use.
fn missing(message: &str) -> String {
    let gpu = format!(
        "install the package `onnxruntime-gpu` {ORT_VERSION} and point ORT_DYLIB_PATH at its libonnxruntime.so"
    );
    let absent = message
        .split_whitespace()
        .find(|w| w.contains(".so") && !w.contains("libonnxruntime_providers") && w.ends_with(':'));
    if let Some(library) = absent {
        return format!(
            "The library {} is missing: install CUDA 13, cuDNN 9 and (for tensorrt) TensorRT 10, and put their \
             folders into LD_LIBRARY_PATH.",
            library.trim_end_matches(':')
        );
    }
    if message.contains("libonnxruntime_providers") {
        return format!("The provider's library is not beside the ONNX Runtime in use: {gpu}.");
    }
    if message.contains("not enabled in this build") || message.contains("not supported in this build") {
        return format!("The ONNX Runtime in use was built without it: {gpu}.");
    }
    "Check that the driver sees the device (nvidia-smi), that it has free memory, and that the device number is right."
        .into()
}

fn bytes(text: &str) -> Option<usize> {
    let digits = text.trim_end_matches(['K', 'M', 'G']);
    let shift = match &text[digits.len()..] {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        _ => return None,
    };
    digits.parse::<usize>().ok()?.checked_mul(1 << shift)
}

fn is_shape_list(text: &str) -> bool {
    text.split(',').all(|one| {
        one.rsplit_once(':').is_some_and(|(name, dims)| {
            !name.is_empty() && dims.split('x').all(|d| d.parse::<u32>().is_ok_and(|d| d > 0))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_device_numbers_are_read() {
        for (text, shown) in
            [("cpu", "cpu"), ("cuda", "cuda:0"), ("cuda:3", "cuda:3"), ("tensorrt:1", "tensorrt:1")]
        {
            assert_eq!(text.parse::<Provider>().unwrap().to_string(), shown);
        }
        for text in ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:0", "cuda:1:2"] {
            let e = text.parse::<Provider>().unwrap_err().to_string();
            assert!(e.contains(&format!("`{text}`")) && e.contains("cuda:ID"), "{e}");
        }
    }

    #[test]
    fn settings_are_those_of_the_provider() {
        let mut p: Provider = "cuda".parse().unwrap();
        p.set("memory-limit", "2G").unwrap();
        p.set("arena", "as-requested").unwrap();
        p.set("tf32", "true").unwrap();
        assert_eq!(
            p,
            Provider::Cuda(Cuda { device: 0, memory_limit: Some(2 << 30), exact_growth: true, tf32: true })
        );
        let e = p.set("fp16", "true").unwrap_err().to_string();
        assert!(e.contains("memory-limit, arena, tf32"), "{e}");
        assert!(p.set("memory-limit", "many").is_err() && p.set("tf32", "1").is_err());
        assert!(Provider::Cpu.set("fp16", "true").is_err());
    }

    #[test]
    fn shape_profiles_come_in_threes() {
        let mut p: Provider = "tensorrt".parse().unwrap();
        p.set("shapes-min", "ids:1x1,mask:1x1").unwrap();
        assert!(p.set("shapes-opt", "ids=1x1").is_err() && p.set("shapes-opt", "ids:1x0").is_err());
        assert!(p.dispatch().is_err());
        p.set("shapes-opt", "ids:8x32,mask:8x32").unwrap();
        p.set("shapes-max", "ids:32x128,mask:32x128").unwrap();
        assert_eq!(p.dispatch().map(|d| d.len()).unwrap_or(0), 2);
    }

    #[test]
    fn what_is_missing_is_named() {
        let cublas = "Failed to load library libonnxruntime_providers_cuda.so with error: libcublasLt.so.13: cannot \
                      open shared object file";
        assert!(missing(cublas).contains("The library libcublasLt.so.13 is missing"));
        assert!(
            missing("CUDA execution provider is not enabled in this build. ").contains("onnxruntime-gpu")
        );
        let beside = "Failed to load library libonnxruntime_providers_cuda.so";
        assert!(missing(beside).contains("not beside"));
    }
}
