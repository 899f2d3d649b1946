//! A base: the model, its files, and the weights that every session over it shares.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use graft_graph::model::{self, Model, Role};
use graft_graph::sites::{Site, SiteKind, sites};
use graft_graph::{DType, Graph, Tensor, ValueId, onnx, raise};
use graft_runtime::{DeviceMemory, Provider, Runtime, Session, SessionOptions, SessionSource, SharedWeights};
use indexmap::IndexSet;

use crate::checkpoint::Checkpoint;
use crate::error::{Result, TaskError};

/// A base opened for use.
pub struct Base {
    /// Folder of the model file.
    pub dir: PathBuf,
    /// The model file.
    pub path: PathBuf,
    /// The graph, raised.
    pub graph: Graph,
    /// Roles of inputs, hidden states and pooled output.
    pub model: Model,
    /// `tokenizer.json`, where one lies beside the model or one folder up.
    pub tokenizer: Option<PathBuf>,
    /// `preprocessor_config.json`, likewise.
    pub preprocessor: Option<PathBuf>,
    /// `model_type` of `config.json`, where there is one.
    pub model_type: Option<String>,
    /// The checkpoint that the base was exported from, where it was named.
    pub checkpoint: Option<Checkpoint>,
    files: Vec<PathBuf>,
    sites: OnceLock<Vec<Site>>,
    site_paths: OnceLock<Vec<String>>,
    runtime: &'static Runtime,
    weights: OnceLock<Arc<SharedWeights>>,
    digest: OnceLock<String>,
    memory: Mutex<Option<(Provider, Arc<DeviceMemory>)>>,
}

/// How to open a base.
#[derive(Debug, Clone, Default)]
pub struct BaseOptions {
    /// Name of the value that holds the hidden states, where the outputs do not show it.
    pub hidden: Option<String>,
    /// Tokenizer file to use instead of the one beside the model.
    pub tokenizer: Option<PathBuf>,
    /// File of the images' preprocessing to use instead of the one beside the model.
    pub preprocessor: Option<PathBuf>,
    /// The checkpoint that the base was exported from, for what the export lacks.
    pub checkpoint: Option<PathBuf>,
    /// Names of values that something will be asked of, and that therefore stay in the raised graph.
    pub seen: Vec<String>,
}

/// Largest `config.json` that is read, in bytes.
const MAX_CONFIG: u64 = 16 << 20;

