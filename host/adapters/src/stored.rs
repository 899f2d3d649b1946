//! An adapter in memory: as a directory holds it, and fitted to a base.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use graft_graph::Tensor;
use indexmap::{IndexMap, IndexSet};

use crate::align::{Alignment, align};
use crate::architecture::{Architecture, StockHead};
use crate::error::{Error, Result};
use crate::graft_file::{GraftFile, HeadInfo};
use crate::peft::PeftConfig;
use crate::tensors::Tensors;
use crate::{HEAD_FILE, MODEL_FILE};

/// A trained parameter of a method: the module that it belongs to and its name there.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ParamKey {
    /// The module's path (`encoder.layer.0.attention.self.query`).
    pub path: String,
    /// The parameter's name below it: `lora_A.weight`, `lora_B.weight`, or `bias` for a trained bias of the base.
    pub name: String,
}

impl ParamKey {
    /// A key of these parts.
    pub fn new(path: impl Into<String>, name: impl Into<String>) -> ParamKey {
        ParamKey { path: path.into(), name: name.into() }
    }
}

impl std::fmt::Display for ParamKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.path, self.name)
    }
}

/// The objective's own trained layers.
#[derive(Debug, Clone, PartialEq)]
pub struct Head {
    /// The module under which PEFT keeps it (`classifier`); `None` when it is in Graft's own file.
    pub module: Option<String>,
    /// Its tensors by the objective's names; for a linear head `weight [labels, hidden]` and `bias [labels]`.
    pub tensors: Tensors,
}

/// An adapter as a directory holds it. Paths are those of the model that PEFT would wrap (`bert.encoder…` for a
/// classifier); [`StoredAdapter::sites_in`] finds them in a base.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredAdapter {
    /// Where it was loaded from; empty for one that was composed.
    pub dir: PathBuf,
    /// How the base is changed; `None` if it is not (a linear probe).
    pub peft: Option<PeftConfig>,
    /// The method's trained tensors.
    pub parameters: IndexMap<ParamKey, Tensor>,
    /// The head, if there is one.
    pub head: Option<Head>,
    /// Graft's own file; `None` for an adapter of PEFT's.
    pub graft: Option<GraftFile>,
}

/// A parameter that a method declares on a base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Which, with the path in the base.
    pub key: ParamKey,
    /// Its shape.
    pub shape: Vec<usize>,
}

/// What an adapter is composed of after training.
#[derive(Debug, Clone)]
pub struct Composition {
    /// Graft's file, without head and manifest.
    pub graft: GraftFile,
    /// The method's settings in PEFT's terms; `None` for methods that change nothing in the base.
    pub peft: Option<PeftConfig>,
    /// The trained tensors under the base's module paths.
    pub parameters: Vec<(ParamKey, Tensor)>,
    /// The head's tensors by the objective's names; empty without a head.
    pub head: Tensors,
    /// How the objective pools before the head, if it does.
    pub pooling: Option<String>,
    /// The paths of the base's linear modules, so that the written target modules mean exactly those trained.
    pub base_modules: Vec<String>,
}

