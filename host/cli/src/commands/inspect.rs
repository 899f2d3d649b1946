//! `graft inspect`.

mod methods;
mod operators;
mod report;
pub mod sites;
mod training;

use std::path::PathBuf;

use anyhow::Result;
use graft_runtime::{Runtime, RuntimeOptions};
use graft_tasks::{Base, BaseOptions};
use graft_train::Recipe;
use graft_train::engine::Chosen;
use graft_train::recipe::Layer;

use self::methods::Training;
use self::operators::Gradient;
use self::report::{Axes, Port, Report, Tied};
use self::training::Batch;
use crate::chosen;
use crate::table::{Page, Table, bytes, count, show_json};

/// Show what a base has: inputs, sites, what is differentiable, what each method would train
///
/// Reads the model as training does: sites are the modules that a method can hook, named as PyTorch names them;
/// operators are those that gradients are derived through. Numbered layers that are alike share a line. What methods
/// would train is found by letting every installed method write into the base, with its own examples as
/// configuration: this runs the plugins' code. With --method, only what a run with it would choose is shown: modules,
/// pooling, how much is trained, and where the base is cut so that what lies before is done once per example.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  graft inspect bases/minilm\n  graft inspect bases/minilm --json | jq .parameters\n  graft inspect bases/minilm --method lora --set method.r=4"
)]
pub struct Args {
    /// The base: a model file, or a directory with model.onnx or onnx/model.onnx
    base: PathBuf,
    /// Name of the value that holds the hidden states [batch, sequence, width], for models that only output logits
    #[arg(long, value_name = "VALUE")]
    hidden: Option<String>,
    /// List each site, not each group of numbered ones
    #[arg(long)]
    all: bool,
    /// Report what a training run would meet: derive the training step of every installed method, tell what stands in
    /// the way, and estimate its memory
    #[arg(long)]
    train: bool,
    /// Rows of the batch that memory is estimated for
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(i64).range(1..=65_536), requires = "train")]
    batch_size: i64,
    /// Tokens of each row of that batch
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(i64).range(1..=1_048_576), requires = "train")]
    length: i64,
    /// Show what a training run with this method would choose, instead of everything
    #[arg(long, value_name = "NAME", conflicts_with = "train")]
    method: Option<String>,
    /// The objective of that run
    #[arg(long, value_name = "NAME", default_value = "classification", requires = "method")]
    objective: String,
    /// A setting of the method or the objective, e.g. method.r=8 or objective.pooling=cls (repeatable)
    #[arg(long, value_name = "KEY=VALUE", requires = "method")]
    set: Vec<String>,
    /// Plugin folder to search first (repeatable)
    #[arg(long, value_name = "DIR")]
    plugin_dir: Vec<PathBuf>,
    /// The ONNX Runtime library, or the folder it lies in [default: ORT_DYLIB_PATH, then the usual places]
    #[arg(long, value_name = "PATH")]
    library: Option<PathBuf>,
    /// Print one JSON object instead
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: Args) -> Result<()> {
    let runtime = Runtime::start(&RuntimeOptions { library: args.library.clone(), threads: None })?;
    let options = BaseOptions { hidden: args.hidden.clone(), ..BaseOptions::default() };
    let base = Base::open(runtime, &args.base, &options)?;
    if let Some(method) = &args.method {
        return choices(&base, method, &args);
    }
    let batch = args.train.then_some(Batch { rows: args.batch_size, length: args.length });
    let report = Report::of(&base, &args.plugin_dir, batch)?;
    if args.json {
        return show_json(&serde_json::to_value(&report)?);
    }
    page(&report, args.all, batch).show()
}

