//! `graft eval` and `graft predict`.

use std::io::{IsTerminal, Read};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use graft_adapters::{StoredAdapter, load};
use graft_data::{Mapping, Table};
use graft_runtime::peak_rss_mb;
use graft_tasks::{Base, Examples, Intake, Task, table_options};
use serde_json::{Value, json};

use crate::common::{BaseArgs, RuntimeArgs};

/// What both commands need.
#[derive(clap::Args)]
struct Common {
    /// The base: a directory or an .onnx file
    #[arg(long, value_name = "PATH")]
    base: PathBuf,
    /// An adapter directory (repeatable: one answer from each, over one copy of the base)
    #[arg(long = "adapter", value_name = "DIR", required = true)]
    adapters: Vec<PathBuf>,
    /// Tokens at which text is cut [default: as in training, else the base's own limit]
    #[arg(long, value_name = "N")]
    max_length: Option<usize>,
    /// A folder of plugins, searched first (repeatable)
    #[arg(long, value_name = "DIR")]
    plugin_dir: Vec<PathBuf>,
    /// One JSON object last on stdout, everything else on stderr
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    base_args: BaseArgs,
    #[command(flatten)]
    runtime: RuntimeArgs,
}

struct Loaded {
    base: Base,
    intake: Intake,
    tasks: Vec<(StoredAdapter, Task)>,
    max_length: Option<usize>,
}

impl Common {
    fn load(&self) -> Result<Loaded> {
        let runtime = self.runtime.start()?;
        let base = Base::open(runtime, &self.base, &self.base_args.options())?;
        let intake = Intake::open(&base)?;
        let options = self.runtime.session("adapter")?;
        let mut tasks = Vec::new();
        for dir in &self.adapters {
            let stored = load(dir)?;
            let task = Task::open(&base, &stored, &self.plugin_dir, &options)?;
            tasks.push((stored, task));
        }
        let trained = tasks.iter().filter_map(|(stored, _)| trained_length(stored)).max();
        let max_length = self.max_length.or(trained).or_else(|| base.longest());
        Ok(Loaded { base, intake, tasks, max_length })
    }
}

/// Measure adapters on labelled data
///
/// Columns default to those that the adapter was trained with.
///
/// Example: graft eval --base minilm --adapter adapters/intent --data test.csv
#[derive(clap::Args)]
pub struct EvalArgs {
    #[command(flatten)]
    common: Common,
    /// Labelled data: CSV, TSV, JSONL or Parquet, or a folder with one of images for each label
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Column of the texts
    #[arg(long, value_name = "COLUMN")]
    text: Option<String>,
    /// Column of the images' files
    #[arg(long, value_name = "COLUMN")]
    image: Option<String>,
    /// Column of the labels
    #[arg(long, value_name = "COLUMN")]
    label: Option<String>,
    /// Encoding of the data's text, if it is not UTF-8
    #[arg(long, value_name = "NAME")]
    encoding: Option<String>,
}

/// The length at which text was cut in training.
fn trained_length(adapter: &StoredAdapter) -> Option<usize> {
    let training = adapter.graft.as_ref()?.training.as_ref()?;
    usize::try_from(training.recipe.get("max_length")?.as_u64()?).ok()
}

/// The column that a field had in training.
fn trained_column(adapter: &StoredAdapter, field: &str) -> Option<String> {
    let training = adapter.graft.as_ref()?.training.as_ref()?;
    Some(training.recipe.get("columns")?.get(field)?.as_str()?.to_string())
}

/// Runs `graft eval`.
pub fn eval(args: EvalArgs) -> Result<()> {
    let mut loaded = args.common.load()?;
    let mut results = serde_json::Map::new();
    for (stored, task) in &mut loaded.tasks {
        let objective = task.objective.as_ref().context("the adapter has no head to evaluate")?;
        let fields = objective.fields()?;
        let mut mapping = Mapping::new();
        for f in fields.iter().filter(|f| loaded.intake.reads(f)) {
            let given = match f.name.as_str() {
                "text" => args.text.clone(),
                "image" => args.image.clone(),
                "label" => args.label.clone(),
                _ => None,
            };
            let column = given.or_else(|| trained_column(stored, &f.name));
            if let Some(column) = column.or(f.required.then(|| f.name.clone())) {
                mapping = mapping.with(f.name.clone(), column);
            }
        }
        let options = table_options(&mapping, &fields, args.encoding.clone());
        let table = Table::read(&args.data, &options)?;
        let examples = loaded.intake.examples(&table, &args.data, &mapping, &fields, loaded.max_length)?;
        say_cut(&examples, loaded.max_length);
        let metrics = task.evaluate(&loaded.base, &examples, &loaded.intake)?;
        let shown: serde_json::Map<String, Value> =
            metrics.iter().map(|m| (m.name.clone(), json!(m.value))).collect();
        for m in &metrics {
            let line = format!("{}  {:<12} {:.4}", task.name, m.name, m.value);
            if args.common.json { eprintln!("{line}") } else { println!("{line}") }
        }
        results.insert(task.name.clone(), Value::Object(shown));
    }
    if args.common.json {
        let mut object = json!({ "adapters": results, "peak_rss_mb": peak_rss_mb() });
        if let (1, Some(only)) = (results.len(), results.values().next()) {
            for (k, v) in only.as_object().into_iter().flatten() {
                object[k] = v.clone();
            }
        }
        println!("{object}");
    }
    Ok(())
}

