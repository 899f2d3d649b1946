//! `graft plugins`.

mod new;
mod schema;
mod verify;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use clap::Subcommand;
use graft_plugins::api::config::nearest;
use graft_plugins::api::manifest::{Item, Manifest};
use graft_plugins::{Found, Kind, find};
use serde_json::{Value as Json, json};

use crate::table::{Page, Table, show_json};

/// Write, list, describe and check plugins
///
/// A plugin is one shared library: a method (how an adapter changes the base) or an objective (what is optimised), or
/// several of them. To install one, put its file into a plugin folder. Searched are, in this order: --plugin-dir, the
/// folders in GRAFT_PLUGIN_PATH (separated by colons), the folder of the graft executable, `plugins` in it, and
/// ~/.local/share/graft/plugins. The first library that has a name is used.
///
/// Plugins are native code: only install those whose authors you trust.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    New(new::New),
    List(List),
    Info(Info),
    Verify(verify::Verify),
}

/// List the methods and objectives that are installed
///
/// Reads the manifests in the libraries. No code of a plugin is run.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  graft plugins list --plugin-dir ./my-plugins")]
struct List {
    /// Folder to search first (repeatable)
    #[arg(long, value_name = "DIR")]
    plugin_dir: Vec<PathBuf>,
    /// Print one JSON object instead
    #[arg(long)]
    json: bool,
}

/// Show what a method or objective can be told, with types, defaults and examples
///
/// Reads the manifest in the library. No code of the plugin is run.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  graft plugins info lora")]
struct Info {
    /// Name of a method, an objective or a plugin
    name: String,
    /// Folder to search first (repeatable)
    #[arg(long, value_name = "DIR")]
    plugin_dir: Vec<PathBuf>,
    /// Print one JSON object instead
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: Args) -> Result<()> {
    match args.what {
        What::New(args) => new::run(&args),
        What::List(args) => list(&args),
        What::Info(args) => info(&args),
        What::Verify(args) => verify::run(&args),
    }
}

const KINDS: [Kind; 2] = [Kind::Method, Kind::Objective];

fn list(args: &List) -> Result<()> {
    let found = find::list(&args.plugin_dir)?;
    if args.json {
        let plugins: Vec<Json> = found.iter().map(found_json).collect();
        return show_json(&json!({ "plugins": plugins, "folders": find::folders(&args.plugin_dir) }));
    }
    let mut page = Page::new();
    let mut table = Table::new(&["name", "kind", "version", "what it does", "file"]);
    let mut seen = BTreeSet::new();
    let (mut shadowed, mut broken) = (Vec::new(), Vec::new());
    for Found { path, manifest } in &found {
        let file = path.display().to_string();
        match manifest {
            Err(e) => broken.push(e.to_string()),
            Ok(m) => items(m).for_each(|(kind, item)| {
                if !seen.insert((kind.name(), item.id.clone())) {
                    shadowed.push(format!("{} {} in {file}", kind.name(), item.id));
                }
                let cells = [&item.id, kind.name(), &m.version, &item.summary, &file];
                table.row(cells.map(str::to_string));
            }),
        }
    }
    match seen.is_empty() {
        true => page.line("No plugins are installed."),
        false => page.table(&table),
    }
    notes(&mut page, "Not used, because a file above has the same name:", &shadowed);
    notes(&mut page, "Cannot be used:", &broken);
    let folders = find::folders(&args.plugin_dir);
    let folders: Vec<String> = folders.iter().map(|f| folder_line(f)).collect();
    notes(&mut page, "Searched:", &folders);
    page.show()
}

/// A folder, and whether it is there.
pub fn folder_line(folder: &Path) -> String {
    let absent = if folder.is_dir() { "" } else { " (does not exist)" };
    format!("{}{absent}", folder.display())
}

fn notes(page: &mut Page, heading: &str, lines: &[String]) {
    if !lines.is_empty() {
        page.heading(heading);
        lines.iter().for_each(|l| page.line(format!("  {l}")));
    }
}

