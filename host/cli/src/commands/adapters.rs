//! `graft adapters`.

mod convert;
mod diff;
mod list;

use std::path::PathBuf;

use anyhow::Result;
use clap::Subcommand;
use graft_adapters::{AdapterInfo, PeftSupport, info, load};

use crate::table::{Page, bytes, count, show_json};

/// List, describe, convert and compare adapters
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    List(list::List),
    Info(Info),
    Convert(Box<convert::Convert>),
    Diff(diff::Diff),
}

/// Show what an adapter is, for which base, how it was trained, and how much of it stock PEFT loads
///
/// Example: graft adapters info adapters/intent
#[derive(clap::Args)]
struct Info {
    /// The adapter directory
    dir: PathBuf,
    /// Print one JSON object instead
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: Args) -> Result<()> {
    match args.what {
        What::List(args) => list::run(&args),
        What::Info(args) => show(&args),
        What::Convert(args) => convert::run(&args),
        What::Diff(args) => diff::run(&args),
    }
}

fn show(args: &Info) -> Result<()> {
    let about = info(&load(&args.dir)?);
    if args.json {
        return show_json(&serde_json::to_value(&about)?);
    }
    page(&about).show()
}

fn page(a: &AdapterInfo) -> Page {
    let text = |o: &Option<String>| o.clone().unwrap_or_else(|| "not known".into());
    let mut facts = vec![
        (
            "method",
            format!("{} on {} modules, {} parameters", a.method, a.modules, count(a.parameters as u64)),
        ),
        ("objective", text(&a.objective)),
        ("pooling", text(&a.pooling)),
        ("head", format!("{} parameters", count(a.head_parameters as u64))),
        ("size", bytes(a.bytes as u64)),
    ];
    if !a.labels.is_empty() {
        facts.push(("labels", a.labels.join(", ")));
    }
    if let Some(base) = &a.base {
        facts.push(("base", format!("{} {}", base.name, base.digest).trim_end().to_string()));
    }
    let peft = match a.peft {
        PeftSupport::Whole => "loads all of it, head included",
        PeftSupport::HiddenStates => "loads what changes the base, not the head",
        PeftSupport::No => "loads none of it",
    };
    let why = a.peft_why_not.as_ref().map_or_else(String::new, |w| format!(": {w}"));
    facts.push(("stock PEFT", format!("{peft}{why}")));
    if let Some(t) = &a.training {
        facts.push(("trained", format!("{}, {} steps, seed {}", t.date, t.steps, t.seed)));
        facts
            .push(("with", format!("ONNX Runtime {}, {}, {} threads", t.onnxruntime, t.provider, t.threads)));
        let metrics: Vec<String> =
            t.metrics.iter().filter_map(|(k, v)| Some(format!("{k} {:.4}", v.as_f64()?))).collect();
        if !metrics.is_empty() {
            facts.push(("metrics", metrics.join("\n")));
        }
    }
    let mut page = Page::new();
    page.facts(&facts);
    page
}
