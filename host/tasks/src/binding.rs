//! Between the tensors of an adapter directory and the parameters of an adapted graph.

use graft_adapters::{Architecture, Expected, ParamKey, PeftConfig, StoredAdapter};
use graft_graph::sites::{Site, attentions, residuals};
use graft_graph::{Graph, Tensor, ValueId};
use graft_plugins::adapt::{Param, Start};
use graft_plugins::api::{Course, Init, Role};
use serde_json::{Value, json};

use crate::base::Base;
use crate::error::{Result, TaskError};
use crate::{norms, torch};

/// A method or an objective with its configuration, as plugins take it.
#[derive(Debug, Clone)]
pub struct Choice {
    /// Id.
    pub id: String,
    /// Configuration.
    pub config: Value,
}

/// The key of a method's parameter in an adapter directory: the path of its module and its name there. What is trained
/// of the base is `weight` or `bias` of its site, and has the base's own name where no site has it.
pub fn param_key(graph: &Graph, all: &[Site], p: &Param) -> ParamKey {
    let Some(initializer) = &p.base else {
        return ParamKey::new(p.site.clone().unwrap_or_default(), p.key.clone());
    };
    let is = |v: ValueId| graph.name_of(v) == initializer;
    let part = |s: &Site| {
        let name = if s.bias.is_some_and(is) { "bias" } else { "weight" };
        (name == "bias" || is(s.weight)).then(|| ParamKey::new(s.path.clone(), name))
    };
    all.iter().find_map(part).unwrap_or_else(|| ParamKey::of_name(initializer))
}

/// Splits `classifier.weight` into module and name.
pub fn head_name(key: &str) -> &str {
    key.rsplit_once('.').map_or(key, |(_, name)| name)
}

/// The architecture of a base: by its `config.json`, else by the first segment of the adapter's paths.
pub fn architecture(base: &Base, adapter: &StoredAdapter) -> Option<&'static Architecture> {
    let by_path = || {
        let first = adapter.paths().first()?.split('.').next()?.to_string();
        Architecture::of(match first.as_str() {
            "model" => "llama",
            "transformer" => "gpt2",
            other => other,
        })
    };
    base.model_type.as_deref().and_then(Architecture::of).or_else(by_path)
}

/// The method that an adapter was trained with, aimed at exactly the sites that it has parameters for.
///
/// # Errors
/// Modules that the base lacks; settings that can't be honoured.
pub fn method_of(base: &Base, adapter: &StoredAdapter) -> Result<Option<Choice>> {
    if let Some(hub) = &adapter.hub {
        return Ok(Some(Choice { id: hub.method().into(), config: hub.options() }));
    }
    let Some(peft) = &adapter.peft else {
        return Ok(adapter
            .graft
            .as_ref()
            .map(|g| Choice { id: g.method.id.clone(), config: Value::Object(g.method.config.clone()) }));
    };
    let places = adapter.sites_in(base.site_paths())?;
    let at = |path: &String| places.map.get(path).cloned();
    let hooked: Vec<String> = adapter.hooked().iter().filter_map(at).collect();
    let mut peft = peft.clone();
    let named = adapter.hooked().into_iter().filter_map(|p| Some((at(&p)?, p)));
    peft.fix_patterns(&named.map(|(place, p)| (p, place)).collect::<Vec<_>>());
    let config = match &peft {
        PeftConfig::Lora(lora) => {
            let mut config = json!({
                "rank_pattern": lora.rank_pattern, "alpha_pattern": lora.alpha_pattern,
                "r": lora.r, "alpha": lora.lora_alpha, "dropout": lora.lora_dropout, "use_rslora": lora.use_rslora,
                "use_dora": lora.use_dora, "bias": lora.bias, "target_modules": hooked,
            });
            // How it learns, which PEFT's file has no place for.
            let kept = adapter.graft.as_ref().map(|g| &g.method.config).into_iter().flatten();
            for (key, value) in kept.filter(|(key, _)| key.starts_with("loraplus_")) {
                config[key] = value.clone();
            }
            config
        }
        PeftConfig::Ia3(_) => {
            let inputs: Vec<String> = adapter.scaled_inputs().filter_map(at).collect();
            json!({ "target_modules": hooked, "feedforward_modules": inputs })
        }
        PeftConfig::VirtualTokens(c) => json!({ "virtual_tokens": c.num_virtual_tokens }),
        PeftConfig::Vera(c) => json!({
            "r": c.r, "d_initial": c.d_initial, "dropout": c.vera_dropout, "bias": c.bias,
            "projection_prng_key": c.projection_prng_key, "save_projection": c.save_projection,
            "target_modules": hooked,
        }),
        PeftConfig::LoHa(c) => json!({
            "rank_pattern": c.rank_pattern, "alpha_pattern": c.alpha_pattern, "r": c.r, "alpha": c.alpha,
            "use_effective_conv2d": c.use_effective_conv2d, "rank_dropout": c.rank_dropout,
            "module_dropout": c.module_dropout, "target_modules": hooked,
        }),
        PeftConfig::LnTuning(_) => json!({ "parameters": "norms", "target_modules": hooked }),
        _ => {
            return Err(TaskError::Input {
                what: adapter.dir.display().to_string(),
                detail: "adapters of this PEFT type are not supported yet".into(),
            });
        }
    };
    Ok(Some(Choice { id: peft.method().into(), config }))
}

