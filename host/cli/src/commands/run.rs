//! `graft run`.

use std::path::PathBuf;

use anyhow::Result;
use graft_adapters::{load, read_tensors, write_tensors};
use graft_tasks::binding::architecture;
use graft_tasks::{BaseOptions, Program, Task};

use crate::common::BaseArgs;

/// Run a base on tensors, with or without an adapter
///
/// Reads `in:INPUT` for each input and writes `out:OUTPUT` for each output of the base, as the adapter leaves them; with
/// an adapter that has a head, also `out:logits`.
#[derive(clap::Args)]
pub struct Args {
    /// The base: a directory or an .onnx file
    base: PathBuf,
    /// An adapter directory
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    /// The Hugging Face checkpoint that the base was exported from: a pooler that the export lacks and a head that the
    /// adapter lacks are taken from it
    #[arg(long, value_name = "DIR")]
    checkpoint: Option<PathBuf>,
    /// A .safetensors file with in:INPUT
    #[arg(long, value_name = "FILE")]
    tensors: PathBuf,
    /// Where to write the outputs (.safetensors)
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    base_args: BaseArgs,
}

/// Runs the command.
pub fn run(args: Args) -> Result<()> {
    let options = BaseOptions { checkpoint: args.checkpoint.clone(), ..args.base_args.options() };
    let base = args.base_args.open_with(&args.base, &options)?;
    let given = read_tensors(&args.tensors)?;
    let named = given.iter().filter_map(|(k, t)| Some((k.strip_prefix("in:")?.to_string(), t.clone())));
    let mut inputs: indexmap::IndexMap<String, graft_graph::Tensor> = named.collect();
    let implied = base.imply_inputs(&|n| inputs.get(n).cloned())?;
    inputs.extend(implied);
    let options = args.base_args.runtime.session("base")?;
    let outputs = match &args.adapter {
        Some(dir) => {
            let mut stored = load(dir)?;
            if let Some(checkpoint) = &base.checkpoint {
                checkpoint.add_head(architecture(&base, &stored), &mut stored)?;
            }
            let mut outputs =
                Task::without_head(&base, &stored, &args.base_args.plugin_dir, &options)?.run(&inputs)?;
            if stored.head.is_some() {
                let head = Task::open(&base, &stored, &args.base_args.plugin_dir, &options)?.run(&inputs)?;
                // A base that was exported with logits of its own gives way to the adapter's.
                outputs.retain(|(name, _)| head.iter().all(|(n, _)| n != name));
                outputs.extend(head);
            }
            outputs
        }
        None => {
            Program::new(&base, &base.graph, &options)?.run(&|n| inputs.get(n).map(Into::into))?.tensors()?
        }
    };
    let named: Vec<(String, graft_graph::Tensor)> =
        outputs.into_iter().map(|(n, t)| (format!("out:{n}"), t)).collect();
    write_tensors(&args.out, named.iter().map(|(n, t)| (n.as_str(), t)))?;
    for (name, t) in &named {
        eprintln!("{name} {} {:?}", t.dtype(), t.shape());
    }
    Ok(())
}
