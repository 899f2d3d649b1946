//! What a model is: its name, version, digest, and the tensors that all models share.

use std::sync::Arc;

use super::fault::{Fault, Kind};
use crate::app::Caller;
use crate::ask::Want;
use crate::store::{Resident, Store};

/// What ran the model, in Triton's words.
pub const PLATFORM: &str = "onnxruntime_onnx";
/// The same for its configuration.
pub const BACKEND: &str = "onnxruntime";

/// A tensor of every model; −1 for a size that calls choose.
#[derive(Debug, Clone, Copy)]
pub struct TensorInfo {
    /// Its name.
    pub name: &'static str,
    /// Its type, in the protocol's words.
    pub datatype: &'static str,
    /// Its shape.
    pub shape: &'static [i64],
}

const fn tensor(name: &'static str, datatype: &'static str, shape: &'static [i64]) -> TensorInfo {
    TensorInfo { name, datatype, shape }
}

/// Texts.
pub const TEXT: &str = "text";
/// What is read together with the texts.
pub const TEXT_PAIR: &str = "text_pair";
/// Token ids, special ones included, instead of texts.
pub const INPUT_IDS: &str = "input_ids";
/// 1 for the tokens of a row, 0 for its padding.
pub const ATTENTION_MASK: &str = "attention_mask";
/// The adapters of the rows; empty for the model that was called.
pub const ADAPTER: &str = "adapter";

/// The inputs, none of which every call has: texts or token ids.
pub const INPUTS: [TensorInfo; 5] = [
    tensor(TEXT, "BYTES", &[-1]),
    tensor(TEXT_PAIR, "BYTES", &[-1]),
    tensor(INPUT_IDS, "INT64", &[-1, -1]),
    tensor(ATTENTION_MASK, "INT64", &[-1, -1]),
    tensor(ADAPTER, "BYTES", &[-1]),
];

/// The outputs.
pub const OUTPUTS: [TensorInfo; 4] = [
    tensor("label", "BYTES", &[-1]),
    tensor("score", "FP32", &[-1]),
    tensor("json", "BYTES", &[-1]),
    tensor("revision", "BYTES", &[-1]),
];

/// A type of the protocol in the words of Triton's configurations.
pub fn config_type(datatype: &str) -> &'static str {
    match datatype {
        "BYTES" => "TYPE_STRING",
        "INT64" => "TYPE_INT64",
        "FP32" => "TYPE_FP32",
        _ => "TYPE_INVALID",
    }
}

/// The model of a name, in the version that is asked for; empty for the one that is served.
///
/// # Errors
/// [`Kind::NotFound`] for another name or version, and for what the key does not open; [`Kind::NoKey`]; a version that is
/// no number.
pub async fn find(caller: &Caller, name: &str, version: &str) -> Result<Arc<Resident>, Fault> {
    let resident = caller.resident(name).await?;
    if !version.is_empty() {
        let wanted: u64 = version.parse().map_err(|_| {
            Fault::invalid(format!(
                "'{}' is no version; versions are whole numbers",
                version.chars().take(20).collect::<String>()
            ))
        })?;
        let served = resident.by.revision;
        if wanted != served {
            let message = format!("model '{name}' is served in version {served}, not {wanted}");
            return Err(Fault::new(Kind::NotFound, message));
        }
    }
    Ok(resident)
}

/// The name of a model.
pub fn name<'a>(store: &'a Store, model: &'a Resident) -> &'a str {
    model.by.adapter.as_deref().unwrap_or(&store.base_name)
}

/// What else is known of a model: digests, what it was trained for.
pub fn properties(store: &Store, model: &Resident) -> Vec<(&'static str, String)> {
    let mut known = vec![
        ("digest", model.by.digest.to_string()),
        ("base", store.base_name.clone()),
        ("base_digest", store.bare.by.digest.to_string()),
    ];
    if let Ok(Some(form)) = model.form(store, Want::Answer)
        && let Ok(objective) = form.objective()
    {
        known.push(("objective", objective.id().to_owned()));
    }
    known
}
