//! `graft adapters diff`.

use std::path::PathBuf;

use anyhow::Result;
use graft_adapters::{AdapterDiff, diff, load};
use serde_json::{Value, json};

use crate::table::{Page, Table, count, show_json};

/// Compare two adapters: settings, tensors and their shapes, and how far apart the numbers of each module are
///
/// The distance of a module is |a - b| / max(|a|, |b|) over all its tensors: 0 for the same numbers.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  graft adapters diff adapters/monday adapters/tuesday")]
pub struct Diff {
    /// An adapter directory
    a: PathBuf,
    /// The other one
    b: PathBuf,
    /// Print one JSON object instead
    #[arg(long)]
    json: bool,
}

/// Modules that are listed; of a large base the others are summed up.
const LISTED: usize = 30;

/// Runs the command.
pub fn run(args: &Diff) -> Result<()> {
    let found = diff(&load(&args.a)?, &load(&args.b)?)?;
    if args.json {
        let mut object = serde_json::to_value(&found)?;
        object["same"] = json!(found.is_empty());
        return show_json(&object);
    }
    page(&found).show()
}

fn page(found: &AdapterDiff) -> Page {
    let mut page = Page::new();
    if found.is_empty() {
        page.line("The adapters have the same settings and the same tensors.");
        return page;
    }
    let text = |v: &Value| if v.is_null() { "-".to_string() } else { v.to_string() };
    if !found.settings.is_empty() {
        let mut table = Table::new(&["setting", "first", "second"]);
        found.settings.iter().for_each(|s| table.row([s.name.clone(), text(&s.a), text(&s.b)]));
        page.heading("Settings");
        page.table(&table);
    }
    for (heading, names) in [("Only the first has", &found.only_a), ("Only the second has", &found.only_b)] {
        if !names.is_empty() {
            page.heading(heading);
            names.iter().for_each(|n| page.line(format!("  {n}")));
        }
    }
    if !found.shapes.is_empty() {
        let mut table = Table::new(&["tensor of another shape", "first", "second"]);
        let shape = |s: &[usize]| format!("{s:?}");
        found.shapes.iter().for_each(|s| table.row([s.tensor.clone(), shape(&s.a), shape(&s.b)]));
        page.heading("Shapes");
        page.table(&table);
    }
    if !found.modules.is_empty() {
        let mut table = Table::new(&["module", "parameters", "distance", "largest difference"]);
        for m in found.modules.iter().take(LISTED) {
            let numbers = [format!("{:.4}", m.relative), format!("{:.3e}", m.largest)];
            table.row([m.module.clone(), count(m.parameters as u64)].into_iter().chain(numbers));
        }
        page.heading("Numbers");
        page.table(&table);
        if let Some(rest) = found.modules.get(LISTED..).filter(|r| !r.is_empty()) {
            page.line(format!("and {} more modules, each nearer than these", rest.len()));
        }
    }
    page
}