/// Answer texts or images with one or several adapters
///
/// Texts come from the command line, from a file with one text a line, or from standard input (-). For a base of images
/// they are the images' files.
///
/// Example: graft predict --base minilm --adapter adapters/intent --adapter adapters/urgency "I can't log in"
#[derive(clap::Args)]
pub struct PredictArgs {
    #[command(flatten)]
    common: Common,
    /// The texts, or - for standard input
    texts: Vec<String>,
    /// A file with one text a line
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
}

/// Longest input that is read, in bytes.
const MAX_INPUT: u64 = 1 << 30;

fn texts(args: &PredictArgs) -> Result<Vec<String>> {
    let mut content = String::new();
    match (&args.input, args.texts.as_slice()) {
        (Some(_), [_, ..]) => bail!("give texts or --input, not both"),
        (Some(file), []) => {
            let open = std::fs::File::open(file).with_context(|| format!("{}", file.display()))?;
            open.take(MAX_INPUT)
                .read_to_string(&mut content)
                .with_context(|| format!("{} is not UTF-8 text", file.display()))?;
        }
        (None, [dash]) if dash == "-" => {
            std::io::stdin().take(MAX_INPUT).read_to_string(&mut content).context("standard input")?;
        }
        (None, []) if !std::io::stdin().is_terminal() => {
            std::io::stdin().take(MAX_INPUT).read_to_string(&mut content).context("standard input")?;
        }
        (None, []) => bail!("no text: give some, or --input FILE, or - for standard input"),
        (None, given) => return Ok(given.to_vec()),
    }
    Ok(content.lines().filter(|l| !l.trim().is_empty()).map(str::to_string).collect())
}

/// Runs `graft predict`.
pub fn predict(args: PredictArgs) -> Result<()> {
    let texts = texts(&args)?;
    if texts.is_empty() {
        bail!("there is no text to answer");
    }
    let mut loaded = args.common.load()?;
    let examples = loaded.intake.arguments(&texts, loaded.max_length)?;
    say_cut(&examples, loaded.max_length);
    let mut answers: Vec<(String, Vec<Value>)> = Vec::new();
    for (_, task) in &mut loaded.tasks {
        answers.push((task.name.clone(), task.predict(&loaded.base, &examples, &loaded.intake)?));
    }
    let rows: Vec<Value> = (0..texts.len())
        .map(|i| {
            let each: serde_json::Map<String, Value> =
                answers.iter().map(|(name, a)| (name.clone(), a[i].clone())).collect();
            let mut row = json!({ "text": texts[i], "answers": each });
            if examples.encodings.get(i).is_some_and(graft_data::Encoding::is_cut) {
                row["cut"] = json!(true);
            }
            row
        })
        .collect();
    if args.common.json {
        println!("{}", json!({ "rows": rows }));
        return Ok(());
    }
    let width = answers.iter().map(|a| a.0.len()).max().unwrap_or(0);
    for (i, text) in texts.iter().enumerate() {
        println!("{text}");
        for (name, a) in &answers {
            println!("  {name:<width$}  {}", show(&a[i]));
        }
    }
    Ok(())
}

/// Says how many texts were cut: what stands behind the cut is neither read nor answered.
fn say_cut(examples: &Examples, max_length: Option<usize>) {
    if examples.cut > 0 {
        let at = max_length.map_or_else(String::new, |n| format!(" at {n} tokens"));
        let (cut, all) = (examples.cut, examples.len());
        eprintln!("{}: {cut} of {all} texts were cut{at}; what stands behind is not read", examples.origin);
    }
}

/// Spans: `person "Ada Lovelace" 97 % at 4–16`.
fn spans(found: &[Value]) -> Option<String> {
    let one = |s: &Value| {
        let (label, text) = (s["label"].as_str()?, s["text"].as_str()?);
        let (start, end, score) = (s["start"].as_u64()?, s["end"].as_u64()?, s["score"].as_f64()?);
        Some(format!("{label} \"{text}\" {:.0} % at {start}–{end}", score * 100.0))
    };
    let shown: Vec<String> = found.iter().map(one).collect::<Option<_>>()?;
    Some(if shown.is_empty() { "nothing found".into() } else { shown.join(", ") })
}

/// A label with its probability and the runners-up, or spans; anything else as JSON.
fn show(answer: &Value) -> String {
    if let Some(shown) = answer.as_array().and_then(|a| spans(a)) {
        return shown;
    }
    let (Some(label), Some(score)) = (answer["label"].as_str(), answer["score"].as_f64()) else {
        return answer.to_string();
    };
    let mut others: Vec<(&String, f64)> = answer["probabilities"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(l, p)| Some((l, p.as_f64()?)))
        .filter(|(l, _)| l.as_str() != label)
        .collect();
    others.sort_by(|a, b| b.1.total_cmp(&a.1));
    let rest: Vec<String> = others.iter().take(2).map(|(l, p)| format!("{l} {:.0} %", p * 100.0)).collect();
    format!("{label} {:.1} %   ({})", score * 100.0, rest.join(", "))
}
