//! `graft eval` and `graft predict`.

use std::io::{IsTerminal, Read};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use graft_adapters::{StoredAdapter, load};
use graft_data::{Encoding, Mapping, Table};
use graft_plugins::api::{Field, FieldKind, Tensor};
use graft_runtime::{SessionOptions, peak_rss_mb};
use graft_tasks::{Base, Examples, Fitted, Intake, passes, table_options};
use serde_json::{Value, json};

use crate::answer::show;
use crate::common::BaseArgs;

/// What both commands need.
#[derive(clap::Args)]
struct Common {
    /// The base: a directory or an .onnx file
    #[arg(long, value_name = "PATH")]
    base: PathBuf,
    /// An adapter directory (repeatable: one answer from each, over one copy of the base; those that leave it as it is
    /// share its pass)
    #[arg(long = "adapter", value_name = "DIR", required = true)]
    adapters: Vec<PathBuf>,
    /// Tokens at which text is cut [default: as in training, else the base's own limit]
    #[arg(long, value_name = "N")]
    max_length: Option<usize>,
    /// One JSON object last on stdout, everything else on stderr
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    base_args: BaseArgs,
}

struct Loaded {
    base: Base,
    intake: Intake,
    tasks: Vec<(StoredAdapter, Fitted)>,
    max_length: Option<usize>,
    options: SessionOptions,
}

/// What the passes of a base gave.
struct Passed<'a> {
    /// The outputs of each adapter over its examples.
    outputs: Vec<Vec<Tensor>>,
    /// Which adapters had a pass together.
    together: Vec<Vec<&'a str>>,
}

impl Loaded {
    /// Runs every adapter over its examples. One session lives at a time.
    fn run(&self, examples: &[Examples]) -> Result<Passed<'_>> {
        let asked: Vec<(&Fitted, &Examples)> = self.tasks.iter().map(|(_, f)| f).zip(examples).collect();
        let mut outputs: Vec<Vec<Tensor>> = vec![Vec::new(); asked.len()];
        let mut together = Vec::new();
        for pass in passes(&self.base, &asked) {
            let first = pass.adapters.first().map_or(0, |i| *i);
            let made = pass.run(&self.base, &examples[first], self.intake.pad_id(), &self.options)?;
            together.push(pass.adapters.iter().map(|i| asked[*i].0.name.as_str()).collect());
            pass.adapters.iter().zip(made).for_each(|(i, own)| outputs[*i] = own);
        }
        Ok(Passed { outputs, together })
    }
}

