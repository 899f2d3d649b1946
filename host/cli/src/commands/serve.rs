//! `graft serve`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use graft_serve::config::LogFormat;
use graft_serve::store::clear_leftovers;
use graft_serve::{Config, Engine, Store, Watcher, config, grpc, http};

use crate::common::{self, BaseArgs, started};

/// Answer for many adapters over one copy of a base, over HTTP
///
/// Every folder below --adapters is an adapter under its own name: those that Graft trained, and those of Hugging Face
/// PEFT as they are.
///
/// Everything can stand in a file (TOML) too, or in variables such as GRAFT_SERVE_LISTEN and GRAFT_SERVE_LIMITS__TEXTS;
/// flags win over variables, and those over the file. Keys stand in a file of their own (`keys_file`) or in
/// GRAFT_ADMIN_KEY, GRAFT_METRICS_KEY and GRAFT_API_KEY, or in files that GRAFT_ADMIN_KEY_FILE and so on name.
///
/// Example: graft serve --base minilm --adapters adapters
#[derive(clap::Args)]
pub struct Args {
    /// A file with settings; flags win over it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The base: a directory or an .onnx file
    #[arg(long, value_name = "PATH")]
    base: Option<String>,
    /// The folder of the adapters
    #[arg(long, value_name = "DIR")]
    adapters: Option<String>,
    /// When adapters are loaded: at-start, or on-request, each by the first request for it [default: at-start]
    #[arg(long, value_name = "WHEN")]
    load: Option<String>,
    /// Address and port to listen at [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Address and port of the same over gRPC, as Triton's clients speak it [default: none]
    #[arg(long, value_name = "ADDRESS")]
    grpc: Option<SocketAddr>,
    /// The name under which clients ask for the base itself [default: that of its folder]
    #[arg(long, value_name = "NAME")]
    base_name: Option<String>,
    /// What log lines look like: text, or json with a line for each request [default: text]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
    /// Another setting of the file, e.g. limits.texts=100 (repeatable)
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    #[command(flatten)]
    base_args: BaseArgs,
}

impl Args {
    fn config(&self) -> Result<Config> {
        let mut flags = toml::Table::new();
        for setting in &self.set {
            let (key, value) =
                setting.split_once('=').ok_or_else(|| anyhow!("--set {setting}: expected KEY=VALUE"))?;
            config::set(&mut flags, key, value);
        }
        let listen = self.listen.map(|l| l.to_string());
        let grpc = self.grpc.map(|l| l.to_string());
        let own = [
            ("base", &self.base),
            ("adapters", &self.adapters),
            ("load", &self.load),
            ("listen", &listen),
            ("grpc", &grpc),
            ("base_name", &self.base_name),
        ];
        for (key, value) in own {
            if let Some(value) = value {
                flags.insert(key.into(), toml::Value::String(value.clone()));
            }
        }
        if let Some(format) = self.log_format {
            flags.insert("log_format".into(), toml::Value::try_from(format)?);
        }
        Ok(Config::layered(self.config.as_deref(), std::env::vars(), flags)?)
    }
}

/// Runs `graft serve`.
pub fn run(args: Args) -> Result<()> {
    let config = args.config()?;
    common::start_logging_of_server(config.log_format);
    graft_runtime::map_large_blocks();
    let settings = config.settings(&|name| std::env::var(name).ok())?;
    let base = config.base.as_deref().ok_or_else(|| anyhow!("which base? Name it with --base"))?;
    let base = args.base_args.open(base)?;
    let name = config.base_name.clone().unwrap_or_else(|| base.name());
    let store = Store::new(base, name, args.base_args.plugin_dir.clone())?.keeping(config.keeping());
    let store = Arc::new(store);
    store.memory.set(config.limits.memory_bytes);
    let threads = args.base_args.runtime.threads.unwrap_or_else(|| store.base.runtime().threads());
    let say = |what: String| common::say(config.log_format, &what);
    if let Some(dir) = &config.adapters {
        clear_leftovers(dir).with_context(|| format!("can't read {}", dir.display()))?;
        for (name, e) in store.load_all(dir)? {
            say(format!("adapter '{name}' is not served: {e}"));
        }
    }
    let options = args.base_args.runtime.session("serve")?;
    let engine = Engine::start(Arc::clone(&store), config.limits.engine, options)?;
    let engine = Arc::new(engine.with_rates(config.engine_rates()));
    let watched = config.watching().filter(|_| config.adapters.is_some());
    let watcher = watched.map(|every| Watcher::start(Arc::clone(&store), every)).transpose()?;
    let app = http::App::new(Arc::clone(&engine), settings);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(threads.max(1)).enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(config.listen).await;
        let listener = listener.with_context(|| format!("can't listen at {}", config.listen))?;
        let (count, at) = (store.all().len(), listener.local_addr()?);
        let took = started().elapsed().as_millis();
        say(format!("{count} adapters on {} at http://{at}, {took} ms after the start", store.base_name));
        let (stop, stopping) = tokio::sync::watch::channel(());
        let (draining, grace) = (app.clone(), Duration::from_secs(config.drain_seconds));
        tokio::spawn(async move {
            stopped().await;
            tokio::select! {
                () = draining.drain(grace) => {}
                () = stopped() => {}
            }
            drop(stop);
        });
        let http = http::serve(listener, app.clone(), until_dropped(stopping.clone()));
        let grpc = async {
            let Some(at) = config.grpc else { return anyhow::Ok(()) };
            let listener = tokio::net::TcpListener::bind(at).await;
            let listener = listener.with_context(|| format!("can't listen at {at}"))?;
            say(format!("gRPC at {}", listener.local_addr()?));
            Ok(grpc::serve(listener, app, until_dropped(stopping)).await?)
        };
        tokio::try_join!(async { Ok(http.await?) }, grpc)?;
        anyhow::Ok(())
    })?;
    drop(watcher);
    engine.stop();
    Ok(())
}

/// Done when the other end is gone: one signal stops all listeners.
async fn until_dropped(mut other: tokio::sync::watch::Receiver<()>) {
    while other.changed().await.is_ok() {}
}

/// Done when the person or the system asks to stop.
async fn stopped() {
    let terminated = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminated => {}
    }
}