impl StoredAdapter {
    /// Gives trained tensors the layout in which they are stored. With a head that stock PEFT can rebuild it is an
    /// adapter of a sequence classifier with the head under `modules_to_save`; otherwise one for feature extraction,
    /// on the bare model's paths, with the head in a file of its own.
    ///
    /// # Errors
    /// [`Error::Compose`] when there is nothing to store, or two modules of the base would get the same path.
    pub fn compose(c: Composition) -> Result<StoredAdapter> {
        let Composition { mut graft, mut peft, parameters, head, pooling, base_modules } = c;
        let fail = |reason: String| Err(Error::Compose { reason });
        if peft.is_none() && !parameters.is_empty() {
            return fail(format!(
                "`{}` is not in PEFT's formats, but the method trained it",
                parameters[0].0
            ));
        }
        if peft.is_none() && head.is_empty() {
            return fail("neither the method nor the objective trained anything".into());
        }
        if peft.is_some() && parameters.is_empty() {
            return fail("the method has no trained tensors".into());
        }
        let arch = graft.base.model_type.as_deref().and_then(Architecture::of);
        let paths: IndexSet<&str> = parameters.iter().map(|(k, _)| k.path.as_str()).collect();
        let arch_fits = arch.filter(|a| paths.iter().all(|p| a.bare(p).is_some()));
        let stock = stock_head(arch_fits, &graft, pooling.as_deref(), &head).and_then(|s| match peft {
            Some(_) => Ok(s),
            None => Err(format!("PEFT has no adapters of the kind `{}`", graft.method.id)),
        });
        let rename = |path: &str| match (arch_fits.and_then(|a| Some((a, a.bare(path)?))), &stock) {
            (Some((a, bare)), Ok(_)) => a.prefixed(bare),
            (Some((_, bare)), Err(_)) => bare.to_string(),
            (None, _) => path.to_string(),
        };
        let mut renamed = IndexMap::new();
        for (key, tensor) in parameters {
            let new = ParamKey::new(rename(&key.path), key.name.clone());
            if renamed.insert(new, tensor).is_some() {
                return fail(format!(
                    "`{key}` and another module of the base get the same path in PEFT's format"
                ));
            }
        }
        renamed.sort_unstable_keys();
        if let Some(config) = &mut peft {
            let mut others: Vec<String> = base_modules.iter().map(|m| rename(m)).collect();
            // The checkpoint that PEFT wraps may have modules that the exported graph has lost.
            others.extend(arch_fits.into_iter().flat_map(|a| a.optional).map(|m| rename(m)));
            narrow(config, &renamed, others);
            let common = config.common_mut();
            common.task_type = Some(if stock.is_ok() { "SEQ_CLS" } else { "FEATURE_EXTRACTION" }.to_string());
            common.modules_to_save = stock.as_ref().ok().map(|s| vec![s.module.to_string()]);
            common.inference_mode = true;
        }
        let module = stock.as_ref().ok().map(|s| s.module.to_string());
        graft.head = (!head.is_empty()).then(|| HeadInfo {
            pooling,
            module: module.clone(),
            not_stock: stock.as_ref().err().cloned(),
        });
        let head = (!head.is_empty()).then_some(Head { module, tensors: head });
        Ok(StoredAdapter { dir: PathBuf::new(), peft, parameters: renamed, head, graft: Some(graft) })
    }

    /// The paths of the modules that the adapter has parameters for, in order.
    pub fn paths(&self) -> Vec<&str> {
        self.parameters.keys().map(|k| k.path.as_str()).collect::<IndexSet<_>>().into_iter().collect()
    }

    /// The paths of the modules that the method hooks: those with more than a trained bias of the base.
    pub fn hooked(&self) -> Vec<String> {
        let keys = self.parameters.keys().filter(|k| k.name != "bias");
        keys.map(|k| k.path.clone()).collect::<IndexSet<_>>().into_iter().collect()
    }

    /// Refuses a base with another digest. An adapter without Graft's file names none, and passes.
    ///
    /// # Errors
    /// [`Error::OtherBase`].
    pub fn check_base(&self, digest: &str) -> Result<()> {
        match &self.graft {
            Some(g) if g.base.digest != digest => Err(Error::OtherBase {
                dir: self.dir.clone(),
                name: g.base.name.clone(),
                expected: g.base.digest.clone(),
                found: digest.to_string(),
            }),
            _ => Ok(()),
        }
    }

    /// Finds every module of the adapter among a base's module paths.
    ///
    /// # Errors
    /// [`Error::Align`] naming the modules that are not there, or the places that fit equally well.
    pub fn sites_in(&self, base_modules: &[impl AsRef<str>]) -> Result<Alignment> {
        let paths = self.paths();
        align(&paths, base_modules).map_err(|source| Error::Align { dir: self.dir.clone(), source })
    }

    /// The adapter's tensors in the order of what the method declares on a base, each of exactly that shape.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] and [`Error::Shape`] for what is declared, [`Error::ExtraTensor`] for a tensor of the
    /// adapter that nothing declares.
    pub fn bind(&self, sites: &Alignment, expected: &[Expected]) -> Result<Vec<Tensor>> {
        let path = self.dir.join(MODEL_FILE);
        let mut mine: IndexMap<ParamKey, (&ParamKey, &Tensor)> = IndexMap::new();
        for (key, tensor) in &self.parameters {
            let base_path = sites.map.get(&key.path).unwrap_or(&key.path);
            mine.insert(ParamKey::new(base_path, &key.name), (key, tensor));
        }
        let wanted: HashSet<&ParamKey> = expected.iter().map(|e| &e.key).collect();
        if let Some((_, (key, _))) = mine.iter().find(|(k, _)| !wanted.contains(k)) {
            let why =
                "the method, with this adapter's settings, has no such parameter on this base".to_string();
            return Err(Error::ExtraTensor { path, tensor: key.to_string(), why });
        }
        let one = |e: &Expected| match mine.get(&e.key) {
            Some((key, tensor)) => fit(&path, &key.to_string(), tensor, &e.shape),
            None => Err(Error::MissingTensor {
                path: path.clone(),
                tensor: e.key.to_string(),
                why: "the method needs it on this base".into(),
            }),
        };
        expected.iter().map(one).collect()
    }