impl Common {
    fn load(&self) -> Result<Loaded> {
        let base = self.base_args.open(&self.base)?;
        let intake = Intake::open(&base)?;
        let options = self.base_args.runtime.session("adapter")?;
        let mut tasks = Vec::new();
        for dir in &self.adapters {
            let stored = load(dir)?;
            let task = Fitted::open(&base, &stored, &self.base_args.plugin_dir)?;
            tasks.push((stored, task));
        }
        let trained = tasks.iter().filter_map(|(stored, _)| trained_length(stored)).max();
        let virtual_tokens = tasks.iter().map(|(_, task)| task.virtual_tokens).max().unwrap_or(0);
        let max_length = base.max_length(self.max_length.or(trained), virtual_tokens)?;
        Ok(Loaded { base, intake, tasks, max_length, options })
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
    /// Column of another field of the objective, e.g. target=price (repeatable); without a column (negative=) the field is
    /// not read
    #[arg(long = "column", value_name = "FIELD=COLUMN")]
    columns: Vec<String>,
    /// Encoding of the data's text, if it is not UTF-8
    #[arg(long, value_name = "NAME")]
    encoding: Option<String>,
}

impl EvalArgs {
    /// The columns that were named.
    fn given(&self) -> Result<Mapping> {
        let mut mapping = Mapping::parse(self.columns.iter().filter(|c| left_out(c).is_none()))?;
        for (field, column) in [("text", &self.text), ("image", &self.image), ("label", &self.label)] {
            if let Some(column) = column {
                mapping = mapping.with(field, column);
            }
        }
        Ok(mapping)
    }
}

/// The field that an argument without a column leaves out.
fn left_out(argument: &str) -> Option<&str> {
    argument.strip_suffix('=').filter(|field| !field.is_empty() && !field.contains('='))
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

/// The column of each field: the one given, else that of training, else one that is called like it.
fn columns(adapter: &StoredAdapter, fields: &[&Field], given: &Mapping) -> Mapping {
    let mut mapping = Mapping::new();
    for f in fields {
        let named = given.iter().find(|(field, _)| *field == f.name).map(|(_, c)| c.to_string());
        let column = named.or_else(|| trained_column(adapter, &f.name));
        if let Some(column) = column.or(f.required.then(|| f.name.clone())) {
            mapping = mapping.with(f.name.clone(), column);
        }
    }
    mapping
}

/// Runs `graft eval`.
pub fn eval(args: EvalArgs) -> Result<()> {
    let loaded = args.common.load()?;
    let given = args.given()?;
    let mut examples: Vec<Examples> = Vec::new();
    for (stored, task) in &loaded.tasks {
        let objective = task.objective.as_ref().context("the adapter has no head to evaluate")?;
        let fields = objective.fields()?;
        let unread = |f: &&Field| args.columns.iter().any(|c| left_out(c) == Some(&f.name));
        let read: Vec<&Field> =
            fields.iter().filter(|f| loaded.intake.reads(f) && (f.required || !unread(f))).collect();
        let mapping = columns(stored, &read, &given);
        let table = Table::read(&args.data, &table_options(&mapping, &fields, args.encoding.clone()))?;
        let read = loaded.intake.examples(&table, &args.data, &mapping, &fields, loaded.max_length)?;
        say_cut(&read, loaded.max_length);
        objective.collate(&read.rows, 0)?;
        keep(&mut examples, read);
    }
    let Passed { outputs, together } = loaded.run(&examples)?;
    let mut results = serde_json::Map::new();
    for (((_, task), examples), outputs) in loaded.tasks.iter().zip(&examples).zip(outputs) {
        let metrics = task.metrics(examples, outputs)?;
        let shown: serde_json::Map<String, Value> =
            metrics.iter().map(|m| (m.name.clone(), json!(m.value))).collect();
        for m in &metrics {
            let line = format!("{}  {:<12} {:.4}", task.name, m.name, m.value);
            if args.common.json { eprintln!("{line}") } else { println!("{line}") }
        }
        results.insert(task.name.clone(), Value::Object(shown));
    }
    if args.common.json {
        let mut object = json!({ "adapters": results, "passes": together, "peak_rss_mb": peak_rss_mb() });
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
/// Texts come from the command line, from a file with one text a line, from standard input (-), or from the columns of a
/// table. For a base of images they are the images' files. Each adapter reads what it was trained on: one of pairs both
/// texts, others the first one.
///
/// Example: graft predict --base minilm --adapter adapters/intent --adapter adapters/urgency "I can't log in"
#[derive(clap::Args)]
pub struct PredictArgs {
    #[command(flatten)]
    common: Common,
    /// The texts, or - for standard input
    texts: Vec<String>,
    /// The second text of a pair (repeatable: one for each text)
    #[arg(long, value_name = "TEXT")]
    text_pair: Vec<String>,
    /// A file with one text a line
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// A table to answer: CSV, TSV, JSONL or Parquet. Columns are those of training
    #[arg(long, value_name = "FILE", conflicts_with_all = ["texts", "input", "text_pair"])]
    data: Option<PathBuf>,
    /// Column of a field in the table, e.g. text=question (repeatable)
    #[arg(long = "column", value_name = "FIELD=COLUMN", requires = "data")]
    columns: Vec<String>,
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
    let asked = match &args.data {
        Some(_) => Asked::Table(Mapping::parse(&args.columns)?),
        None => Asked::Texts(texts(&args)?),
    };
    if matches!(&asked, Asked::Texts(t) if t.is_empty()) {
        bail!("there is no text to answer");
    }
    let loaded = args.common.load()?;
    let mut shown: Vec<String> = Vec::new();
    let mut cut: Vec<bool> = Vec::new();
    let mut all: Vec<Examples> = Vec::new();
    let mut paired = args.text_pair.is_empty();
    for (stored, task) in &loaded.tasks {
        let fields = task.objective()?.fields()?;
        let examples = match (&asked, &args.data) {
            (Asked::Table(given), Some(path)) => {
                let read: Vec<&Field> = fields.iter().filter(|f| asks(f) && loaded.intake.reads(f)).collect();
                let mapping = columns(stored, &read, given);
                let table = Table::read(path, &table_options(&mapping, &fields, None))?;
                if shown.is_empty() {
                    shown = first_column(&table, &mapping);
                }
                loaded.intake.examples(&table, path, &mapping, &fields, loaded.max_length)?
            }
            (Asked::Texts(texts), _) => {
                shown.clone_from(texts);
                let second = second_texts(stored, &task.name, &fields, texts, &args.text_pair)?;
                paired |= second.is_some();
                match second {
                    Some(second) => loaded.intake.pairs(texts, second, loaded.max_length)?,
                    None => loaded.intake.arguments(texts, loaded.max_length)?,
                }
            }
            _ => bail!("there is no text to answer"),
        };
        if cut.is_empty() {
            say_cut(&examples, loaded.max_length);
        }
        cut.resize(examples.len(), false);
        for (known, encoding) in cut.iter_mut().zip(&examples.encodings) {
            *known |= Encoding::is_cut(encoding);
        }
        keep(&mut all, examples);
    }
    if !paired {
        bail!("--text-pair: no adapter here was trained on pairs of texts that are read together");
    }
    let Passed { outputs, together } = loaded.run(&all)?;
    let mut answers: Vec<(String, Vec<Value>)> = Vec::new();
    for (((_, task), examples), outputs) in loaded.tasks.iter().zip(&all).zip(outputs) {
        answers.push((task.name.clone(), task.answers(examples, outputs)?));
    }
    let rows: Vec<Value> = (0..shown.len())
        .map(|i| {
            let each: serde_json::Map<String, Value> =
                answers.iter().map(|(name, a)| (name.clone(), a[i].clone())).collect();
            let mut row = json!({ "text": shown[i], "answers": each });
            if let Some(pair) = args.text_pair.get(i) {
                row["text_pair"] = json!(pair);
            }
            if cut.get(i) == Some(&true) {
                row["cut"] = json!(true);
            }
            row
        })
        .collect();
    if args.common.json {
        println!("{}", json!({ "rows": rows, "passes": together }));
        return Ok(());
    }
    let width = answers.iter().map(|a| a.0.len()).max().unwrap_or(0);
    for (i, text) in shown.iter().enumerate() {
        println!("{text}");
        if let Some(pair) = args.text_pair.get(i) {
            println!("{pair}");
        }
        for (name, a) in &answers {
            println!("  {name:<width$}  {}", show(&a[i]));
        }
    }
    Ok(())
}

/// What is to be answered.
enum Asked {
    /// Texts, or files of images.
    Texts(Vec<String>),
    /// The rows of a table, with the columns that were named.
    Table(Mapping),
}

/// Whether a field is part of what is asked, and not of the right answer.
fn asks(field: &Field) -> bool {
    [FieldKind::TEXT, FieldKind::IMAGE].contains(&field.kind)
}

/// The column that stands for a row in what is printed.
fn first_column(table: &Table, mapping: &Mapping) -> Vec<String> {
    let column = mapping.iter().next().and_then(|(_, c)| table.column(c).ok());
    let cell = |i: usize| column.and_then(|c| c.get(i)).unwrap_or_default().to_string();
    (0..table.len()).map(cell).collect()
}

/// The second texts for an adapter that was trained on pairs; `None` for one that was trained on single texts.
fn second_texts<'a>(
    adapter: &StoredAdapter,
    name: &str,
    fields: &[Field],
    texts: &[String],
    second: &'a [String],
) -> Result<Option<&'a [String]>> {
    let reads_pairs = fields.iter().filter(|f| f.kind == FieldKind::TEXT).count() > 1;
    // An adapter that does not say how it was trained takes what it is given.
    let known = adapter.graft.as_ref().is_some_and(|g| g.training.is_some());
    let trained = trained_column(adapter, "text_pair").is_some();
    if !second.is_empty() && second.len() != texts.len() {
        bail!("{} texts and {} second ones: give --text-pair once for each text", texts.len(), second.len());
    }
    match (reads_pairs && (trained || !known), second.is_empty()) {
        (true, false) => Ok(Some(second)),
        (true, true) if trained => {
            bail!("adapter '{name}' answers pairs of texts: give --text-pair once for each text, or --data")
        }
        _ => Ok(None),
    }
}

/// Adds examples; pixels that are there already are held once.
fn keep(all: &mut Vec<Examples>, mut examples: Examples) {
    if let Some(same) = all.iter().find(|e| e.has_inputs_of(&examples)) {
        examples.images.clone_from(&same.images);
    }
    all.push(examples);
}

/// Says how many texts were cut: what stands behind the cut is neither read nor answered.
fn say_cut(examples: &Examples, max_length: Option<usize>) {
    if examples.cut > 0 {
        let at = max_length.map_or_else(String::new, |n| format!(" at {n} tokens"));
        let (cut, all) = (examples.cut, examples.len());
        eprintln!("{}: {cut} of {all} texts were cut{at}; what stands behind is not read", examples.origin);
    }
}