/// What a run would choose: its recipe has no data, so the objective is shown two labels.
fn choices(base: &Base, method: &str, args: &Args) -> Result<()> {
    let mut layer = Layer::command_line();
    layer.flag("base", &args.base.display().to_string())?;
    for (key, value) in
        [("method", method), ("objective", &args.objective), ("data", "none"), ("out", "none")]
    {
        layer.flag(key, value)?;
    }
    args.set.iter().try_for_each(|s| layer.set(s))?;
    let recipe = Recipe::resolve(&[layer])?;
    let chosen = Chosen::of_recipe(base, &recipe, &args.plugin_dir)?;
    if args.json {
        return show_json(&chosen::to_json(&chosen, method, &args.objective));
    }
    let mut page = Page::new();
    let architecture = base.model_type.as_deref().unwrap_or("unknown architecture");
    let mut facts = vec![("base", format!("{} ({architecture})", base.path.display()))];
    facts.extend(chosen::facts(&chosen, method, &args.objective));
    page.facts(&facts);
    page.show()
}

fn page(r: &Report, all: bool, batch: Option<Batch>) -> Page {
    let mut page = Page::new();
    overview(&mut page, r);
    page.heading("Inputs and outputs");
    let mut ports = Table::new(&["name", "what", "type", "shape"]);
    for (side, list) in [("input", &r.inputs), ("output", &r.outputs)] {
        for p in list {
            let what = p.role.map_or_else(|| side.to_string(), |role| format!("{side}: {role}"));
            ports.row([p.name.clone(), what, p.dtype.into(), p.shape_text()]);
        }
    }
    page.table(&ports);
    page.heading(&format!("Sites ({})", r.sites.len()));
    let mut table = Table::new(&["path", "kind", "#count", "#in × out", "#parameters", "weight"]);
    for g in sites::groups(&r.sites, all) {
        let size = format!("{} × {}", g.in_features, g.out_features);
        table.row([g.path, g.kind.into(), g.count.to_string(), size, count(g.parameters), g.weight]);
    }
    match r.sites.is_empty() {
        true => page.line("none: the file has lost the names of its modules"),
        false => page.table(&table),
    }
    for t in &r.tied {
        page.line(tied_text(t));
    }
    operators(&mut page, r);
    training(&mut page, &r.methods);
    if let Some(batch) = batch {
        steps(&mut page, &r.methods, batch);
        r.axes.iter().flat_map(Axes::lines).for_each(|l| page.line(l));
    }
    page
}

fn overview(page: &mut Page, r: &Report) {
    let files: Vec<String> =
        r.files.iter().map(|f| format!("{}  {}", f.path.display(), bytes(f.bytes))).collect();
    let port = |p: &Port| format!("{} {}", p.name, p.shape_text());
    let hidden = r.hidden.as_ref().map_or_else(
        || match r.hidden_candidates.as_slice() {
            [] => "none found; name the value with --hidden VALUE".into(),
            names => {
                format!("no output shows them; name the value with --hidden VALUE, e.g. {}", names.join(", "))
            }
        },
        port,
    );
    let none = || "none".to_string();
    page.facts(&[
        ("files", files.join("\n")),
        ("digest", r.digest.clone()),
        (
            "architecture",
            r.architecture.clone().unwrap_or_else(|| "not told (no config.json beside it)".into()),
        ),
        ("operator set", format!("{} (as Graft reads it), {} nodes", r.opset, r.nodes)),
        ("parameters", format!("{} in {}", count(r.parameters), bytes(r.parameter_bytes))),
        ("hidden states", hidden),
        ("pooled output", r.pooled.as_ref().map_or_else(none, port)),
        ("tokenizer", r.tokenizer.as_ref().map_or_else(none, |t| t.display().to_string())),
    ]);
}