/// The objective that an adapter was trained for; `None` for one that has no head.
pub fn objective_of(base: &Base, adapter: &StoredAdapter) -> Option<Choice> {
    if let Some(g) = &adapter.graft {
        let config = Value::Object(g.objective.config.clone());
        return Some(Choice { id: g.objective.id.clone(), config });
    }
    let head = adapter.head.as_ref()?;
    let rows = head.tensors.get("weight").map_or(0, |w| w.shape().first().copied().unwrap_or(0));
    let stock = architecture(base, adapter).and_then(|a| a.head.as_ref());
    let task = adapter.peft.as_ref().and_then(|p| p.common().task_type.as_deref());
    if task == Some("TOKEN_CLS") {
        let labels: Vec<String> = (0..rows).map(|i| format!("LABEL_{i}")).collect();
        return Some(Choice { id: "token-classification".into(), config: json!({ "labels": labels }) });
    }
    let pooling = stock.map_or("pooled", |s| s.pooling);
    // Hugging Face's classifiers with a single output are trained on numbers.
    if rows == 1 {
        let config = json!({ "pooling": pooling, "standardise": false, "mean": [0.0], "deviation": [1.0] });
        return Some(Choice { id: "regression".into(), config });
    }
    let labels: Vec<String> = (0..rows).map(|i| format!("LABEL_{i}")).collect();
    Some(Choice { id: "classification".into(), config: json!({ "pooling": pooling, "labels": labels }) })
}

/// The paths of the modules at whose end a residual connection is, each once.
fn residual_paths(graph: &Graph, all: &[Site]) -> Vec<String> {
    let paths = residuals(graph, all, &attentions(graph)).into_iter().map(|r| r.path);
    paths.collect::<indexmap::IndexSet<_>>().into_iter().collect()
}

/// The adapter's tensors for each parameter of an adapted graph, in the order of the parameters.
///
/// # Errors
/// Missing, extra or misshapen tensors, by name.
pub fn bind(base: &Base, adapter: &StoredAdapter, params: &[Param]) -> Result<Vec<Tensor>> {
    let all = base.sites();
    let mut expected = Vec::new();
    let mut head: Vec<(&str, &[usize])> = Vec::new();
    for p in params {
        match p.role {
            Role::Head => head.push((head_name(&p.key), &p.shape)),
            Role::Adapter if p.course == Course::Implied => {}
            Role::Adapter => {
                expected.push(Expected { key: param_key(&base.graph, all, p), shape: p.shape.clone() })
            }
        }
    }
    let mut method = if adapter.parameters.is_empty() && expected.is_empty() {
        Vec::new()
    } else {
        let places = match (&adapter.peft, &adapter.hub) {
            (Some(_), _) => Some(adapter.sites_in(base.site_paths())?),
            (None, Some(_)) => Some(adapter.sites_in(&residual_paths(&base.graph, all))?),
            (None, None) => None,
        };
        adapter.bind(places.as_ref(), &expected)?
    }
    .into_iter();
    let mut heads = adapter.bind_head(&head)?.into_iter();
    let next = |p: &Param| match p.role {
        Role::Head => heads.next().map(Ok),
        Role::Adapter if p.course == Course::Implied => Some(implied(p)),
        Role::Adapter => method.next().map(Ok),
    };
    let tensors: Vec<Result<Tensor>> = params.iter().filter_map(next).collect();
    let mut tensors = tensors.into_iter().map(|t| as_f32(t?)).collect::<Result<Vec<_>>>()?;
    let scale_of = |p: &Param| {
        let key = p.base.as_ref().map(|_| param_key(&base.graph, all, p));
        key.filter(|k| k.name == "weight").map(|k| k.path)
    };
    norms::as_in_graph(base, adapter, params, &scale_of, &mut tensors)?;
    Ok(tensors)
}

/// The values of a parameter that adapters do not hold.
fn implied(p: &Param) -> Result<Tensor> {
    let init = match &p.init {
        Start::Base(values) => return Ok(values.clone()),
        Start::Asked(init) => init,
    };
    let Some(values) = certain(init, p.shape.iter().product()) else {
        let detail = format!("an adapter does not hold it, and {init:?} are other numbers in each run");
        return Err(TaskError::Input { what: format!("the parameter '{}'", p.name), detail });
    };
    Ok(Tensor::new(p.shape.clone(), &values)?)
}

/// The `count` values of a beginning that is the same in every run; `None` for others.
pub fn certain(init: &Init, count: usize) -> Option<Vec<f32>> {
    Some(match init {
        Init::Zeros => vec![0.0; count],
        Init::Ones => vec![1.0; count],
        Init::Full(v) => vec![*v as f32; count],
        Init::Torch { seed, skip, bound } => torch::uniform(*seed, *skip, *bound, count),
        Init::Given(t) => t.to_f32s().ok()?,
        _ => return None,
    })
}

/// Adapters that were saved in half precision are used in f32.
pub(crate) fn as_f32(t: Tensor) -> Result<Tensor> {
    if t.dtype() == graft_graph::DType::F32 {
        return Ok(t);
    }
    let wide: Vec<f32> = t.to_f64s().unwrap_or_default().into_iter().map(|v| v as f32).collect();
    Ok(Tensor::new(t.shape(), &wide)?)
}
