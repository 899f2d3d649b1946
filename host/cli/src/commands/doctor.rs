//! `graft doctor`.

mod machine;

use std::path::PathBuf;

use anyhow::{Result, bail};
use graft_plugins::{Found, find};
use graft_runtime::library::ORT_VERSION;
use graft_runtime::{Runtime, RuntimeError, RuntimeOptions, peak_rss_mb};
use serde_json::{Value as Json, json};

use super::plugins::{folder_line, found_json};
use crate::table::{Page, Table, bytes, show_json};

/// Say what works here: ONNX Runtime, providers, plugins, memory
///
/// Looks for the ONNX Runtime library, runs a tiny model on each provider, reads the manifests in the plugin folders
/// (running none of the plugins), and says how many threads, how much memory and which processor features there are.
/// The exit code is 1 if ONNX Runtime can't be used.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  graft doctor --library ./libonnxruntime.so")]
pub struct Args {
    /// The ONNX Runtime library, or the folder it lies in [default: ORT_DYLIB_PATH, then the usual places]
    #[arg(long, value_name = "PATH")]
    library: Option<PathBuf>,
    /// Threads within an operator [default: the container's CPU quota]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Plugin folder to search first (repeatable)
    #[arg(long, value_name = "DIR")]
    plugin_dir: Vec<PathBuf>,
    /// Print one JSON object instead
    #[arg(long)]
    json: bool,
}

type Trial = (String, Result<(), RuntimeError>);

/// Runs the command.
pub fn run(args: Args) -> Result<()> {
    let runtime = Runtime::start(&RuntimeOptions { library: args.library.clone(), threads: args.threads });
    let trials: Vec<Trial> = match &runtime {
        Ok(r) => r.providers_that_start().into_iter().map(|(p, started)| (p.to_string(), started)).collect(),
        Err(_) => Vec::new(),
    };
    let plugins = find::list(&args.plugin_dir)?;
    match args.json {
        true => show_json(&report(&args, &runtime, &trials, &plugins))?,
        false => page(&args, &runtime, &trials, &plugins).show()?,
    }
    match runtime {
        Ok(_) => Ok(()),
        // What is wrong with it stands in the report.
        Err(_) => bail!("nothing can be trained or run here before ONNX Runtime can be used"),
    }
}

fn page(
    args: &Args,
    runtime: &Result<&'static Runtime, RuntimeError>,
    trials: &[Trial],
    plugins: &[Found],
) -> Page {
    let mut page = Page::new();
    let library = match runtime {
        Ok(r) => format!("{} from {}", r.version(), r.library().display()),
        Err(e) => format!("can't be used\n{e}"),
    };
    let (threads, origin) = machine::threads(args.threads);
    let unknown = || "unknown".to_string();
    let memory = machine::memory().map_or_else(unknown, |m| {
        let limit = m.limit.map(|l| format!(", limited to {}", bytes(l))).unwrap_or_default();
        format!("{} available of {}{limit}", bytes(m.available), bytes(m.total))
    });
    page.facts(&[
        ("graft", env!("CARGO_PKG_VERSION").to_string()),
        ("ONNX Runtime", library),
        ("threads", format!("{threads} ({origin})")),
        ("processor", machine::features().join(", ")),
        ("memory", memory),
        ("peak memory", peak_rss_mb().map_or_else(unknown, |mb| bytes((mb * 1e6) as u64))),
        ("cache folder", machine::cache().map_or_else(|| "none".into(), |c| c.display().to_string())),
    ]);
    if !trials.is_empty() {
        page.heading("Providers");
        let facts: Vec<(&str, String)> = trials
            .iter()
            .map(|(name, started)| {
                let said = started.as_ref().map_or_else(|e| format!("no: {e}"), |()| "starts".into());
                (name.as_str(), said)
            })
            .collect();
        page.facts(&facts);
    }
    page.heading("Plugin folders");
    find::folders(&args.plugin_dir).iter().for_each(|f| page.line(folder_line(f)));
    page.heading("Plugins");
    if plugins.is_empty() {
        page.line("none found");
        return page;
    }
    let mut table = Table::new(&["plugin", "version", "API", "file"]);
    for Found { path, manifest } in plugins {
        let file = path.display().to_string();
        match manifest {
            Ok(m) => table.row([m.id.clone(), m.version.clone(), m.api.clone(), file]),
            Err(e) => table.row(["unusable".into(), String::new(), String::new(), e.to_string()]),
        }
    }
    page.table(&table);
    page
}

fn report(
    args: &Args,
    runtime: &Result<&'static Runtime, RuntimeError>,
    trials: &[Trial],
    plugins: &[Found],
) -> Json {
    let library = match runtime {
        Ok(r) => json!({ "path": r.library(), "version": r.version(), "needed": ORT_VERSION, "error": null }),
        Err(e) => json!({ "path": null, "version": null, "needed": ORT_VERSION, "error": e.to_string() }),
    };
    let trial = |(name, started): &Trial| {
        let error = started.as_ref().err().map(ToString::to_string);
        json!({ "provider": name, "starts": error.is_none(), "error": error })
    };
    let (threads, origin) = machine::threads(args.threads);
    let memory = machine::memory()
        .map(|m| json!({ "total_bytes": m.total, "available_bytes": m.available, "limit_bytes": m.limit }));
    json!({
        "graft": env!("CARGO_PKG_VERSION"),
        "library": library,
        "threads": threads,
        "threads_from": origin,
        "cpu_features": machine::features(),
        "memory": memory,
        "peak_rss_mb": peak_rss_mb(),
        "cache": machine::cache(),
        "providers": trials.iter().map(trial).collect::<Vec<_>>(),
        "plugin_folders": find::folders(&args.plugin_dir),
        "plugins": plugins.iter().map(found_json).collect::<Vec<_>>(),
    })
}
