//! `config.json`: read within limits, settings checked against ranges.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{ImportError, Result};

/// The longest `config.json` that is read, in bytes. Label maps of tens of thousands of labels fit.
const MAX_CONFIG: u64 = 8 << 20;

/// A checkpoint's `config.json`.
pub(crate) struct Config {
    path: PathBuf,
    json: Value,
}

/// A JSON file's content, refused before reading when it is longer than `limit` bytes.
pub(crate) fn read_json(path: &Path, what: &'static str, limit: u64) -> Result<Value> {
    let file = File::open(path).map_err(ImportError::io(path, "opening"))?;
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(ImportError::io(path, "reading"))?;
    let length = bytes.len() as u64;
    if length > limit {
        return Err(ImportError::TooLarge { path: path.into(), what, bytes: length, limit });
    }
    serde_json::from_slice(&bytes)
        .map_err(|e| ImportError::Json { path: path.into(), detail: format!("not valid JSON: {e}") })
}

impl Config {
    pub(crate) fn read(path: PathBuf) -> Result<Config> {
        let json = read_json(&path, "the config", MAX_CONFIG)?;
        Ok(Config { path, json })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A text at the top level.
    pub(crate) fn text(&self, field: &str) -> Option<&str> {
        self.json.get(field).and_then(Value::as_str)
    }

    /// The settings that an architecture reads.
    pub(crate) fn settings<T: DeserializeOwned>(&self) -> Result<T> {
        serde_path_to_error::deserialize(&self.json).map_err(|e| {
            let (place, why) = (e.path().to_string(), e.inner().to_string());
            let detail = if place == "." { why } else { format!("{place}: {why}") };
            ImportError::Json { path: self.path.clone(), detail }
        })
    }

    /// An error about one setting.
    pub(crate) fn bad(
        &self,
        field: &'static str,
        value: impl ToString,
        must: impl Into<String>,
    ) -> ImportError {
        ImportError::Setting { path: self.path.clone(), field, value: value.to_string(), must: must.into() }
    }

    /// A size between 1 and `limit`, both included.
    pub(crate) fn size(&self, field: &'static str, value: u64, limit: usize) -> Result<usize> {
        let fits = usize::try_from(value).ok().filter(|v| (1..=limit).contains(v));
        fits.ok_or_else(|| self.bad(field, value, format!("a number from 1 to {limit}")))
    }
}
