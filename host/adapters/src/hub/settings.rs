//! The settings of bottleneck adapters by AdapterHub's names, and as options of the method.

use serde_json::{Map, Value, json};

use crate::peft::settings::{is_default, short};

/// A setting's name and how a value of it is made.
type Setting = (&'static str, fn() -> Value);

/// Settings that the method has an option of the same name for, with the library's own value where one is not written.
const SHARED: [Setting; 16] = [
    ("reduction_factor", || json!(16)),
    ("non_linearity", || json!("relu")),
    ("scaling", || json!(1.0)),
    ("dropout", || json!(0.0)),
    ("ln_before", || json!(false)),
    ("ln_after", || json!(false)),
    ("mh_adapter", || json!(false)),
    ("cross_adapter", || json!(false)),
    ("output_adapter", || json!(true)),
    ("is_parallel", || json!(false)),
    ("original_ln_before", || json!(false)),
    ("original_ln_after", || json!(true)),
    ("residual_before_ln", || json!(true)),
    ("adapter_residual_before_ln", || json!(false)),
    ("leave_out", || json!([])),
    ("init_weights", || json!("bert")),
];

/// What the library's variants have otherwise.
const VARIANTS: [(&str, Setting); 8] = [
    ("seq_bn", ("original_ln_before", || json!(true))),
    ("double_seq_bn", ("mh_adapter", || json!(true))),
    ("double_seq_bn", ("non_linearity", || json!("swish"))),
    ("par_bn", ("reduction_factor", || json!(2))),
    ("par_bn", ("scaling", || json!(4.0))),
    ("par_bn", ("is_parallel", || json!(true))),
    ("par_bn", ("init_weights", || json!("mam_adapter"))),
    ("par_bn", ("non_linearity", || json!("relu"))),
];

/// Settings of what is not there, with the library's values for it.
const ABSENT: [Setting; 16] = [
    ("factorized_phm_W", || json!(true)),
    ("factorized_phm_rule", || json!(false)),
    ("hypercomplex_nonlinearity", || json!("glorot-uniform")),
    ("init_weights_seed", || Value::Null),
    ("inv_adapter", || Value::Null),
    ("inv_adapter_reduction_factor", || Value::Null),
    ("learn_phm", || json!(true)),
    ("phm_bias", || json!(true)),
    ("phm_c_init", || json!("normal")),
    ("phm_dim", || json!(4)),
    ("phm_init_range", || json!(0.0001)),
    ("phm_layer", || json!(false)),
    ("phm_rank", || json!(1)),
    ("shared_W_phm", || json!(false)),
    ("shared_phm_rule", || json!(true)),
    ("stochastic_depth", || json!(0.0)),
];

/// What only says how training went, or belongs to a part that is absent.
const HARMLESS: [&str; 12] = [
    "factorized_phm_W",
    "factorized_phm_rule",
    "hypercomplex_nonlinearity",
    "init_weights_seed",
    "inv_adapter_reduction_factor",
    "learn_phm",
    "phm_bias",
    "phm_c_init",
    "phm_dim",
    "phm_init_range",
    "phm_rank",
    "stochastic_depth",
];

/// What is between the layers, as the method knows it.
const NON_LINEARITIES: [&str; 9] =
    ["relu", "gelu", "gelu_new", "swish", "silu", "tanh", "sigmoid", "leakyrelu", "linear"];

/// The method's options for settings as they are written.
pub(super) fn options(config: &Map<String, Value>) -> Value {
    let one = |(name, default): &Setting| {
        let written = config.get(*name).filter(|v| !v.is_null()).cloned().unwrap_or_else(default);
        let value = match (*name, &written) {
            ("non_linearity", Value::String(word)) => json!(word.to_lowercase()),
            // How weights began says nothing of a trained adapter.
            ("init_weights", v) if *v != json!("mam_adapter") => json!("bert"),
            _ => written,
        };
        (name.to_string(), value)
    };
    Value::Object(SHARED.iter().map(one).collect())
}

/// All settings for options of the method, those of the variant filled in.
pub(super) fn resolved(options: &Value) -> Map<String, Value> {
    let variant = options.get("variant").and_then(Value::as_str).unwrap_or("seq_bn");
    let of_variant = |name: &str| {
        let found = VARIANTS.iter().find(|(v, (n, _))| *v == variant && *n == name);
        found.map(|(_, (_, value))| value())
    };
    let one = |(name, default): &Setting| {
        let given = options.get(*name).filter(|v| !v.is_null()).cloned();
        let value = given.or_else(|| of_variant(name)).unwrap_or_else(default);
        // The library tells numbers from words by their being written as floats.
        let value = match (*name, value.as_f64()) {
            ("scaling" | "dropout", Some(n)) => json!(n),
            ("reduction_factor", Some(n)) if n.fract() == 0.0 => json!(n as i64),
            _ => value,
        };
        (name.to_string(), value)
    };
    let absent = ABSENT.iter().map(|(name, value)| (name.to_string(), value()));
    let gating = [("use_gating".to_string(), json!(false))];
    SHARED.iter().map(one).chain(absent).chain(gating).collect()
}

pub(super) fn unsupported(config: &Map<String, Value>, version: &str) -> Vec<String> {
    let passes = |(name, value): &(&String, &Value)| match name.as_str() {
        "reduction_factor" => value.is_number(),
        "non_linearity" => value.as_str().is_some_and(|word| {
            let word = word.to_lowercase();
            // The older library means another function by this word.
            NON_LINEARITIES.contains(&word.as_str()) && (word != "gelu" || version.starts_with("adapters."))
        }),
        n if HARMLESS.contains(&n) => true,
        // With the layers that it would be for, it says how these are shared.
        "shared_W_phm" | "shared_phm_rule" => true,
        n if SHARED.iter().any(|(known, _)| *known == n) => true,
        _ => is_default(value),
    };
    let lines = config.iter().filter(|entry| !passes(entry));
    lines.map(|(name, value)| format!("{name} = {}", short(value))).collect()
}