impl Base {
    /// Opens a model file, or a directory that holds `model.onnx`, `onnx/model.onnx` or a single `.onnx` file.
    ///
    /// # Errors
    /// [`TaskError::NoModel`] and what reading the model says.
    pub fn open(runtime: &'static Runtime, path: &Path, options: &BaseOptions) -> Result<Base> {
        let file = model_file(path)?;
        let (mut graph, files) = onnx::read_with_files(&file)?;
        let seen: Vec<ValueId> = options.seen.iter().filter_map(|n| graph.find(n)).collect();
        raise::raise_around(&mut graph, &seen);
        let mut model = model::describe(&graph, options.hidden.as_deref())?;
        let checkpoint = options.checkpoint.as_deref().map(Checkpoint::open).transpose()?;
        if let Some(checkpoint) = &checkpoint {
            checkpoint.add_pooler(&mut graph, &mut model)?;
        }
        let dir = file.parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf);
        let beside =
            |name: &str| [dir.join(name), dir.join("..").join(name)].into_iter().find(|p| p.is_file());
        Ok(Base {
            tokenizer: options.tokenizer.clone().or_else(|| beside("tokenizer.json")),
            preprocessor: options.preprocessor.clone().or_else(|| beside("preprocessor_config.json")),
            model_type: beside("config.json").and_then(|p| model_type(&p)).or_else(|| {
                options.checkpoint.as_deref().and_then(|dir| model_type(&dir.join("config.json")))
            }),
            checkpoint,
            path: file,
            dir,
            graph,
            model,
            files,
            sites: OnceLock::new(),
            site_paths: OnceLock::new(),
            runtime,
            weights: OnceLock::new(),
            digest: OnceLock::new(),
            memory: Mutex::default(),
        })
    }

    /// Adds what `tensors` lack of the inputs that the token ids imply: segments (all 0), a mask (all 1), positions.
    ///
    /// # Errors
    /// When the ids have no shape `[batch, sequence]`.
    pub fn imply_inputs(&self, get: &dyn Fn(&str) -> Option<Tensor>) -> Result<Vec<(String, Tensor)>> {
        let ids = self.model.input(Role::Ids).and_then(|v| get(self.graph.name_of(v)));
        let Some(ids) = ids else { return Ok(Vec::new()) };
        let &[rows, length] = ids.shape() else { return Ok(Vec::new()) };
        let mut implied = Vec::new();
        for (value, role) in &self.model.inputs {
            let name = self.graph.name_of(*value);
            let row: Vec<i64> = match role {
                Role::Types => vec![0; length],
                Role::Mask => vec![1; length],
                Role::Positions => (0..length as i64).collect(),
                _ => continue,
            };
            if get(name).is_none() {
                let tensor = Tensor::new([rows, length], &row.repeat(rows))?;
                implied.push((name.to_string(), self.as_declared(*value, tensor)?));
            }
        }
        Ok(implied)
    }

    /// Exports take ids as i64 or as i32.
    pub(crate) fn as_declared(&self, value: ValueId, tensor: Tensor) -> Result<Tensor> {
        if self.graph.dtype(value) != Some(DType::I32) {
            return Ok(tensor);
        }
        let narrow: Vec<i32> =
            tensor.values::<i64>()?.iter().map(|v| i32::try_from(*v).unwrap_or(0)).collect();
        Ok(Tensor::new(tensor.shape(), &narrow)?)
    }

    /// The memory of a provider's device, the same for all who ask; `None` for the processor.
    ///
    /// # Errors
    /// When the provider can't be had.
    pub fn device_memory(&self, provider: &Provider) -> Result<Option<Arc<DeviceMemory>>> {
        if !provider.is_device() {
            return Ok(None);
        }
        let mut kept = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, memory)) = &*kept
            && of == provider
        {
            return Ok(Some(Arc::clone(memory)));
        }
        let memory = DeviceMemory::new(self.runtime, provider)?;
        *kept = Some((provider.clone(), Arc::clone(&memory)));
        Ok(Some(memory))
    }

    /// Whether what is fed are images, not token ids.
    pub fn takes_images(&self) -> bool {
        self.model.input(Role::Pixels).is_some() && self.model.input(Role::Ids).is_none()
    }

    /// What people call it: its folder, or its file where that has a name of its own.
    pub fn name(&self) -> String {
        let dir = self.dir.canonicalize().unwrap_or_else(|_| self.dir.clone());
        let named = |p: &Path| p.file_name().map(|n| n.to_string_lossy().into_owned());
        let file = named(&self.path).filter(|n| n != "model.onnx");
        file.or_else(|| named(&dir)).unwrap_or_else(|| "base".into())
    }

    /// Hidden states or a pooled output, which objectives build on; for a base of images its own logits do as well.
    ///
    /// # Errors
    /// Where the base has neither: the values that might be meant.
    pub fn require_states(&self) -> Result<()> {
        let logits = self.takes_images() && self.model.logits.is_some();
        if self.model.pooled.is_none() && !logits {
            model::require_hidden(&self.graph, &self.model)?;
        }
        Ok(())
    }

    /// The sites of the graph as it is when they are first asked for.
    pub fn sites(&self) -> &[Site] {
        self.sites.get_or_init(|| sites(&self.graph))
    }

    /// The paths of every site, each once.
    pub fn site_paths(&self) -> &[String] {
        let paths = || self.sites().iter().map(|s| s.path.clone()).collect::<IndexSet<_>>();
        self.site_paths.get_or_init(|| paths().into_iter().collect())
    }

    /// The most tokens that the base has positions for, where a table of positions tells.
    pub fn longest(&self) -> Option<usize> {
        let table = |s: &Site| s.kind == SiteKind::Embedding && s.path.contains("position");
        self.sites().iter().find(|s| table(s)).map(|s| s.in_features)
    }

    /// Where texts are cut: at `asked` tokens, else at the base's own limit, and always so that `virtual_tokens` have
    /// room in front of them.
    ///
    /// # Errors
    /// [`TaskError::Input`] where they take all places that the base has.
    pub fn max_length(&self, asked: Option<usize>, virtual_tokens: usize) -> Result<Option<usize>> {
        let longest = self.longest();
        match longest {
            _ if virtual_tokens == 0 => Ok(asked.or(longest)),
            Some(n) if n <= virtual_tokens => Err(TaskError::Input {
                what: self.path.display().to_string(),
                detail: format!(
                    "{virtual_tokens} virtual tokens leave no room for a text: it has positions for {n} tokens"
                ),
            }),
            _ => Ok(asked.into_iter().chain(longest.map(|n| n - virtual_tokens)).min()),
        }
    }

    /// The runtime that sessions over this base run in.
    pub fn runtime(&self) -> &'static Runtime {
        self.runtime
    }

    /// Digest of the base's files; computed once.
    ///
    /// # Errors
    /// When a file can't be read.
    pub fn digest(&self) -> Result<&str> {
        if let Some(d) = self.digest.get() {
            return Ok(d);
        }
        let digest = graft_adapters::digest_files(&self.files)?;
        Ok(self.digest.get_or_init(|| digest))
    }

    /// Weights of the base as every session uses them: where the file is mapped.
    ///
    /// # Errors
    /// When ONNX Runtime does not take a tensor.
    pub fn weights(&self) -> Result<&Arc<SharedWeights>> {
        if let Some(w) = self.weights.get() {
            return Ok(w);
        }
        let weights = SharedWeights::new(self.runtime, onnx::shared_constants(&self.graph))?;
        Ok(self.weights.get_or_init(|| weights))
    }

    /// A session over a graph that was derived from this base: it shares the base's weights.
    ///
    /// # Errors
    /// What ONNX Runtime says of the graph.
    pub fn session(&self, graph: &Graph, options: &SessionOptions) -> Result<Session> {
        let weights = self.weights()?;
        let names: std::collections::HashSet<&str> = weights.names().collect();
        let source = SessionSource {
            proto: onnx::for_session(graph, &|name| names.contains(name)),
            weights: Some(Arc::clone(weights)),
            external_dir: Some(self.dir.canonicalize().unwrap_or_else(|_| self.dir.clone())),
        };
        Ok(Session::new(self.runtime, &source, options)?)
    }
}

