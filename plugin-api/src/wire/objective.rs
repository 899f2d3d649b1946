//! Messages of objectives.

use prost::{Message, Oneof};

/// A field of the data that an objective reads.
#[derive(Clone, PartialEq, Message)]
pub struct Field {
    /// Name, such as `text`.
    #[prost(string, tag = "1")]
    pub name: String,
    /// See [`crate::FieldKind`].
    #[prost(uint32, tag = "2")]
    pub kind: u32,
    /// True when training cannot do without it.
    #[prost(bool, tag = "3")]
    pub required: bool,
    /// One line for a person.
    #[prost(string, tag = "4")]
    pub description: String,
    /// What stands between the values of a cell that holds several; empty where each cell is one value.
    #[prost(string, tag = "5")]
    pub separator: String,
}

/// The fields of an objective.
#[derive(Clone, PartialEq, Message)]
pub struct Fields {
    /// The fields.
    #[prost(message, repeated, tag = "1")]
    pub fields: Vec<Field>,
    /// Whether it has something to decide after training.
    #[prost(bool, tag = "2")]
    pub calibrates: bool,
}

/// How often a value occurs.
#[derive(Clone, PartialEq, Message)]
pub struct Count {
    /// The value.
    #[prost(string, tag = "1")]
    pub value: String,
    /// Rows that have it.
    #[prost(uint64, tag = "2")]
    pub count: u64,
}

/// The distinct values of a label field.
#[derive(Clone, PartialEq, Message)]
pub struct FieldSummary {
    /// Name of the field.
    #[prost(string, tag = "1")]
    pub field: String,
    /// Values with their counts.
    #[prost(message, repeated, tag = "2")]
    pub counts: Vec<Count>,
}

/// What is to be known of a field of numbers.
#[derive(Clone, PartialEq, Message)]
pub struct NumberSummary {
    /// Name of the field.
    #[prost(string, tag = "1")]
    pub field: String,
    /// Mean.
    #[prost(double, tag = "2")]
    pub mean: f64,
    /// Standard deviation of the population.
    #[prost(double, tag = "3")]
    pub deviation: f64,
    /// The smallest.
    #[prost(double, tag = "4")]
    pub low: f64,
    /// The largest.
    #[prost(double, tag = "5")]
    pub high: f64,
}

/// What the training data looks like.
#[derive(Clone, PartialEq, Message)]
pub struct Summary {
    /// Number of rows.
    #[prost(uint64, tag = "1")]
    pub rows: u64,
    /// One for each label field.
    #[prost(message, repeated, tag = "2")]
    pub fields: Vec<FieldSummary>,
    /// One for each field of numbers.
    #[prost(message, repeated, tag = "3")]
    pub numbers: Vec<NumberSummary>,
    /// Names of the fields that the data has.
    #[prost(string, repeated, tag = "4")]
    pub present: Vec<String>,
}

/// A cell of a row.
#[derive(Clone, PartialEq, Message)]
pub struct Cell {
    /// Name of the field.
    #[prost(string, tag = "1")]
    pub field: String,
    /// The value; absent when the row has none.
    #[prost(oneof = "CellValue", tags = "2, 3, 4")]
    pub value: Option<CellValue>,
}

/// The value of a cell.
#[derive(Clone, PartialEq, Oneof)]
pub enum CellValue {
    /// Text or label.
    #[prost(string, tag = "2")]
    Text(String),
    /// Number.
    #[prost(double, tag = "3")]
    Number(f64),
    /// The tokens of the row's text.
    #[prost(message, tag = "4")]
    Tokens(Tokens),
}

/// A text with its tokens; see [`crate::Tokens`].
#[derive(Clone, PartialEq, Message)]
pub struct Tokens {
    /// The text.
    #[prost(string, tag = "1")]
    pub text: String,
    /// First byte of each token.
    #[prost(uint64, repeated, tag = "2")]
    pub starts: Vec<u64>,
    /// The byte behind each token.
    #[prost(uint64, repeated, tag = "3")]
    pub ends: Vec<u64>,
    /// The word of each token, counted from 1; 0 for none.
    #[prost(uint64, repeated, tag = "4")]
    pub word_numbers: Vec<u64>,
    /// Words of the row.
    #[prost(uint64, tag = "5")]
    pub words: u64,
}

/// Outputs to be made into answers.
#[derive(Clone, PartialEq, Message)]
pub struct Decode {
    /// The outputs, joined along axis 0. The same tag as in [`super::Tensors`], which older hosts send.
    #[prost(message, repeated, tag = "1")]
    pub tensors: Vec<super::Tensor>,
    /// The rows that they are of.
    #[prost(message, repeated, tag = "2")]
    pub rows: Vec<Row>,
}

/// A row of data.
#[derive(Clone, PartialEq, Message)]
pub struct Row {
    /// Its cells.
    #[prost(message, repeated, tag = "1")]
    pub cells: Vec<Cell>,
}

/// Rows to be turned into tensors.
#[derive(Clone, PartialEq, Message)]
pub struct Collate {
    /// The rows of the batch.
    #[prost(message, repeated, tag = "1")]
    pub rows: Vec<Row>,
    /// For whatever is random.
    #[prost(uint64, tag = "2")]
    pub seed: u64,
}

/// What an objective built.
#[derive(Clone, PartialEq, Message)]
pub struct Built {
    /// The loss, a scalar; 0 when none was built.
    #[prost(uint64, tag = "1")]
    pub loss: u64,
    /// Named outputs.
    #[prost(message, repeated, tag = "2")]
    pub outputs: Vec<super::Named>,
}

/// A number that says how good it is.
#[derive(Clone, PartialEq, Message)]
pub struct Metric {
    /// Name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Value.
    #[prost(double, tag = "2")]
    pub value: f64,
    /// Direction.
    #[prost(bool, tag = "3")]
    pub higher_is_better: bool,
}

/// The metrics of an evaluation; the first one selects the best epoch.
#[derive(Clone, PartialEq, Message)]
pub struct Metrics {
    /// The metrics.
    #[prost(message, repeated, tag = "1")]
    pub metrics: Vec<Metric>,
}

/// One JSON answer for each row.
#[derive(Clone, PartialEq, Message)]
pub struct Answers {
    /// JSON texts.
    #[prost(string, repeated, tag = "1")]
    pub answers: Vec<String>,
}
