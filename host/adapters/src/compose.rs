//! From trained tensors to an adapter in the layout that it is stored in.

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;

use graft_graph::Tensor;

use crate::architecture::{Architecture, StockHead};
use crate::error::{Error, Result};
use crate::graft_file::{GraftFile, HeadInfo};
use crate::hub::HubConfig;
use crate::peft::PeftConfig;
use crate::stored::{Head, ParamKey, Parameters, StoredAdapter, hooked};
use crate::tensors::Tensors;

/// What an adapter is composed of after training.
#[derive(Debug, Clone)]
pub struct Composition {
    /// Graft's file, without head and manifest.
    pub graft: GraftFile,
    /// The method's settings in PEFT's terms; `None` for methods that change nothing in the base, or that PEFT has no
    /// format for.
    pub peft: Option<PeftConfig>,
    /// The same in the terms of AdapterHub's library, for bottleneck adapters.
    pub hub: Option<HubConfig>,
    /// The trained tensors under the base's module paths.
    pub parameters: Vec<(ParamKey, Tensor)>,
    /// The head's tensors by the objective's names; empty without a head.
    pub head: Tensors,
    /// How the objective pools before the head, if it does.
    pub pooling: Option<String>,
    /// The paths of the base's modules, so that the written target modules mean exactly those trained.
    pub base_modules: Vec<String>,
}

/// The objective whose heads stock PEFT rebuilds in token classifiers.
const TOKEN_CLASSIFICATION: &str = "token-classification";

/// How module paths of the base are written: as the task model of an architecture has them, as its bare model has
/// them, or as they are.
struct Naming {
    arch: Option<&'static Architecture>,
    prefixed: bool,
}

impl Naming {
    fn name(&self, path: &str) -> String {
        match self.arch.and_then(|a| Some((a, a.bare(path)?))) {
            Some((arch, bare)) if self.prefixed => arch.prefixed(bare),
            Some((_, bare)) => bare.to_string(),
            None => path.to_string(),
        }
    }
}

impl StoredAdapter {
    /// Gives trained tensors the layout in which they are stored. With a head that stock PEFT can rebuild it is an
    /// adapter of a sequence or token classifier with the head under `modules_to_save`; otherwise one for feature extraction,
    /// on the bare model's paths, with the head in a file of its own.
    ///
    /// # Errors
    /// [`Error::Compose`] when there is nothing to store, or two modules of the base would get the same path.
    pub fn compose(c: Composition) -> Result<StoredAdapter> {
        check_content(&c)?;
        let Composition { mut graft, mut peft, mut hub, parameters, head, pooling, base_modules } = c;
        let arch = graft.base.model_type.as_deref().and_then(Architecture::of);
        let arch = arch.filter(|a| {
            (peft.is_some() || hub.is_some())
                && parameters.iter().all(|(k, _)| k.path.is_empty() || a.bare(&k.path).is_some())
        });
        let stock = match (&peft, &hub) {
            (Some(_), _) | (_, Some(_)) => stock_head(arch, &graft, pooling.as_deref(), &head),
            (None, None) => Err(format!("PEFT has no adapters of the kind `{}`", graft.method.id)),
        };
        let naming = Naming { arch, prefixed: stock.is_ok() };
        if let Some(config) = &mut peft {
            let paths: BTreeSet<&String> = parameters.iter().map(|(k, _)| &k.path).collect();
            config.fix_patterns(&paths.into_iter().map(|p| (p.clone(), naming.name(p))).collect::<Vec<_>>());
        }
        let parameters = rename(&naming, parameters)?;
        if let Some(config) = &mut peft {
            // The checkpoint that PEFT wraps may have modules that the exported graph has lost.
            let lost = arch.into_iter().flat_map(|a| a.optional).copied();
            let others = base_modules.iter().map(String::as_str).chain(lost).map(|m| naming.name(m));
            narrow(config, &parameters, others.collect());
            let common = config.common_mut();
            let class = if graft.objective.id == TOKEN_CLASSIFICATION { "TOKEN_CLS" } else { "SEQ_CLS" };
            common.task_type = Some(if stock.is_ok() { class } else { "FEATURE_EXTRACTION" }.to_string());
            common.modules_to_save = stock.as_ref().ok().map(|s| vec![s.module.to_string()]);
            common.inference_mode = true;
        }
        if let Some(config) = hub.as_mut().filter(|_| stock.is_ok()) {
            config.set_classifier();
        }
        let module = stock.as_ref().ok().map(|s| s.module.to_string());
        let (head, info) = if head.is_empty() {
            (None, None)
        } else {
            let info = HeadInfo { pooling, module: module.clone(), not_stock: stock.err() };
            (Some(Head { module, tensors: head }), Some(info))
        };
        graft.head = info;
        Ok(StoredAdapter { dir: PathBuf::new(), peft, hub, parameters, head, graft: Some(graft) })
    }
}

fn check_content(c: &Composition) -> Result<()> {
    let reason = match (&c.peft, c.parameters.first()) {
        (None, None) if c.head.is_empty() => "neither the method nor the objective trained anything".into(),
        (Some(_), None) => "the method has no trained tensors".into(),
        _ => return Ok(()),
    };
    Err(Error::Compose { reason })
}

fn rename(naming: &Naming, parameters: Vec<(ParamKey, Tensor)>) -> Result<Parameters> {
    let mut out = Parameters::new();
    for (key, tensor) in parameters {
        if out.insert(ParamKey::new(naming.name(&key.path), &key.name), tensor).is_some() {
            let reason = format!("`{key}` and another module of the base get the same path in PEFT's format");
            return Err(Error::Compose { reason });
        }
    }
    out.sort_unstable_keys();
    Ok(out)
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
    if standardised(graft) {
        return Err(
            "its targets are standardised, and the stock head's answers would not be in their units".into()
        );
    }
    let Some(arch) = arch else {
        return Err(match model_type {
            None => "the base does not say its model_type".into(),
            Some(t) => format!("how stock classifiers of `{t}` are built on these modules is not known"),
        });
    };
    let tokens = graft.objective.id == TOKEN_CLASSIFICATION;
    let (stock, pooling) = match tokens {
        true => (arch.token_head(), Some("none")),
        false => (arch.head.as_ref(), pooling),
    };
    let Some(stock) = stock else {
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

/// Whether the objective scales and shifts what its head gives, which no stock head does.
fn standardised(graft: &GraftFile) -> bool {
    let other = |name: &str, neutral: f64| {
        let values = graft.objective.config.get(name).and_then(|v| v.as_array());
        values.is_some_and(|v| v.iter().any(|x| x.as_f64() != Some(neutral)))
    };
    graft.objective.id == "regression" && (other("mean", 0.0) || other("deviation", 1.0))
}

/// Writes the target modules so that PEFT finds exactly the modules that were trained: the names as the user gave
/// them where they do that, the full paths otherwise.
fn narrow(config: &mut PeftConfig, parameters: &Parameters, base: Vec<String>) {
    let trained: HashSet<String> = hooked(parameters).into_iter().collect();
    let others: Vec<String> = base.into_iter().filter(|p| !trained.contains(p)).collect();
    if !config.targets_exactly(parameters, &others) {
        config.target(parameters);
    }
}