    /// The head's tensors in the order of what the objective declares, each of exactly that shape.
    ///
    /// # Errors
    /// As [`StoredAdapter::bind`].
    pub fn bind_head(&self, expected: &[(&str, &[usize])]) -> Result<Vec<Tensor>> {
        let none = Tensors::new();
        let (module, tensors) = self.head.as_ref().map_or((None, &none), |h| (h.module.as_ref(), &h.tensors));
        let path = self.dir.join(if module.is_some() { MODEL_FILE } else { HEAD_FILE });
        let full = |name: &str| module.map_or_else(|| name.to_string(), |m| format!("{m}.{name}"));
        if let Some(name) = tensors.keys().find(|n| expected.iter().all(|e| e.0 != n.as_str())) {
            let why = "the objective's head has no such parameter".to_string();
            return Err(Error::ExtraTensor { path, tensor: full(name), why });
        }
        let one = |(name, shape): &(&str, &[usize])| match tensors.get(*name) {
            Some(t) => fit(&path, &full(name), t, shape),
            None => {
                let why = "the objective's head needs it".to_string();
                Err(Error::MissingTensor { path: path.clone(), tensor: full(name), why })
            }
        };
        expected.iter().map(one).collect()
    }
}

fn fit(path: &Path, name: &str, tensor: &Tensor, shape: &[usize]) -> Result<Tensor> {
    if tensor.shape() == shape {
        return Ok(tensor.clone());
    }
    let (found, expected) = (tensor.shape().to_vec(), format!("{shape:?}"));
    Err(Error::Shape { path: path.to_path_buf(), tensor: name.to_string(), found, expected })
}

/// The stock classifier head that these tensors are, or why they are none.
fn stock_head(
    arch: Option<&'static Architecture>,
    graft: &GraftFile,
    pooling: Option<&str>,
    head: &Tensors,
) -> Result<&'static StockHead, String> {
    let model_type = graft.base.model_type.as_deref();
    if head.is_empty() {
        return Err("the objective has no head".into());
    }
    let Some(arch) = arch else {
        return Err(match model_type {
            None => "the base does not say its model_type".into(),
            Some(t) => format!("how stock classifiers of `{t}` are built on these modules is not known"),
        });
    };
    let Some(stock) = &arch.head else {
        return Err(format!("the stock classifier of `{}` is not one linear layer", arch.model_type));
    };
    if pooling != Some(stock.pooling) {
        let mine = pooling.unwrap_or("none");
        return Err(format!(
            "the stock classifier of `{}` pools `{}`, this one `{mine}`",
            arch.model_type, stock.pooling
        ));
    }
    let weight = head.get("weight").is_some_and(|w| w.shape().len() == 2);
    let bias = head.contains_key("bias");
    if !weight || bias != stock.bias || head.len() != 1 + usize::from(bias) {
        let names: Vec<&str> = head.keys().map(String::as_str).collect();
        return Err(format!("its tensors ({}) are not those of the stock classifier", names.join(", ")));
    }
    Ok(stock)
}

/// Writes the target modules so that PEFT finds exactly the modules that were trained: the names as the user gave
/// them where they do that, the full paths otherwise.
fn narrow(config: &mut PeftConfig, parameters: &IndexMap<ParamKey, Tensor>, base: Vec<String>) {
    let hooked: IndexSet<String> =
        parameters.keys().filter(|k| k.name != "bias").map(|k| k.path.clone()).collect();
    let others: Vec<String> = base.into_iter().filter(|p| !hooked.contains(p)).collect();
    let hooked: Vec<String> = hooked.into_iter().collect();
    if !config.targets_exactly(&hooked, &others) {
        config.target(&hooked);
    }
}
