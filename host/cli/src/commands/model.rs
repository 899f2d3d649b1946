//! `graft model`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Subcommand;
use graft_models::ImportReport;

use crate::table::{Page, bytes, count, show_json};

/// Make ONNX bases
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    Import(Import),
}

/// Convert a Hugging Face checkpoint directory to an ONNX base
///
/// Reads config.json and model.safetensors (also in several files), and writes a directory that the other commands
/// take as --base: model.onnx with its weights in f32 beside it, and the tokenizer's files. Weights are mapped, not
/// loaded, so a large checkpoint needs little memory. The directory appears whole or not at all, and nothing is ever
/// written over. No Python is needed.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  graft model import all-MiniLM-L6-v2 bases/minilm\n  graft inspect bases/minilm"
)]
struct Import {
    /// The checkpoint: the folder that save_pretrained() writes and that model hubs offer for download
    hf_dir: PathBuf,
    /// The base to make; it must not exist yet
    out_dir: PathBuf,
    /// Print one JSON object instead
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: Args) -> Result<()> {
    match args.what {
        What::Import(args) => import(&args),
    }
}

fn import(args: &Import) -> Result<()> {
    let report = graft_models::import(&args.hf_dir, &args.out_dir)?;
    if args.json {
        return show_json(&serde_json::to_value(&report)?);
    }
    page(&report, args).show()
}

fn page(report: &ImportReport, args: &Import) -> Page {
    let listed = |names: &[String]| if names.is_empty() { "none".to_string() } else { names.join(", ") };
    let mut page = Page::new();
    page.facts(&[
        ("architecture", report.model_type.clone()),
        ("checkpoint", report.source.clone()),
        ("parameters", count(report.parameters)),
        ("size", format!("{} in f32", bytes(report.bytes))),
        ("inputs", listed(&report.inputs)),
        ("outputs", listed(&report.outputs)),
        ("left out", listed(&report.unused)),
        ("copied", listed(&report.copied)),
        ("written", report.model.display().to_string()),
        ("time", format!("{:.1} s", report.seconds)),
    ]);
    if !report.has_tokenizer {
        page.line("\nThe checkpoint has no tokenizer.json: name one with --tokenizer FILE when you train.");
    }
    page.line(format!("\nNext: graft inspect {}", args.out_dir.display()));
    page
}
