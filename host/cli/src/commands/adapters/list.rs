//! `graft adapters list`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use graft_adapters::{AdapterInfo, CONFIG_FILE, GRAFT_FILE, info, load};
use serde_json::json;

use crate::table::{Page, Table, bytes, count, show_json};

/// List the adapters in a folder: what each is, for which base, and how it was trained
///
/// Every folder in it that holds an adapter is read whole, so what is listed is sound. The exit code is 0 even if some
/// are not; these are named below the table.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  graft adapters list adapters")]
pub struct List {
    /// The folder that the adapters' directories lie in
    #[arg(default_value = ".")]
    folder: PathBuf,
    /// Print one JSON object instead
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &List) -> Result<()> {
    let (mut sound, mut broken) = (Vec::new(), Vec::new());
    for dir in adapters(&args.folder)? {
        match load(&dir) {
            Ok(adapter) => sound.push((dir, info(&adapter))),
            Err(e) => broken.push((dir, e.to_string())),
        }
    }
    if args.json {
        let mut listed = Vec::new();
        for (dir, about) in &sound {
            let mut one = serde_json::to_value(about)?;
            one["name"] = json!(name(dir));
            one["path"] = json!(dir);
            listed.push(one);
        }
        let broken: Vec<_> = broken.iter().map(|(dir, e)| json!({ "path": dir, "error": e })).collect();
        return show_json(&json!({ "adapters": listed, "broken": broken }));
    }
    let mut page = Page::new();
    if sound.is_empty() {
        page.line(format!("No adapters lie in {}.", args.folder.display()));
    } else {
        let mut table = Table::new(&["name", "method", "objective", "base", "parameters", "size", "trained"]);
        sound.iter().for_each(|(dir, about)| table.row(row(dir, about)));
        page.table(&table);
    }
    if !broken.is_empty() {
        page.heading("Cannot be used:");
        broken.iter().for_each(|(_, e)| page.line(format!("  {e}")));
    }
    page.show()
}

/// The folders that hold a file of an adapter, sorted by name.
fn adapters(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("{} cannot be listed", folder.display()))?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("{} cannot be listed", folder.display()))?.path();
        if [CONFIG_FILE, GRAFT_FILE].iter().any(|f| path.join(f).is_file()) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn name(dir: &Path) -> String {
    dir.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned())
}

fn row(dir: &Path, a: &AdapterInfo) -> [String; 7] {
    let unknown = || "-".to_string();
    let base = a.base.as_ref().map(|b| b.name.clone()).filter(|n| !n.is_empty());
    let trained = a.training.as_ref().map(|t| {
        let day = t.date.split('T').next().unwrap_or_default();
        // The metrics of test data say more than those that the epoch was selected by.
        let shown = |prefix: &str| t.metrics.iter().find(|(k, _)| k.starts_with(prefix));
        let metric = shown("test_").or_else(|| shown("eval_"));
        let metric = metric.and_then(|(k, v)| Some(format!(", {k} {:.4}", v.as_f64()?))).unwrap_or_default();
        format!("{day}, {} steps{metric}", t.steps)
    });
    [
        name(dir),
        a.method.clone(),
        a.objective.clone().or_else(|| a.task_type.clone()).unwrap_or_else(unknown),
        base.unwrap_or_else(unknown),
        count((a.parameters + a.head_parameters) as u64),
        bytes(a.bytes as u64),
        trained.unwrap_or_else(unknown),
    ]
}
