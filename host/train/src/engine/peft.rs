//! A method's settings in PEFT's terms.

use graft_adapters::{
    HubConfig, Ia3Config, LnTuningConfig, LoraConfig, PeftConfig, PeftType, Targets, VirtualTokensConfig,
};
use graft_plugins::Method;
use indexmap::IndexSet;
use serde_json::Value;

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

fn lora(config: &Value, matched: &[String]) -> LoraConfig {
    let number = |k: &str, d: f64| config.get(k).and_then(Value::as_f64).unwrap_or(d);
    let mut lora =
        LoraConfig::new(number("r", 8.0) as usize, number("alpha", 16.0), targets(config, matched));
    let patterns = |k: &str| config.get(k).and_then(Value::as_object).cloned().unwrap_or_default();
    (lora.rank_pattern, lora.alpha_pattern) = (patterns("rank_pattern"), patterns("alpha_pattern"));
    lora.lora_dropout = number("dropout", 0.0);
    lora.use_rslora = config.get("use_rslora").and_then(Value::as_bool).unwrap_or(false);
    lora.use_dora = config.get("use_dora").and_then(Value::as_bool).unwrap_or(false);
    lora.bias = config.get("bias").and_then(Value::as_str).unwrap_or("none").to_string();
    lora
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
