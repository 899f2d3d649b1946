//! `graft adapters convert`.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use graft_adapters::{Plain, Projected, load, save, to_peft};
use graft_tasks::{adopt, projected};
use serde_json::json;

use crate::common::BaseArgs;
use crate::table::{Page, show_json};

/// Write an adapter in the other layout: as PEFT alone would have it, or with Graft's own file
///
/// An adapter that Graft trained is a PEFT directory with files beside it that only Graft reads. `--to peft` leaves these
/// out, and says what is left out with them; a head that PEFT has no place for is never dropped unless --without-head
/// says so. With `--base` its projections become those of that base, fused (`c_attn`) or split (`q_proj`, `k_proj`,
/// `v_proj`), where that is exact. `--to graft` fits an adapter of PEFT's to a base and writes down which base, objective and labels it is for.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  graft adapters convert adapters/intent --to peft plain\n  graft adapters convert \
                  downloaded --to graft --base minilm --labels low,high adapters/intent"
)]
pub struct Convert {
    /// The adapter directory
    dir: PathBuf,
    /// The layout
    #[arg(long, value_enum)]
    to: Layout,
    /// Where to write; it must not exist yet
    out: PathBuf,
    /// Leave out a head that PEFT has no place for
    #[arg(long)]
    without_head: bool,
    /// The base that the adapter is for (for --to graft), or whose projections it is to have
    #[arg(long, value_name = "PATH")]
    base: Option<PathBuf>,
    /// The labels in the order of the head's outputs (for --to graft) [default: LABEL_0, LABEL_1 …]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    labels: Option<Vec<String>>,
    /// Print one JSON object instead
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    base_args: BaseArgs,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Layout {
    /// As PEFT alone would have it
    Peft,
    /// With Graft's own file
    Graft,
}

/// Runs the command.
pub fn run(args: &Convert) -> Result<()> {
    if args.out.exists() {
        bail!("{} exists already; nothing is written over. Name another place", args.out.display());
    }
    let adapter = load(&args.dir)?;
    let base = args.base.as_ref().map(|b| args.base_args.open(b)).transpose()?;
    let found = base.as_ref().map(|b| projected(b, &adapter)).transpose()?.flatten();
    if let (Layout::Peft, Some(base), None) = (args.to, &base, &found) {
        if adapter.peft.is_none() {
            bail!(
                "--base is for adapters of PEFT's: there are no projections of others to turn into a base's"
            );
        }
        adapter.sites_in(base.site_paths())?;
    }
    let (adapter, converted) =
        found.map_or((adapter, Vec::new()), |Projected { adapter, done }| (adapter, done));
    let Plain { adapter, left_out } = match args.to {
        Layout::Peft if args.labels.is_some() => {
            bail!("--labels are for --to graft: PEFT's layout has no place for them")
        }
        Layout::Peft => to_peft(&adapter, args.without_head)?,
        Layout::Graft => {
            if args.without_head {
                bail!("--without-head is for --to peft: Graft's layout keeps every head");
            }
            let base = base.context("--to graft needs --base: the base that the adapter is for")?;
            let adapter = adopt(&base, &adapter, args.labels.clone(), &args.base_args.plugin_dir)?;
            Plain { adapter, left_out: Vec::new() }
        }
    };
    save(&args.out, &adapter)?;
    if args.json {
        return show_json(&json!({ "written": args.out, "left_out": left_out, "converted": converted }));
    }
    let mut page = Page::new();
    page.line(format!("Written: {}", args.out.display()));
    if !converted.is_empty() {
        page.heading("Converted, for the projections of the base:");
        converted.iter().for_each(|l| page.line(format!("  {l}")));
    }
    if !left_out.is_empty() {
        page.heading("Left out, because PEFT's format has no place for it:");
        left_out.iter().for_each(|l| page.line(format!("  {l}")));
    }
    page.show()
}
