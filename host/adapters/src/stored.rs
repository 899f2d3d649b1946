//! An adapter in memory: as a directory holds it, and fitted to a base.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use graft_graph::Tensor;
use indexmap::{IndexMap, IndexSet};

use crate::align::{Alignment, align};
use crate::error::{Error, Result};
use crate::graft_file::GraftFile;
use crate::hub::HubConfig;
use crate::peft::{PeftConfig, feeds};
use crate::tensors::Tensors;
use crate::{HEAD_FILE, HUB_FILE, HUB_HEAD_FILE, MODEL_FILE, PARAMETERS_FILE};

/// A trained parameter of a method: the module that it belongs to and its name there.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ParamKey {
    /// The module's path (`encoder.layer.0.attention.self.query`).
    pub path: String,
    /// The parameter's name below it: `lora_A.weight`, `lora_B.weight`, or `weight` and `bias` for those of the base.
    pub name: String,
}

impl ParamKey {
    /// A key of these parts.
    pub fn new(path: impl Into<String>, name: impl Into<String>) -> ParamKey {
        ParamKey { path: path.into(), name: name.into() }
    }

    /// The key of a whole name: the module's path, and behind its last dot the parameter's name.
    pub fn of_name(name: &str) -> ParamKey {
        let (path, name) = name.rsplit_once('.').unwrap_or(("", name));
        ParamKey::new(path, name)
    }
}

impl std::fmt::Display for ParamKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.path.is_empty() { f.write_str(&self.name) } else { write!(f, "{}.{}", self.path, self.name) }
    }
}

/// A method's trained tensors by module and name.
pub type Parameters = IndexMap<ParamKey, Tensor>;

/// The paths of the modules that a method hooks: those with more than a trained bias of the base.
pub(crate) fn hooked(parameters: &Parameters) -> Vec<String> {
    let keys = parameters.keys().filter(|k| k.name != "bias" && !k.path.is_empty());
    keys.map(|k| k.path.clone()).collect::<IndexSet<_>>().into_iter().collect()
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
    /// How the base is changed, in PEFT's terms; `None` if it is not (a linear probe), or in a way that PEFT has no
    /// format for: then paths are the base's own.
    pub peft: Option<PeftConfig>,
    /// The same in the terms of AdapterHub's library, for a bottleneck adapter in its format.
    pub hub: Option<HubConfig>,
    /// The method's trained tensors.
    pub parameters: Parameters,
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
    /// The paths of the modules that the adapter has parameters for, in order; none for parameters of no module.
    pub fn paths(&self) -> Vec<&str> {
        let paths = self.parameters.keys().map(|k| k.path.as_str()).filter(|p| !p.is_empty());
        paths.collect::<IndexSet<_>>().into_iter().collect()
    }

    /// The paths of the modules that the method hooks: those with more than a trained bias of the base.
    pub fn hooked(&self) -> Vec<String> {
        hooked(&self.parameters)
    }

    /// The paths of the modules whose input (IA)³ multiplies, in order; none for other methods.
    pub fn scaled_inputs(&self) -> impl Iterator<Item = &String> {
        let ia3 = matches!(self.peft, Some(PeftConfig::Ia3(_)));
        self.parameters.iter().filter(move |(_, t)| ia3 && feeds(t) == Some(true)).map(|(k, _)| &k.path)
    }

    /// The name of the file with the method's tensors.
    pub(crate) fn parameters_file(&self) -> &'static str {
        match (&self.peft, &self.hub) {
            (Some(_), _) => MODEL_FILE,
            (None, Some(_)) => HUB_FILE,
            (None, None) => PARAMETERS_FILE,
        }
    }

    /// The name of the file with the head's tensors.
    pub(crate) fn head_file(&self) -> &'static str {
        match (self.head.as_ref().and_then(|h| h.module.as_ref()), &self.hub) {
            (None, _) => HEAD_FILE,
            (Some(_), Some(_)) => HUB_HEAD_FILE,
            (Some(_), None) => MODEL_FILE,
        }
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

    /// The adapter's tensors in the order of what the method declares on a base, each of exactly that shape. `sites` are
    /// the places of its modules; those without one have the base's paths.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] and [`Error::Shape`] for what is declared, [`Error::ExtraTensor`] for a tensor of the
    /// adapter that nothing declares.
    pub fn bind(&self, sites: Option<&Alignment>, expected: &[Expected]) -> Result<Vec<Tensor>> {
        let path = self.dir.join(self.parameters_file());
        // Whole names are compared: where one ends and the other begins is not written in every format.
        let mut mine: IndexMap<String, (&ParamKey, &Tensor)> = IndexMap::new();
        for (key, tensor) in &self.parameters {
            let base_path = sites.and_then(|s| s.map.get(&key.path)).unwrap_or(&key.path);
            mine.insert(ParamKey::new(base_path, &key.name).to_string(), (key, tensor));
        }
        let wanted: HashSet<String> = expected.iter().map(|e| e.key.to_string()).collect();
        if let Some((_, (key, _))) = mine.iter().find(|(k, _)| !wanted.contains(*k)) {
            let why =
                "the method, with this adapter's settings, has no such parameter on this base".to_string();
            return Err(Error::ExtraTensor { path, tensor: key.to_string(), why });
        }
        let one = |e: &Expected| match mine.get(&e.key.to_string()) {
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
        let path = self.dir.join(self.head_file());
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