fn items(m: &Manifest) -> impl Iterator<Item = (Kind, &Item)> {
    KINDS.into_iter().flat_map(move |kind| kind.items(m).iter().map(move |item| (kind, item)))
}

/// What `plugins list` and `doctor` tell scripts of a library.
pub fn found_json(found: &Found) -> Json {
    let short = |items: &[Item]| -> Vec<Json> {
        items.iter().map(|i| json!({ "id": i.id, "summary": i.summary })).collect()
    };
    match &found.manifest {
        Err(e) => json!({ "path": found.path, "error": e.to_string() }),
        Ok(m) => json!({
            "path": found.path, "id": m.id, "version": m.version, "api": m.api, "licence": m.licence,
            "methods": short(&m.methods), "objectives": short(&m.objectives),
        }),
    }
}

fn info(args: &Info) -> Result<()> {
    let found = find::list(&args.plugin_dir)?;
    let (path, manifest) = named(&found, &args.name, &args.plugin_dir)?;
    if args.json {
        let mut json = serde_json::to_value(manifest)?;
        json["path"] = json!(path);
        return show_json(&json);
    }
    let mut page = Page::new();
    page.facts(&[
        ("plugin", format!("{} {}", manifest.id, manifest.version)),
        ("plugin API", manifest.api.clone()),
        ("licence", manifest.licence.clone()),
        ("file", path.display().to_string()),
    ]);
    // A plugin's own name shows all that it has; the name of one of its items only that one.
    let all = !items(manifest).any(|(_, i)| i.id == args.name);
    for (kind, item) in items(manifest).filter(|(_, i)| all || i.id == args.name) {
        describe(&mut page, kind, item);
    }
    page.show()
}

/// The first library that is called `name` or has something of that name.
fn named<'a>(found: &'a [Found], name: &str, explicit: &[PathBuf]) -> Result<(&'a Path, &'a Manifest)> {
    let sound = || found.iter().filter_map(|f| Some((f.path.as_path(), f.manifest.as_ref().ok()?)));
    if let Some(hit) = sound().find(|(_, m)| m.id == name || items(m).any(|(_, i)| i.id == name)) {
        return Ok(hit);
    }
    let names: BTreeSet<&str> = sound().flat_map(|(_, m)| items(m)).map(|(_, i)| i.id.as_str()).collect();
    let meant = nearest(name, names.iter().copied(), 1);
    let meant = meant.first().map(|n| format!("Did you mean `{n}`? ")).unwrap_or_default();
    let known =
        if names.is_empty() { "none".into() } else { names.into_iter().collect::<Vec<_>>().join(", ") };
    let folders: Vec<String> = find::folders(explicit).iter().map(|f| f.display().to_string()).collect();
    let broken: Vec<String> = found
        .iter()
        .filter_map(|f| f.manifest.as_ref().err())
        .map(|e| format!("\n  unusable: {e}"))
        .collect();
    Err(anyhow!(
        "no plugin has a method or objective `{name}`. {meant}There are: {known}. Searched: {}{}",
        folders.join(", "),
        broken.concat()
    ))
}

fn describe(page: &mut Page, kind: Kind, item: &Item) {
    page.heading(&format!("{} {}: {}", kind.name(), item.id, item.summary));
    let keys = schema::keys(&item.config);
    if keys.is_empty() {
        page.line("  takes no configuration");
    }
    for key in keys {
        page.line(format!("\n  {}  {}", key.name, key.kind));
        key.description.lines().for_each(|l| page.line(format!("      {l}")));
    }
    if !item.examples.is_empty() {
        page.line("\n  Examples");
    }
    for example in &item.examples {
        let mut command = format!("graft train … --{} {}", kind.name(), item.id);
        for (key, value) in example.config.as_object().into_iter().flatten() {
            command.push_str(&format!(" --set {}.{key}={}", kind.name(), schema::text(value)));
        }
        page.line(format!("    {}\n        {command}", example.title));
    }
}