fn model_type(config: &Path) -> Option<String> {
    if std::fs::metadata(config).ok()?.len() > MAX_CONFIG {
        return None;
    }
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(config).ok()?).ok()?;
    Some(json.get("model_type")?.as_str()?.to_string())
}

/// The model file that `path` names.
fn model_file(path: &Path) -> Result<PathBuf> {
    let none = |detail: String| Err(TaskError::NoModel { path: path.to_path_buf(), detail });
    if path.is_file() {
        return Ok(path.to_path_buf());
    }
    if !path.is_dir() {
        return none("there is no such file or directory".into());
    }
    if let Some(known) = ["model.onnx", "onnx/model.onnx"].iter().map(|n| path.join(n)).find(|p| p.is_file())
    {
        return Ok(known);
    }
    let listing = std::fs::read_dir(path)
        .map_err(|e| TaskError::NoModel { path: path.to_path_buf(), detail: e.to_string() })?;
    let is_onnx = |p: &PathBuf| p.extension().is_some_and(|e| e == "onnx");
    let mut found: Vec<PathBuf> = listing.flatten().map(|e| e.path()).filter(is_onnx).collect();
    found.sort();
    match found.len() {
        1 => Ok(found.remove(0)),
        0 if path.join("model.safetensors").is_file() => none(
            "it holds a checkpoint, not an ONNX model. Convert it first: graft model import DIR OUT_DIR"
                .into(),
        ),
        0 => none("it holds neither model.onnx nor onnx/model.onnx".into()),
        _ => {
            let names: Vec<String> = found.iter().map(|p| p.display().to_string()).collect();
            none(format!("it holds several models; name one of them: {}", names.join(", ")))
        }
    }
}