fn operators(page: &mut Page, r: &Report) {
    let kinds = r.operators.len();
    page.heading(&format!("Operators ({kinds})"));
    for gradient in [Gradient::Rule, Gradient::NotNeeded] {
        let of: Vec<String> = r
            .operators
            .iter()
            .filter(|o| o.gradient == gradient)
            .map(|o| format!("{} {}", o.op, o.count))
            .collect();
        if !of.is_empty() {
            page.line(format!("{}: {}", gradient.words(), of.join(", ")));
        }
    }
    for o in r.operators.iter().filter(|o| o.gradient == Gradient::Missing) {
        page.line(format!("{}: {} {}, in {}", o.gradient.words(), o.op, o.count, o.modules_text()));
    }
    page.line(match &r.gradients.error {
        None => format!(
            "The gradients of all {} float weights ({} parameters) on a path to an output can be derived.",
            r.gradients.weights,
            count(r.gradients.parameters)
        ),
        Some(e) => format!("Not every weight can be trained: {e}"),
    });
}

fn training(page: &mut Page, methods: &[Training]) {
    page.heading("What the installed methods would train, without the objective's head");
    let mut table = Table::new(&["method", "#parameters", "#sites", "example", "settings"]);
    let mut failed = Vec::new();
    for m in methods {
        let (parameters, sites) = match (&m.error, m.parameters) {
            (None, Some(n)) => (count(n), m.sites.to_string()),
            (e, _) => {
                failed.push(format!("{} ({}): {}", m.method, m.example, e.as_deref().unwrap_or_default()));
                ("—".into(), "—".into())
            }
        };
        table.row([m.method.clone(), parameters, sites, m.example.clone(), m.settings_text()]);
    }
    match methods.is_empty() {
        true => page.line("No methods are installed; see graft plugins list."),
        false => page.table(&table),
    }
    failed.iter().for_each(|f| page.line(f));
    // The first example of a method is what it does by default.
    let mut seen = std::collections::BTreeSet::new();
    for m in methods.iter().filter(|m| seen.insert(&m.method)) {
        for t in &m.takes {
            let more = if t.paths.len() > chosen::SHOWN { ", …" } else { "" };
            let shown = t.paths.iter().take(chosen::SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
            page.line(format!("{} would choose {}: {shown}{more}", m.method, t.rule));
        }
    }
}

fn tied_text(t: &Tied) -> String {
    let copy = |c: &report::Twin| format!("{}{}", c.weight, if c.transposed { " (transposed)" } else { "" });
    let copies: Vec<String> = t.copies.iter().map(copy).collect();
    let mut text = format!("tied: {}", t.weight);
    if !copies.is_empty() {
        text += &format!(" is stored again as {}", copies.join(", "));
    }
    if !t.sites.is_empty() {
        text += if copies.is_empty() { " is the weight of " } else { "; it is the weight of " };
        text += &t.sites.join(", ");
    }
    text
}

fn steps(page: &mut Page, methods: &[Training], batch: Batch) {
    page.heading(&format!(
        "A training step of {} rows of {} tokens, without the objective's head",
        batch.rows, batch.length
    ));
    let mut table =
        Table::new(&["method", "example", "#nodes", "#with gradients", "#activations", "#weights"]);
    let mut notes = Vec::new();
    for m in methods {
        let Some(s) = &m.step else { continue };
        let [forward, nodes] = [s.forward_nodes, s.nodes].map(|n| n.to_string());
        let sizes = match &s.obstacle {
            None => [nodes, bytes(s.activation_bytes), bytes(s.weight_bytes)],
            Some(o) => {
                notes.push(format!("{} ({}) can't train this base: {}", m.method, m.example, o.message));
                ["—".into(), "—".into(), "—".into()]
            }
        };
        if s.unknown_sizes > 0 {
            notes.push(format!(
                "{} ({}): {} values of unknown size are not counted",
                m.method, m.example, s.unknown_sizes
            ));
        }
        let [with, activations, weights] = sizes;
        table.row([m.method.clone(), m.example.clone(), forward, with, activations, weights]);
    }
    page.table(&table);
    notes.iter().for_each(|n| page.line(n));
    page.line("Weights are mapped from the base's files and shared by every run; a provider's own scratch space comes on top.");
}
