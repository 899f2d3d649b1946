//! JSON files within bounds: size before reading; depth is bounded by the parser (128 levels).

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{Error, Result};

/// The largest JSON file that is read, in bytes.
pub(crate) const MAX_JSON: u64 = 16 << 20;

/// Parses JSON; the error has file, line and column.
pub(crate) fn parse<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|e| bad(path, e))
}

/// Reads a parsed value as `T`; the error has the file.
pub(crate) fn typed<T: DeserializeOwned>(path: &Path, value: Value) -> Result<T> {
    serde_json::from_value(value).map_err(|e| bad(path, e))
}

fn bad(path: &Path, e: serde_json::Error) -> Error {
    Error::Json { path: path.to_path_buf(), reason: e.to_string() }
}

/// Indented JSON, in the order of the type's fields.
pub(crate) fn pretty(path: &Path, value: &impl Serialize) -> Result<Vec<u8>> {
    let mut out = serde_json::to_vec_pretty(value).map_err(|e| bad(path, e))?;
    out.push(b'\n');
    Ok(out)
}

/// Indented JSON with sorted keys, as PEFT writes its configurations.
pub(crate) fn pretty_sorted(path: &Path, value: &impl Serialize) -> Result<Vec<u8>> {
    let value = serde_json::to_value(value).map_err(|e| bad(path, e))?;
    match value {
        Value::Object(map) => pretty(path, &map.into_iter().collect::<BTreeMap<_, _>>()),
        other => pretty(path, &other),
    }
}
