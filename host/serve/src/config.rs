//! The configuration of a server: a file (TOML), the environment on top, flags on top of that. Keys are not in it: they
//! are in a file of their own or in the environment, see [`crate::access`].

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use graft_plugins::api::config::nearest;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::access::{ADMIN_ENV, ALL_ENV, KeyFile, METRICS_ENV};
use crate::app::Settings;
use crate::engine::Limits;
use crate::rates::Rates;

/// How variables of the environment begin that stand for a setting: `GRAFT_SERVE_LIMITS__TEXTS` is `limits.texts`.
pub const ENV_PREFIX: &str = "GRAFT_SERVE_";
/// Largest file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// What can be set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// The base: a directory or an ONNX file.
    pub base: Option<PathBuf>,
    /// The folder of the adapters.
    pub adapters: Option<PathBuf>,
    /// Address and port to listen at.
    pub listen: SocketAddr,
    /// Address and port of the same over gRPC.
    pub grpc: Option<SocketAddr>,
    /// The name under which clients ask for the base itself; that of its folder if not given.
    pub base_name: Option<String>,
    /// Further names of the base, for clients that have to send one and know none.
    pub base_aliases: Vec<String>,
    /// Whether texts that are too long are cut where a request of Text Embeddings Inference does not say.
    pub truncate: bool,
    /// The file with the keys.
    pub keys_file: Option<PathBuf>,
    /// How long requests are still taken after the server was asked to stop, while it already says that it is not ready.
    pub drain_seconds: u64,
    /// How much is taken at once.
    pub limits: LimitsConfig,
    /// How often adapters may be asked.
    pub rates: RatesConfig,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            base: None,
            adapters: None,
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            grpc: None,
            base_name: None,
            base_aliases: Vec::new(),
            truncate: Settings::default().truncate,
            keys_file: None,
            drain_seconds: 0,
            limits: LimitsConfig::default(),
            rates: RatesConfig::default(),
        }
    }
}

/// How much is taken at once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LimitsConfig {
    /// Those of the engine.
    #[serde(flatten)]
    pub engine: Limits,
    /// Largest body of a request, in bytes.
    pub body_bytes: usize,
    /// Largest adapter that is uploaded, in bytes.
    pub upload_bytes: usize,
}

impl Default for LimitsConfig {
    fn default() -> LimitsConfig {
        let settings = Settings::default();
        LimitsConfig {
            engine: Limits::default(),
            body_bytes: settings.body_bytes,
            upload_bytes: settings.upload_bytes,
        }
    }
}

/// How often adapters may be asked, in texts a second.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RatesConfig {
    /// Each adapter that has no rate of its own; no limit if not given.
    pub everyone: Option<f64>,
    /// By adapter, or the base's name.
    pub adapters: HashMap<String, f64>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file can't be read.
    #[error("{path}: {detail}", path = .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        detail: String,
    },
    /// There is no such setting.
    #[error("{origin}: there is no setting '{key}'{hint}")]
    Unknown {
        /// Where it stands.
        origin: String,
        /// Its name.
        key: String,
        /// What may be meant.
        hint: String,
    },
    /// A setting can't have that value.
    #[error("{0}")]
    Value(String),
}

impl Config {
    /// The settings of a file, of the environment and of flags, the later ones on top.
    ///
    /// # Errors
    /// A file that can't be read; a setting that is unknown or can't have that value.
    pub fn layered(
        file: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
        flags: Table,
    ) -> Result<Config, ConfigError> {
        let mut all = Table::new();
        if let Some(path) = file {
            let table: Table = toml::from_str(&read(path)?)
                .map_err(|e| ConfigError::File { path: path.to_owned(), detail: e.to_string() })?;
            add(&mut all, table, &path.display().to_string())?;
        }
        add(&mut all, of_env(env), "the environment")?;
        add(&mut all, flags, "the flags")?;
        let config: Config =
            all.try_into().map_err(|e: toml::de::Error| ConfigError::Value(e.message().to_owned()))?;
        config.checked()
    }

    fn checked(self) -> Result<Config, ConfigError> {
        let l = &self.limits;
        let counts = [
            ("batch_rows", l.engine.batch_rows),
            ("batch_tokens", l.engine.batch_tokens),
            ("queue_rows", l.engine.queue_rows),
            ("adapter_queue_rows", l.engine.adapter_queue_rows()),
            ("texts", l.engine.texts),
            ("text_bytes", l.engine.text_bytes),
            ("bank_bytes", l.engine.bank_bytes),
            ("body_bytes", l.body_bytes),
            ("upload_bytes", l.upload_bytes),
        ];
        if let Some((name, _)) = counts.iter().find(|(_, n)| *n == 0) {
            return Err(ConfigError::Value(format!("limits.{name} is 0: nothing could be answered")));
        }
        let rates = self.rates.everyone.iter().chain(self.rates.adapters.values());
        if let Some(rate) = rates.into_iter().find(|r| !(r.is_finite() && **r > 0.0)) {
            return Err(ConfigError::Value(format!("a rate of {rate} texts a second; it has to be above 0")));
        }
        Ok(self)
    }

