//! The configuration of a server: a file (TOML), the environment on top, flags on top of that. Keys are not in it: they
//! are in a file of their own or in the environment, see [`crate::access`].

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use graft_plugins::api::config::nearest;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::access::{ADMIN_ENV, ALL_ENV, KeyFile, METRICS_ENV};
use crate::app::Settings;
use crate::engine::Limits;
use crate::patience::Patience;
use crate::rates::Rates;
use crate::store::Keeping;

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
    /// When adapters of the folder are loaded.
    pub load: Load,
    /// How often the folder of the adapters is looked at for what others changed there, in seconds; never where it is 0.
    pub watch_seconds: f64,
    /// How much is taken at once.
    pub limits: LimitsConfig,
    /// How often adapters may be asked.
    pub rates: RatesConfig,
    /// How long requests may take.
    pub timeouts: TimeoutsConfig,
    /// What log lines look like.
    pub log_format: LogFormat,
}

/// What log lines look like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people; without lines for requests.
    #[default]
    Text,
    /// A JSON object a line, one for each request among them.
    Json,
}

impl std::str::FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<LogFormat, String> {
        match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err("it can be text or json".into()),
        }
    }
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
            load: Load::AtStart,
            watch_seconds: 1.0,
            limits: LimitsConfig::default(),
            rates: RatesConfig::default(),
            timeouts: TimeoutsConfig::default(),
            log_format: LogFormat::default(),
        }
    }
}

/// When adapters of the folder are loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Load {
    /// All of them, before the server answers.
    AtStart,
    /// Each by the first request for it.
    OnRequest,
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
    /// Most bytes of adapters in memory; those that were not used for longest leave it until they are asked for.
    pub host_bytes: usize,
    /// How long a request waits until its adapter is loaded, in seconds.
    pub load_seconds: f64,
    /// Most memory that the process may use, in bytes, mapped files not included: beyond, no adapter is loaded. 0 for no limit.
    pub memory_bytes: u64,
}

impl Default for LimitsConfig {
    fn default() -> LimitsConfig {
        let settings = Settings::default();
        LimitsConfig {
            engine: Limits::default(),
            body_bytes: settings.body_bytes,
            upload_bytes: settings.upload_bytes,
            host_bytes: Keeping::default().host_bytes,
            load_seconds: Keeping::default().wait.as_secs_f64(),
            memory_bytes: 0,
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

/// How long requests may take, in seconds; 0 for no limit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TimeoutsConfig {
    /// A request that does not say how long it will wait.
    pub request_seconds: f64,
    /// Any request, whatever it says.
    pub longest_seconds: f64,
    /// The body of a request; of an upload, the pauses between its pieces.
    pub body_seconds: f64,
    /// A connection on which no request comes.
    pub idle_seconds: f64,
}

impl Default for TimeoutsConfig {
    fn default() -> TimeoutsConfig {
        let seconds = |limit: Option<Duration>| limit.map_or(0.0, |l| l.as_secs_f64());
        let Patience { usual, most, body, idle } = Patience::default();
        TimeoutsConfig {
            request_seconds: seconds(usual),
            longest_seconds: seconds(most),
            body_seconds: seconds(body),
            idle_seconds: seconds(idle),
        }
    }
}

/// The longest time that can be set, in seconds: clocks end somewhere.
const LONGEST: f64 = 1e9;

impl TimeoutsConfig {
    fn patience(&self) -> Result<Patience, ConfigError> {
        let limit = |name: &str, seconds: f64| match Duration::try_from_secs_f64(seconds) {
            Ok(limit) if seconds <= LONGEST => Ok(Some(limit).filter(|l| !l.is_zero())),
            _ => Err(ConfigError::Value(format!("timeouts.{name} is {seconds}, which is no time"))),
        };
        Ok(Patience {
            usual: limit("request_seconds", self.request_seconds)?,
            most: limit("longest_seconds", self.longest_seconds)?,
            body: limit("body_seconds", self.body_seconds)?,
            idle: limit("idle_seconds", self.idle_seconds)?,
        })
    }
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
            ("pass_tokens", l.engine.pass_tokens()),
            ("queue_rows", l.engine.queue_rows),
            ("adapter_queue_rows", l.engine.adapter_queue_rows()),
            ("texts", l.engine.texts),
            ("text_bytes", l.engine.text_bytes),
            ("bank_bytes", l.engine.bank_bytes),
            ("body_bytes", l.body_bytes),
            ("upload_bytes", l.upload_bytes),
            ("host_bytes", l.host_bytes),
        ];
        if let Some((name, _)) = counts.iter().find(|(_, n)| *n == 0) {
            return Err(ConfigError::Value(format!("limits.{name} is 0: nothing could be answered")));
        }
        for (name, seconds) in
            [("watch_seconds", self.watch_seconds), ("limits.load_seconds", l.load_seconds)]
        {
            if Duration::try_from_secs_f64(seconds).is_err() {
                return Err(ConfigError::Value(format!(
                    "{name} is {seconds}; it has to be 0 or more seconds"
                )));
            }
        }
        let rates = self.rates.everyone.iter().chain(self.rates.adapters.values());
        if let Some(rate) = rates.into_iter().find(|r| !(r.is_finite() && **r > 0.0)) {
            return Err(ConfigError::Value(format!("a rate of {rate} texts a second; it has to be above 0")));
        }
        self.timeouts.patience()?;
        Ok(self)
    }

    /// When adapters are loaded, and how much of them is kept in memory.
    pub fn keeping(&self) -> Keeping {
        Keeping {
            on_request: self.load == Load::OnRequest,
            host_bytes: self.limits.host_bytes,
            wait: Duration::try_from_secs_f64(self.limits.load_seconds).unwrap_or_default(),
        }
    }

    /// How often the folder of the adapters is looked at; `None` for never.
    pub fn watching(&self) -> Option<Duration> {
        Duration::try_from_secs_f64(self.watch_seconds).ok().filter(|d| !d.is_zero())
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
            patience: self.timeouts.patience()?,
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
