//! A method's settings in PEFT's terms.

use graft_adapters::{
    HubConfig, Ia3Config, LnTuningConfig, LoHaConfig, LoraConfig, PeftConfig, PeftType, Targets, VeraConfig,
    VirtualTokensConfig,
};
use graft_plugins::Method;
use indexmap::IndexSet;
use serde_json::{Map, Value};

/// PEFT's configuration of a method that took the modules `matched`; `None` for one that PEFT has no format for.
pub(super) fn peft_config(method: &Method, matched: &[String]) -> Option<PeftConfig> {
    let config = method.config();
    match method.id() {
        "lora" => Some(PeftConfig::Lora(lora(config, matched))),
        "ia3" => Some(PeftConfig::Ia3(Ia3Config::new(
            targets(config, matched),
            Targets::List(list(config, "feedforward_modules").unwrap_or_default()),
        ))),
        "norm-tuning" if config.get("parameters").and_then(Value::as_str) == Some("norms") => {
            Some(PeftConfig::LnTuning(LnTuningConfig::new(targets(config, matched))))
        }
        "vera" => Some(PeftConfig::Vera(vera(config, matched))),
        "loha" => Some(PeftConfig::LoHa(loha(config, matched))),
        "prompt-tuning" => Some(virtual_tokens(PeftType::PromptTuning, config)),
        "prefix-tuning" => Some(virtual_tokens(PeftType::PrefixTuning, config)),
        _ => None,
    }
}

fn virtual_tokens(peft_type: PeftType, config: &Value) -> PeftConfig {
    let count = config.get("virtual_tokens").and_then(Value::as_u64).unwrap_or(20);
    PeftConfig::VirtualTokens(VirtualTokensConfig::new(peft_type, count as usize))
}

/// AdapterHub's configuration of a method; `None` for one that its library does not have, or not for this architecture.
pub(super) fn hub_config(method: &Method, model_type: Option<&str>) -> Option<HubConfig> {
    if method.id() == "bottleneck-adapter" { HubConfig::new(method.config(), model_type) } else { None }
}

fn number(config: &Value, name: &str, default: f64) -> f64 {
    config.get(name).and_then(Value::as_f64).unwrap_or(default)
}

fn truth(config: &Value, name: &str, default: bool) -> bool {
    config.get(name).and_then(Value::as_bool).unwrap_or(default)
}

fn patterns(config: &Value, name: &str) -> Map<String, Value> {
    config.get(name).and_then(Value::as_object).cloned().unwrap_or_default()
}

fn bias(config: &Value) -> String {
    config.get("bias").and_then(Value::as_str).unwrap_or("none").to_string()
}

fn vera(config: &Value, matched: &[String]) -> VeraConfig {
    VeraConfig {
        projection_prng_key: config.get("projection_prng_key").and_then(Value::as_u64).unwrap_or(0),
        save_projection: truth(config, "save_projection", true),
        vera_dropout: number(config, "dropout", 0.0),
        d_initial: number(config, "d_initial", 0.1),
        bias: bias(config),
        ..VeraConfig::new(number(config, "r", 256.0) as usize, targets(config, matched))
    }
}

fn loha(config: &Value, matched: &[String]) -> LoHaConfig {
    let (r, alpha) = (number(config, "r", 8.0) as usize, number(config, "alpha", 8.0));
    LoHaConfig {
        use_effective_conv2d: truth(config, "use_effective_conv2d", false),
        rank_dropout: number(config, "rank_dropout", 0.0),
        module_dropout: number(config, "module_dropout", 0.0),
        rank_pattern: patterns(config, "rank_pattern"),
        alpha_pattern: patterns(config, "alpha_pattern"),
        ..LoHaConfig::new(r, alpha, targets(config, matched))
    }
}

fn lora(config: &Value, matched: &[String]) -> LoraConfig {
    let (r, alpha) = (number(config, "r", 8.0) as usize, number(config, "alpha", 16.0));
    LoraConfig {
        rank_pattern: patterns(config, "rank_pattern"),
        alpha_pattern: patterns(config, "alpha_pattern"),
        lora_dropout: number(config, "dropout", 0.0),
        use_rslora: truth(config, "use_rslora", false),
        use_dora: truth(config, "use_dora", false),
        bias: bias(config),
        ..LoraConfig::new(r, alpha, targets(config, matched))
    }
}

/// The modules' names as the user gave them, or else the last parts of their paths. Where these mean other modules too,
/// whole paths are written later.
fn targets(config: &Value, matched: &[String]) -> Targets {
    let last = |p: &String| p.rsplit('.').next().unwrap_or(p).to_string();
    let ends = || matched.iter().map(last).collect::<IndexSet<_>>().into_iter().collect();
    Targets::List(list(config, "target_modules").unwrap_or_else(ends))
}

/// A setting that is a list of names.
fn list(config: &Value, name: &str) -> Option<Vec<String>> {
    let names = config.get(name)?.as_array()?;
    Some(names.iter().filter_map(|v| v.as_str().map(str::to_string)).collect())
}
