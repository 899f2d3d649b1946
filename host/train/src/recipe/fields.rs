//! The keys of a recipe: the one place for their kinds, limits, defaults and explanations.

use toml::Value;

/// What a key takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Any text.
    Text,
    /// The path of a file or folder, relative to the working directory.
    Path,
    /// True or false.
    Bool,
    /// A whole number within bounds, both allowed.
    Integer(i64, i64),
    /// A number within bounds; the lower one is allowed only if `true`.
    Number(f64, bool, f64),
    /// One of these words.
    Choice(&'static [&'static str]),
    /// The name of a column, kept under `columns`.
    Column,
    /// A table of field = column.
    Columns,
    /// The name of a plugin's part, or a table of its `name` and settings.
    Part,
}

/// A key.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Field {
    /// The key in the recipe; the flag is the same with dashes.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// Its default as TOML; without one it is optional or, if `required`, must be given.
    pub default: Option<&'static str>,
    /// Whether a recipe without it is incomplete.
    pub required: bool,
    /// What it means, in a line.
    pub help: &'static str,
}

const fn field(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Field {
    Field { name, kind, default: Some(default), required: false, help }
}

const fn optional(name: &'static str, kind: Kind, help: &'static str) -> Field {
    Field { name, kind, default: None, required: false, help }
}

const fn required(name: &'static str, kind: Kind, help: &'static str) -> Field {
    Field { name, kind, default: None, required: true, help }
}

const MANY: i64 = 1_000_000_000;

/// All keys, in the order in which a recipe is written.
pub const FIELDS: &[Field] = &[
    required("base", Kind::Path, "folder or .onnx file of the base"),
    optional(
        "hidden",
        Kind::Text,
        "name of the base's value that holds the hidden states, if it exports none",
    ),
    optional("tokenizer", Kind::Path, "tokenizer.json, if it is not beside the base"),
    optional(
        "preprocessor",
        Kind::Path,
        "preprocessor_config.json of a base of images, if it is not beside it",
    ),
    optional(
        "data",
        Kind::Path,
        "training data: CSV, TSV, JSONL or Parquet, or a folder with one of images for each label",
    ),
    optional(
        "batches",
        Kind::Path,
        "prepared batches (safetensors) instead of data, trained on in their order",
    ),
    optional("eval_data", Kind::Path, "evaluation data: selects the best epoch and stops early"),
    optional(
        "eval_split",
        Kind::Number(0.0, false, 0.999),
        "part of the training data to evaluate on instead",
    ),
    optional("test_data", Kind::Path, "test data: reported on at the end, selects nothing"),
    optional("encoding", Kind::Text, "encoding of the data's text, if it is not UTF-8"),
    optional("init_adapter", Kind::Path, "adapter whose parameters training begins with"),
    required("out", Kind::Path, "folder of the adapter, which must not exist"),
    field("epochs", Kind::Integer(1, MANY), "3", "passes over the data"),
    field("batch_size", Kind::Integer(1, MANY), "32", "examples in a micro-batch"),
    field("accumulation", Kind::Integer(1, MANY), "1", "micro-batches in a step, averaged"),
    field("group_by_length", Kind::Bool, "true", "batches of similar length, so that little is padded"),
    optional(
        "max_length",
        Kind::Integer(1, MANY),
        "tokens at which text is cut; the base's own limit if not given",
    ),
    field("lr", Kind::Number(0.0, false, 1e6), "1e-3", "peak of the learning rate"),
    field("optimizer", Kind::Choice(&["adamw", "sgd"]), "\"adamw\"", "how gradients become updates"),
    field("weight_decay", Kind::Number(0.0, true, 1e6), "0.01", "decay of tensors of rank 2 or more"),
    field("beta1", Kind::Number(0.0, true, 0.999_999_999), "0.9", "AdamW: memory of the gradient"),
    field("beta2", Kind::Number(0.0, true, 0.999_999_999), "0.999", "AdamW: memory of its square"),
    field("eps", Kind::Number(0.0, false, 1.0), "1e-8", "AdamW: keeps the division finite"),
    field("momentum", Kind::Number(0.0, true, 0.999_999_999), "0.0", "SGD: momentum"),
    field("nesterov", Kind::Bool, "false", "SGD: look ahead along the momentum"),
    field(
        "schedule",
        Kind::Choice(&["linear", "cosine", "constant"]),
        "\"linear\"",
        "learning rate after warm-up",
    ),
    optional("warmup_steps", Kind::Integer(0, MANY), "steps in which the learning rate rises from 0"),
    field(
        "warmup_ratio",
        Kind::Number(0.0, true, 1.0),
        "0.06",
        "the same as a part of all steps, rounded up",
    ),
    optional(
        "clip_norm",
        Kind::Number(0.0, false, 1e30),
        "largest norm of the gradient; unlimited if not given",
    ),
    field(
        "patience",
        Kind::Integer(0, MANY),
        "3",
        "evaluations without improvement that end training; 0: never",
    ),
    optional(
        "best_metric",
        Kind::Text,
        "metric that selects the best epoch; the objective's own if not given",
    ),
    field(
        "feature_cache",
        Kind::Bool,
        "true",
        "keep the frozen part's outputs in the user's cache folder, for later runs",
    ),
    field(
        "feature_precision",
        Kind::Choice(&["f32", "f16"]),
        "\"f32\"",
        "precision of the frozen part's outputs",
    ),
    field("seed", Kind::Integer(0, i64::MAX), "0", "seed of everything random"),
    field("provider", Kind::Text, "\"cpu\"", "cpu, cuda[:id] or tensorrt[:id]"),
    optional("threads", Kind::Integer(1, 4096), "threads; the processors that may be used if not given"),
    optional("text", Kind::Column, "column of the field `text`"),
    optional("text_pair", Kind::Column, "column of the field `text_pair`: the second text of a pair"),
    optional("negative", Kind::Column, "column of the field `negative`: a text unlike the first"),
    optional(
        "image",
        Kind::Column,
        "column of the field `image`: files of JPEG or PNG, from the table's folder",
    ),
    optional("label", Kind::Column, "column of the field `label`"),
    optional("target", Kind::Column, "column of the field `target`: the number to predict"),
    optional("score", Kind::Column, "column of the field `score`: how alike the texts of a pair are"),
    field(
        "columns",
        Kind::Columns,
        "{}",
        "columns of the objective's fields; those not named are called alike",
    ),
    required("method", Kind::Part, "method and its settings"),
    required("objective", Kind::Part, "objective and its settings"),
];

/// Keys of which one recipe has at most one; a later layer's choice replaces an earlier one's.
pub(super) const EITHER: &[[&str; 2]] =
    &[["data", "batches"], ["eval_data", "eval_split"], ["warmup_steps", "warmup_ratio"]];

impl Field {
    /// The field of that name.
    pub fn find(name: &str) -> Option<&'static Field> {
        FIELDS.iter().find(|f| f.name == name)
    }

    /// The default as a value.
    pub(super) fn default_value(&self) -> Option<Value> {
        Some(self.default?.parse().expect("defaults are TOML values, which a test reads"))
    }

    /// What is allowed, in words: "a whole number from 1 to 4096".
    pub fn allowed(&self) -> String {
        match self.kind {
            Kind::Text => "text".into(),
            Kind::Path => "a path".into(),
            Kind::Bool => "true or false".into(),
            Kind::Integer(low, i64::MAX | MANY) => format!("a whole number from {low}"),
            Kind::Integer(low, high) => format!("a whole number from {low} to {high}"),
            Kind::Number(low, true, high) => format!("a number from {low} to {high}"),
            Kind::Number(low, false, high) => format!("a number greater than {low} and up to {high}"),
            Kind::Choice(words) => format!("one of {}", words.join(", ")),
            Kind::Column => "the name of a column".into(),
            Kind::Columns => "a table of field = \"column\"".into(),
            Kind::Part => "a name, or a table with `name` and settings".into(),
        }
    }

    /// The value in the form in which it is kept, `None` if it is not allowed.
    pub(super) fn accept(&self, value: &Value) -> Option<Value> {
        let good = match (self.kind, value) {
            (Kind::Text | Kind::Path | Kind::Column, Value::String(s)) => !s.is_empty(),
            (Kind::Bool, Value::Boolean(_)) => true,
            (Kind::Integer(low, high), Value::Integer(i)) => (low..=high).contains(i),
            (Kind::Number(..), Value::Integer(i)) => return self.accept(&Value::Float(*i as f64)),
            (Kind::Number(low, inclusive, high), Value::Float(f)) => {
                *f <= high && (*f > low || (inclusive && *f == low))
            }
            (Kind::Choice(words), Value::String(s)) => words.contains(&s.as_str()),
            (Kind::Columns, Value::Table(t)) => {
                t.values().all(|v| matches!(v, Value::String(s) if !s.is_empty()))
            }
            (Kind::Part, Value::String(s)) if !s.is_empty() => {
                return Some(Value::Table(toml::Table::from_iter([("name".into(), value.clone())])));
            }
            (Kind::Part, Value::Table(t)) => match t.get("name") {
                None => true,
                Some(Value::String(s)) => !s.is_empty(),
                Some(_) => false,
            },
            _ => false,
        };
        good.then(|| value.clone())
    }
}
