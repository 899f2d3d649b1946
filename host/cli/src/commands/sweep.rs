//! `graft sweep`.

use std::path::{Path, PathBuf};

use anyhow::Result;
use graft_train::engine::{Prepare, Sweep, SweepPoint, SweepTable};
use graft_train::grid::{Axis, points};
use graft_train::{Interrupt, Observer};
use serde_json::json;

use super::train::{Files, RecipeFlags, layers};
use crate::common::RuntimeArgs;

/// Train over a grid of settings and keep the best adapter
///
/// Each --set names a key of the recipe and the values to try; every combination is trained, one after the other, as
/// `graft train` would. The evaluation data choose the best, never the test data. What the base computes once per
/// example is kept on disk and shared by all points that have it in common.
///
/// The folder --out gets sweep.json and sweep.md, which are written after each point, and the best adapter in best.
/// Ctrl-C ends the sweep; --resume goes on where it ended.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  graft sweep recipe.toml --set method.r=4,8,16 --set lr=1e-3,5e-4 --out sweeps/rank
  graft sweep recipe.toml --set seed=0,1,2,3,4 --eval-data dev.csv --out sweeps/seeds --keep-all
  graft sweep recipe.toml --set 'method.target_modules=[\"query\",\"value\"],[\"query\",\"key\"]' --out sweeps/where")]
pub struct Args {
    /// A recipe; flags win over it
    recipe: Option<PathBuf>,
    #[command(flatten)]
    flags: RecipeFlags,
    /// A key of the recipe and its values, parted by commas; one value alone is for every point (repeatable)
    #[arg(long, value_name = "KEY=VALUE,…")]
    set: Vec<String>,
    /// Go on with the sweep that is in --out
    #[arg(long)]
    resume: bool,
    /// Keep every adapter, in points, not the best alone
    #[arg(long)]
    keep_all: bool,
    /// A folder of plugins, searched first (repeatable)
    #[arg(long, value_name = "DIR")]
    plugin_dir: Vec<PathBuf>,
    /// A setting of the provider, e.g. memory-limit=4GiB (repeatable)
    #[arg(long, value_name = "KEY=VALUE")]
    provider_option: Vec<String>,
    /// The ONNX Runtime library, or the folder it lies in
    #[arg(long, value_name = "PATH")]
    library: Option<PathBuf>,
    /// One JSON object last on stdout instead of the table
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: Args) -> Result<()> {
    let axes = args.set.iter().map(|s| Axis::parse(s)).collect::<Result<Vec<_>, _>>()?;
    let layers = layers(args.recipe.as_deref(), &args.flags, &[])?;
    let grid = points(&axes)?;
    let mut sweep = Sweep::new(&layers, grid, args.keep_all, args.resume)?;
    let Some(first) = sweep.first() else { anyhow::bail!("the grid has no points") };
    let runtime = RuntimeArgs::of_recipe(first, &args.provider_option, args.library.as_deref());
    let with = Prepare {
        runtime: runtime.start()?,
        plugin_dirs: &args.plugin_dir,
        options: runtime.session("training")?,
    };
    let interrupt = Interrupt::install()?;
    if !sweep.table().done.is_empty() {
        eprintln!("{} of {} points are done already", sweep.table().done.len(), sweep.table().points);
    }
    let mut watching = |out: &Path| Box::new(Files::new(out)) as Box<dyn Observer>;
    sweep.run(&with, &mut watching, &mut |t, p| eprintln!("{}", line(t, p)), &interrupt)?;
    let table = sweep.table();
    if interrupt.requested() && table.done.len() < table.points {
        eprintln!("interrupted after {} of {} points; --resume goes on", table.done.len(), table.points);
    }
    if args.json {
        let mut object = json!({ "sweep": sweep.folder, "best_adapter": sweep.folder.join("best") });
        object["table"] = serde_json::to_value(table)?;
        println!("{object}");
    } else {
        print!("{}", table.markdown());
    }
    if let Some(best) = table.best_point() {
        let settings: Vec<String> = best.settings.iter().map(|(k, v)| format!("{k}={v}")).collect();
        eprintln!("best: point {} ({})", best.number, settings.join(" "));
        best.test.iter().for_each(|(name, value)| eprintln!("test {name}: {value:.4}"));
        eprintln!("saved {}", sweep.folder.join("best").display());
    }
    Ok(())
}

/// A finished point in a line.
fn line(table: &SweepTable, p: &SweepPoint) -> String {
    let mut line = format!("{}/{}", p.number, table.points);
    p.settings.iter().for_each(|(k, v)| line += &format!("  {k}={v}"));
    match &p.error {
        Some(e) => line += &format!("  failed: {e}"),
        None => p.evaluation.iter().for_each(|(k, v)| line += &format!("  {k} {v:.4}")),
    }
    line += &format!("  {:.1} s", p.seconds);
    if table.best == Some(p.number) {
        line += "  (best so far)";
    }
    line
}
