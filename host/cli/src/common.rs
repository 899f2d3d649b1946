//! What the commands share: options, logging, errors.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use graft_runtime::{Provider, Runtime, RuntimeOptions, SessionOptions};
use graft_serve::config::LogFormat;
use graft_tasks::{Base, BaseOptions};
use graft_train::Recipe;

/// Where and how graphs run.
#[derive(Args, Clone, Debug, Default)]
pub struct RuntimeArgs {
    /// Execution provider: cpu, cuda[:ID] or tensorrt[:ID]. There is no silent fallback
    #[arg(long, default_value = "cpu", value_name = "PROVIDER", help_heading = "Runtime")]
    pub provider: String,
    /// A setting of the provider, e.g. memory_limit=4GiB, fp16=true, engine_cache=DIR (repeatable)
    #[arg(long, value_name = "KEY=VALUE", help_heading = "Runtime")]
    pub provider_option: Vec<String>,
    /// Threads within an operator [default: the container's CPU quota]
    #[arg(long, value_name = "N", help_heading = "Runtime")]
    pub threads: Option<usize>,
    /// The ONNX Runtime library, or the folder it lies in [default: ORT_DYLIB_PATH, then the usual places]
    #[arg(long, value_name = "PATH", help_heading = "Runtime")]
    pub library: Option<PathBuf>,
}

impl RuntimeArgs {
    /// As a recipe has it, with what a recipe leaves to the command line.
    pub fn of_recipe(recipe: &Recipe, provider_option: &[String], library: Option<&Path>) -> RuntimeArgs {
        RuntimeArgs {
            provider: recipe.provider.clone(),
            provider_option: provider_option.to_vec(),
            threads: recipe.threads,
            library: library.map(Path::to_path_buf),
        }
    }

    /// Starts ONNX Runtime.
    pub fn start(&self) -> Result<&'static Runtime> {
        let options = RuntimeOptions { library: self.library.clone(), threads: self.threads };
        Ok(Runtime::start(&options)?)
    }

    /// The provider with its settings.
    pub fn provider(&self) -> Result<Provider> {
        let mut provider: Provider = self.provider.parse()?;
        for option in &self.provider_option {
            let (key, value) = option.split_once('=').ok_or_else(|| {
                anyhow::anyhow!(
                    "--provider-option {option}: expected KEY=VALUE; known: {}",
                    provider.settings().join(", ")
                )
            })?;
            provider.set(key, value)?;
        }
        Ok(provider)
    }

    /// Options of a session called `name`.
    pub fn session(&self, name: &str) -> Result<SessionOptions> {
        let provider = self.provider()?;
        Ok(SessionOptions { name: name.into(), provider, threads: self.threads, ..SessionOptions::default() })
    }
}

/// What opening a base for an adapter takes: what its files do not show, where plugins are, how graphs run.
#[derive(Args, Clone, Debug, Default)]
pub struct BaseArgs {
    /// Name of the value that holds the hidden states [batch, sequence, width], for models that only output logits
    #[arg(long, value_name = "VALUE")]
    pub hidden: Option<String>,
    /// The tokenizer.json [default: the one beside the model]
    #[arg(long, value_name = "FILE")]
    pub tokenizer: Option<PathBuf>,
    /// The preprocessor_config.json of a base of images [default: the one beside the model]
    #[arg(long, value_name = "FILE")]
    pub preprocessor: Option<PathBuf>,
    /// A folder of plugins, searched first (repeatable)
    #[arg(long, value_name = "DIR")]
    pub plugin_dir: Vec<PathBuf>,
    #[command(flatten)]
    pub runtime: RuntimeArgs,
}

impl BaseArgs {
    /// Starts ONNX Runtime and opens the base.
    pub fn open(&self, base: &Path) -> Result<Base> {
        self.open_with(base, &self.options())
    }

    /// As [`BaseArgs::open`], with other options.
    pub fn open_with(&self, base: &Path, options: &BaseOptions) -> Result<Base> {
        Ok(Base::open(self.runtime.start()?, base, options)?)
    }

    /// The options of [`graft_tasks::Base::open`].
    pub fn options(&self) -> BaseOptions {
        BaseOptions {
            hidden: self.hidden.clone(),
            tokenizer: self.tokenizer.clone(),
            preprocessor: self.preprocessor.clone(),
            ..BaseOptions::default()
        }
    }
}

static STARTED: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();

/// When the process began, as near as `main` can tell.
pub fn started() -> std::time::Instant {
    *STARTED.get_or_init(std::time::Instant::now)
}

/// Logs go to stderr, at the level that `GRAFT_LOG` asks for (default: warnings).
pub fn start_logging() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("GRAFT_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .without_time()
        .try_init();
}

/// The same for a server. Lines of JSON have one for each request; `GRAFT_LOG` replaces the usual filter, which has those
/// and warnings.
pub fn start_logging_of_server(format: LogFormat) {
    if format == LogFormat::Text {
        return start_logging();
    }
    let filter = tracing_subscriber::EnvFilter::try_from_env("GRAFT_LOG").unwrap_or_else(|_| {
        tracing_subscriber::EnvFilter::new(format!("warn,{}=info,{SERVER}=info", graft_serve::trail::TARGET))
    });
    let lines =
        tracing_subscriber::fmt().json().flatten_event(true).with_current_span(false).with_span_list(false);
    let _ = lines.with_env_filter(filter).with_writer(std::io::stderr).try_init();
    // What a panic says may have a piece of a text in it; where it was is enough to find it.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(target: SERVER, place, "a panic");
    }));
}

/// Under which the server's own lines are logged.
const SERVER: &str = "graft::serve";

/// Tells the person at the terminal, or the log.
pub fn say(format: LogFormat, what: &str) {
    match format {
        LogFormat::Text => eprintln!("{what}"),
        LogFormat::Json => tracing::info!(target: SERVER, "{what}"),
    }
}

/// Shows an error and what led to it.
pub fn report(e: &anyhow::Error) {
    let mut said = e.to_string();
    eprintln!("error: {said}");
    for cause in e.chain().skip(1) {
        let cause = cause.to_string();
        // Transparent wrappers repeat what they wrap.
        if !said.contains(&cause) {
            eprintln!("  because: {cause}");
        }
        said = cause;
    }
}
