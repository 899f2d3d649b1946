//! `graft grad`.

use std::path::PathBuf;

use anyhow::Result;
use graft_adapters::{read_tensors, write_tensors};
use graft_tasks::{Base, BaseOptions, gradients};

use crate::common::{BaseArgs, RuntimeArgs};

/// Computes gradients of the sum of cotangent times output
///
/// Reads `in:INPUT` for each input and `ct:OUTPUT` for each output from the tensors file, writes `out:OUTPUT` and
/// `grad:NAME`. Without --wrt, NAME is every float initializer on a path to an output.
#[derive(clap::Args)]
pub struct Args {
    /// The model, or a directory that holds one
    model: PathBuf,
    /// A .safetensors file with in:INPUT and ct:OUTPUT
    #[arg(long, value_name = "FILE")]
    tensors: PathBuf,
    /// Values to take gradients of: initializers, inputs or any other float value
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    wrt: Option<Vec<String>>,
    /// Where to write the gradients [default: only norms are printed]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write the gradient model, in standard operators
    #[arg(long, value_name = "FILE")]
    save_graph: Option<PathBuf>,
    #[command(flatten)]
    base: BaseArgs,
    #[command(flatten)]
    runtime: RuntimeArgs,
}

/// Runs the command.
pub fn run(args: Args) -> Result<()> {
    let runtime = args.runtime.start()?;
    let options = BaseOptions { seen: args.wrt.clone().unwrap_or_default(), ..args.base.options() };
    let base = Base::open(runtime, &args.model, &options)?;
    let tensors = read_tensors(&args.tensors)?;
    let options = args.runtime.session("gradient")?;
    let run = gradients(&base, &tensors, args.wrt.as_deref(), args.save_graph.as_deref(), &options)?;
    eprintln!("{} nodes forward, {} with gradients", run.forward_nodes, run.gradient_nodes);
    for (name, t) in run.tensors.iter().filter(|(n, _)| n.starts_with("grad:")) {
        let norm = t.to_f64s().unwrap_or_default().iter().map(|v| v * v).sum::<f64>().sqrt();
        println!("{norm:14.6e}  {:?}  {}", t.shape(), &name[5..]);
    }
    if let Some(out) = &args.out {
        write_tensors(out, run.tensors.iter().map(|(k, v)| (k.as_str(), v)))?;
        eprintln!("wrote {}", out.display());
    }
    if let Some(path) = &args.save_graph {
        eprintln!("wrote {}", path.display());
    }
    Ok(())
}
