//! `graft export` and `graft merge`.

use std::path::PathBuf;

use anyhow::Result;
use graft_adapters::{load, read_tensors};
use graft_tasks::{Export, Exported, export};

use crate::common::BaseArgs;
use crate::table::{Page, bytes, count, show_json};

/// Write a base with an adapter as one plain ONNX model
///
/// The adapter's operators stand beside the base's, its parameters are initializers, and only standard operators are
/// used: any ONNX runtime runs the file, without Graft. This works for every method. The outputs are the base's as the
/// adapter leaves them and, for an adapter with a head, the head's (logits); where both have one of a name, it is the
/// head's. Labels, method and the base's digest are in the model's metadata (graft.labels and others).
///
/// The model is read again and run before it appears: each of its outputs must agree with the adapter's within 1e-5 of
/// its norm. It appears whole or not at all, and nothing is ever written over.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  graft export minilm adapters/intent intent.onnx\n  \
                        graft export minilm adapters/intent bases/intent --json")]
pub struct ExportArgs {
    #[command(flatten)]
    common: Common,
}

/// Merge an adapter into the weights of its base
///
/// Writes a plain ONNX model with the base's operators and new weights, which is as fast as the base. This works for
/// methods whose change of a module is linear in the module's input: LoRA and its relatives, scalings, trained biases
/// and norms. Others are refused with the operator that stands in the way; graft export writes them as nodes.
///
/// A weight that is used elsewhere as well, or has a copy (tied embeddings), is untied: only the adapted module gets
/// the new one. The adapter's head follows the base as in graft export. The model is compared with the unmerged adapter
/// before it appears, and refused where an output differs by more than 1e-5 of its norm.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  graft merge minilm adapters/intent intent.onnx\n  \
                        graft merge llama adapters/chat bases/chat --no-head")]
pub struct MergeArgs {
    #[command(flatten)]
    common: Common,
}

/// What both commands take.
#[derive(clap::Args)]
struct Common {
    /// The base: a directory or an .onnx file
    base: PathBuf,
    /// The adapter directory
    adapter: PathBuf,
    /// What to write: a file if it ends with .onnx, else a directory with model.onnx and the tokenizer's files
    out: PathBuf,
    /// Leave the adapter's head out
    #[arg(long)]
    no_head: bool,
    /// A .safetensors file with in:INPUT to compare on [default: inputs are made up]
    #[arg(long, value_name = "FILE")]
    tensors: Option<PathBuf>,
    /// Print one JSON object instead
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    base_args: BaseArgs,
}

/// Runs `graft export`.
pub fn run_export(args: ExportArgs) -> Result<()> {
    run(args.common, false)
}

/// Runs `graft merge`.
pub fn run_merge(args: MergeArgs) -> Result<()> {
    run(args.common, true)
}

fn run(args: Common, merge: bool) -> Result<()> {
    let base = args.base_args.open(&args.base)?;
    let adapter = load(&args.adapter)?;
    let inputs = args.tensors.as_deref().map(|file| {
        let named = read_tensors(file)?.into_iter();
        let given = named.filter_map(|(k, t)| Some((k.strip_prefix("in:")?.to_string(), t)));
        anyhow::Ok(given.collect())
    });
    let what = Export {
        merge,
        no_head: args.no_head,
        inputs: inputs.transpose()?,
        plugin_dirs: args.base_args.plugin_dir.clone(),
        session: args.base_args.runtime.session(if merge { "merge" } else { "export" })?,
    };
    let done = export(&base, &adapter, &args.out, &what)?;
    if args.json {
        return show_json(&done.to_json());
    }
    page(&done, merge).show()
}

fn page(done: &Exported, merge: bool) -> Page {
    let listed = |names: &[String]| if names.is_empty() { "none".to_string() } else { names.join(", ") };
    let mut facts = vec![
        ("written", done.model.display().to_string()),
        ("size", bytes(done.bytes)),
        (
            "model",
            format!("{} nodes, {} parameters", count(done.nodes as u64), count(done.parameters as u64)),
        ),
        ("outputs", listed(&done.outputs)),
    ];
    if !done.labels.is_empty() {
        facts.push(("labels", listed(&done.labels)));
    }
    if merge {
        facts.push(("merged", format!("{} modules", count(done.merged as u64))));
        if !done.untied.is_empty() {
            facts.push(("untied", listed(&done.untied)));
        }
    }
    if !done.copied.is_empty() {
        facts.push(("copied", listed(&done.copied)));
    }
    facts.push(("compared", format!("outputs differ by at most {:.1e} of their norm", done.difference)));
    let mut page = Page::new();
    page.facts(&facts);
    page
}