    /// How often adapters may be asked.
    pub fn engine_rates(&self) -> Rates {
        Rates::new(self.rates.everyone, self.rates.adapters.clone())
    }

    /// The settings of HTTP, with the keys of the file and of the environment.
    ///
    /// # Errors
    /// A file of keys that can't be read; a key that is empty.
    pub fn settings(&self, env: &dyn Fn(&str) -> Option<String>) -> Result<Settings, ConfigError> {
        Ok(Settings {
            access: crate::Access::new(&keys(self.keys_file.as_deref(), env)?),
            adapters: self.adapters.clone(),
            aliases: self.base_aliases.clone(),
            body_bytes: self.limits.body_bytes,
            upload_bytes: self.limits.upload_bytes,
            truncate: self.truncate,
        })
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let error = |detail: String| ConfigError::File { path: path.to_owned(), detail };
    let size = std::fs::metadata(path).map_err(|e| error(e.to_string()))?.len();
    if size > MAX_FILE {
        return Err(error(format!("it has {size} bytes, more than {MAX_FILE}")));
    }
    std::fs::read_to_string(path).map_err(|e| error(e.to_string()))
}

/// The keys of a file, with those of the environment on top: each as it is, or in a file of which `…_FILE` has the path.
fn keys(file: Option<&Path>, env: &dyn Fn(&str) -> Option<String>) -> Result<KeyFile, ConfigError> {
    let mut keys = match file {
        // The line that is wrong may hold a key: it is not shown.
        Some(path) => toml::from_str(&read(path)?).map_err(|e: toml::de::Error| ConfigError::File {
            path: path.to_owned(),
            detail: e.message().to_owned(),
        })?,
        None => KeyFile::default(),
    };
    let secret = |name: &str| match (env(name), env(&format!("{name}_FILE"))) {
        (Some(key), _) => Ok(Some(key)),
        (None, Some(path)) => read(Path::new(&path)).map(|k| Some(k.trim().to_owned())),
        (None, None) => Ok(None),
    };
    for (slot, name) in
        [(&mut keys.admin, ADMIN_ENV), (&mut keys.metrics, METRICS_ENV), (&mut keys.all, ALL_ENV)]
    {
        *slot = secret(name)?.or(slot.take());
    }
    let single = [&keys.admin, &keys.metrics, &keys.all].into_iter().flatten();
    if single.chain(keys.adapters.values().flatten()).any(|k| k.trim().is_empty()) {
        return Err(ConfigError::Value("a key is empty".into()));
    }
    Ok(keys)
}

fn of_env(env: impl IntoIterator<Item = (String, String)>) -> Table {
    let mut all = Table::new();
    for (name, value) in env {
        let Some(name) = name.strip_prefix(ENV_PREFIX) else { continue };
        set(&mut all, &name.to_lowercase().replace("__", "."), &value);
    }
    all
}

/// Sets `limits.texts` and the like to a value as TOML has it, or else to a string.
pub fn set(table: &mut Table, key: &str, value: &str) {
    let parsed = toml::from_str::<Table>(&format!("v = {value}")).ok().and_then(|mut t| t.remove("v"));
    let value = parsed.unwrap_or_else(|| Value::String(value.to_owned()));
    match key.split_once('.') {
        None => drop(table.insert(key.to_owned(), value)),
        Some((first, rest)) => {
            let below = table.entry(first.to_owned()).or_insert_with(|| Value::Table(Table::new()));
            match below {
                Value::Table(below) => drop(below.insert(rest.to_owned(), value)),
                other => *other = Value::Table(Table::from_iter([(rest.to_owned(), value)])),
            }
        }
    }
}

/// Puts settings over those that are there.
fn add(all: &mut Table, more: Table, origin: &str) -> Result<(), ConfigError> {
    let known = serde_json::to_value(Config::default()).unwrap_or_default();
    check(&more, &known, "", origin)?;
    merge(all, more);
    Ok(())
}

fn merge(all: &mut Table, more: Table) {
    for (key, value) in more {
        match (all.get_mut(&key), value) {
            (Some(Value::Table(old)), Value::Table(new)) => merge(old, new),
            (_, value) => drop(all.insert(key, value)),
        }
    }
}

/// Whether every key is that of a setting. A map that is empty by default takes any.
fn check(table: &Table, known: &serde_json::Value, above: &str, origin: &str) -> Result<(), ConfigError> {
    let Some(known) = known.as_object().filter(|k| !k.is_empty()) else { return Ok(()) };
    for (key, value) in table {
        let Some(of_key) = known.get(key) else {
            let near = nearest(key, known.keys().map(String::as_str), 1);
            let hint = near.first().map_or_else(
                || format!("; there are {}", known.keys().cloned().collect::<Vec<_>>().join(", ")),
                |n| format!("; did you mean '{above}{n}'?"),
            );
            return Err(ConfigError::Unknown {
                origin: origin.to_owned(),
                key: format!("{above}{key}"),
                hint,
            });
        };
        if let Value::Table(below) = value {
            check(below, of_key, &format!("{above}{key}."), origin)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
