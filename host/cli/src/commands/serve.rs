//! `graft serve`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use graft_serve::{Engine, Limits, Store, grpc, http};

use crate::common::{BaseArgs, started};

/// Answer for many adapters over one copy of a base, over HTTP
///
/// Every folder below --adapters is an adapter under its own name: those that Graft trained, and those of Hugging Face
/// PEFT as they are.
///
/// Example: graft serve --base minilm --adapters adapters
#[derive(clap::Args)]
pub struct Args {
    /// The base: a directory or an .onnx file
    #[arg(long, value_name = "PATH")]
    base: PathBuf,
    /// The folder of the adapters
    #[arg(long, value_name = "DIR")]
    adapters: Option<PathBuf>,
    /// Address and port to listen at
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Address and port of the same over gRPC, as Triton's clients speak it [default: none]
    #[arg(long, value_name = "ADDRESS")]
    grpc: Option<SocketAddr>,
    /// The name under which clients ask for the base itself [default: that of its folder]
    #[arg(long, value_name = "NAME")]
    base_name: Option<String>,
    #[command(flatten)]
    base_args: BaseArgs,
}

/// Runs `graft serve`.
pub fn run(args: Args) -> Result<()> {
    let base = args.base_args.open(&args.base)?;
    let name = args.base_name.clone().unwrap_or_else(|| base.name());
    let store = Arc::new(Store::new(base, name, args.base_args.plugin_dir.clone())?);
    if let Some(dir) = &args.adapters {
        for (name, e) in store.load_all(dir)? {
            eprintln!("adapter '{name}' is not served: {e}");
        }
    }
    let options = args.base_args.runtime.session("serve")?;
    let engine = Arc::new(Engine::start(Arc::clone(&store), Limits::default(), options)?);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(args.listen).await;
        let listener = listener.with_context(|| format!("can't listen at {}", args.listen))?;
        let (count, at) = (store.list().len(), listener.local_addr()?);
        eprintln!(
            "{count} adapters on {} at http://{at}, {} ms after the start",
            store.base_name,
            started().elapsed().as_millis()
        );
        let (stop, stopping) = tokio::sync::watch::channel(());
        tokio::spawn(async move {
            stopped().await;
            drop(stop);
        });
        let http = http::serve(listener, Arc::clone(&engine), until_dropped(stopping.clone()));
        let grpc = async {
            let Some(at) = args.grpc else { return anyhow::Ok(()) };
            let listener = tokio::net::TcpListener::bind(at).await;
            let listener = listener.with_context(|| format!("can't listen at {at}"))?;
            eprintln!("gRPC at {}", listener.local_addr()?);
            Ok(grpc::serve(listener, Arc::clone(&engine), until_dropped(stopping)).await?)
        };
        tokio::try_join!(async { Ok(http.await?) }, grpc)?;
        anyhow::Ok(())
    })?;
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
