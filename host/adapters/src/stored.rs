//! An adapter in memory: as a directory holds it, and fitted to a base.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use graft_graph::Tensor;
use indexmap::{IndexMap, IndexSet};

use crate::align::{Alignment, align};
use crate::error::{Error, Result};
use crate::graft_file::GraftFile;
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

impl StoredAdapter {
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
