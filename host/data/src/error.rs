//! What can be wrong with data, said with file, line and a way out.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// Where a row stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A text file: the line, counted from 1, on which the record starts.
    Line {
        /// The file.
        file: Arc<str>,
        /// The line.
        line: u64,
    },
    /// A file without lines, or rows that came from no file: the row, counted from 1.
    Row {
        /// The file, or a name for the origin.
        file: Arc<str>,
        /// The row.
        row: u64,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Line { file, line } => write!(f, "{file}:{line}"),
            Place::Row { file, row } => write!(f, "{file}, row {row}"),
        }
    }
}

/// Why data cannot be read or used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the message of each variant says what its fields are")]
pub enum DataError {
    #[error("cannot read {}: {source}; check the path and its permissions", file.display())]
    Io { file: PathBuf, source: std::io::Error },
    #[error(
        "{}: the format is not known from the ending; use .csv, .tsv, .jsonl, .conll or .parquet, or give --format",
        file.display()
    )]
    UnknownFormat { file: PathBuf },
    #[error("`{name}` is no format; use csv, tsv, jsonl, conll or parquet")]
    NoSuchFormat { name: String },
    #[error(
        "`{name}` is no text encoding; use utf-8, latin1, or another name of the WHATWG encoding standard"
    )]
    NoSuchEncoding { name: String },
    #[error(
        "{file}: the file has {size} bytes, more than the limit of {limit}; split it, or raise the limit on the file size"
    )]
    FileTooLarge { file: Arc<str>, size: u64, limit: u64 },
    #[error("{file}: the file holds {what}, not {format} text; {help}")]
    NotText { file: Arc<str>, what: &'static str, format: &'static str, help: &'static str },
    #[error(
        "{file}:{line}: byte 0x{value:02x} at offset {offset} is not valid UTF-8; if the file is Latin-1 (Western European), pass --encoding latin1, otherwise save it as UTF-8"
    )]
    NotUtf8 { file: Arc<str>, line: u64, offset: u64, value: u8 },
    #[error(
        "{file}: the text is not valid {encoding}; give the encoding that the file was saved in with --encoding"
    )]
    BadEncoding { file: Arc<str>, encoding: &'static str },
    #[error("{file}: there are no rows; the file must hold at least one example")]
    NoRows { file: Arc<str> },
    #[error("{file}: more than {limit} rows; split the file, or raise the limit on rows")]
    TooManyRows { file: Arc<str>, limit: usize },
    #[error("{place}: {count} columns, more than the limit of {limit}; is the delimiter right?")]
    TooManyColumns { place: Place, count: usize, limit: usize },
    #[error(
        "{place}: column `{column}` holds {size} bytes, more than the limit of {limit}; is a quote left open, or is this the wrong column?"
    )]
    FieldTooLarge { place: Place, column: String, size: usize, limit: usize },
    #[error("{place}: the column name `{column}` stands there twice; rename one of them")]
    DuplicateColumn { place: Place, column: String },
    #[error(
        "{place}: {found} fields where {expected} are expected ({columns}); quote fields that contain the delimiter {delimiter:?}, or give the right --delimiter"
    )]
    FieldCount { place: Place, found: usize, expected: usize, columns: String, delimiter: char },
    #[error(
        "{place}: the quote that opens in this record is never closed; close it, or double a quote that belongs to the text"
    )]
    OpenQuote { place: Place },
    #[error(
        "{place}: `{delimiter}` cannot be a delimiter; give one ASCII character other than a quote or a line end"
    )]
    BadDelimiter { place: String, delimiter: String },
    #[error(
        "{place}: malformed JSON: {message}; each line must be one object such as {{\"text\": \"…\", \"label\": \"…\"}}"
    )]
    Json { place: Place, message: String },
    #[error(
        "{place}: column `{column}` holds {what}; a cell must be text, a number, a boolean or null: flatten it, or leave the column out"
    )]
    Nested { place: Place, column: String, what: &'static str },
    #[error(
        "{file}: column `{column}` holds {what}; a column must hold text, numbers, booleans or dates: flatten it, or leave the column out"
    )]
    NestedColumn { file: Arc<str>, column: String, what: &'static str },
    #[error(
        "{place}: column `{column}` holds bytes that are not UTF-8 text; store text in it, or leave the column out"
    )]
    BinaryCell { place: Place, column: String },
    #[error(
        "{place}: `{found}` is no word with its tag; each line must be a word, a tab or spaces, and a tag, with a blank line behind each sentence"
    )]
    NoTag { place: Place, found: String },
    #[error("{place}: column `{column}` must hold {expected}: {message}")]
    List { place: Place, column: String, expected: &'static str, message: String },
    #[error(
        "{place}: malformed Parquet: {message}; write the file again, or check that it was copied completely"
    )]
    Parquet { place: Place, message: String },
    #[error(
        "{file}: compressed with {codec}, which is not built in; write it with snappy, zstd, gzip, lz4 or uncompressed"
    )]
    Codec { file: Arc<str>, codec: String },
    #[error("{file}: no column `{column}`{field}; there are: {available}{nearest}", field = for_field(field), nearest = did_you_mean(nearest))]
    NoColumn {
        file: Arc<str>,
        column: String,
        field: Option<String>,
        available: String,
        nearest: Option<String>,
    },
    #[error("{place}: column `{column}` has no value (field `{field}` needs one); fill it or remove the row")]
    Missing { place: Place, column: String, field: String },
    #[error("{place}: column `{column}` is empty (field `{field}` needs text); fill it or remove the row")]
    Empty { place: Place, column: String, field: String },
    #[error(
        "{place}: column `{column}` holds `{value}`, which is not a finite number; correct it or remove the row"
    )]
    NotANumber { place: Place, column: String, value: String },
    #[error("`{argument}` is no mapping; write FIELD=COLUMN, for example text=question")]
    BadMapping { argument: String },
    #[error("cannot hold out a fraction of {fraction}; give a number above 0 and below 1")]
    BadFraction { fraction: f64 },
    #[error(
        "cannot split {rows} rows into {train} for training and {held_out} held out; both parts need a row: change the fraction or give a file of its own"
    )]
    EmptySplit { rows: usize, train: usize, held_out: usize },
    #[error("there are {found} labels for {rows} rows; give one for each row")]
    LabelCount { found: usize, rows: usize },
    #[error("the batch size is 0; give at least 1")]
    BatchSize,
    #[error("{}: this is no tokenizer that can be loaded: {message}; give the tokenizer.json of the base model", file.display())]
    Tokenizer { file: PathBuf, message: String },
    #[error(
        "row {row} cannot be tokenized: {message}; check the text and that the tokenizer.json belongs to the base"
    )]
    Encode { row: usize, message: String },
    #[error("a maximum length of {max_length} leaves no room for text beside {special} special tokens; give at least {}", special + 1)]
    MaxLength { max_length: usize, special: usize },
    #[error("there are {second} second texts for {first} first ones; give one for each")]
    PairCount { first: usize, second: usize },
    #[error("{}: this is no preprocessor_config.json that can be used: {message}", file.display())]
    Preprocessor { file: PathBuf, message: String },
    #[error("{place}: the image {} cannot be used: {message}", path.display())]
    Image { place: Place, path: PathBuf, message: String },
    #[error("{}: {message}", path.display())]
    ImageFolder { path: PathBuf, message: String },
    #[error(
        "{count} images of this size take more than the limit of {limit} bytes; give fewer, or a smaller size"
    )]
    ImagesTooLarge { count: usize, limit: usize },
    #[error("a batch of no rows cannot be made into tensors; leave it out")]
    EmptyBatch,
    #[error(
        "row {row} has {length} tokens, more than the {limit} that the batch is padded to; truncate to that length, or pad further"
    )]
    LongerThanPadding { row: usize, length: usize, limit: usize },
    #[error(
        "a batch of {rows} rows of {length} tokens is too large for memory; give a smaller batch size or maximum length"
    )]
    BatchTooLarge { rows: usize, length: usize },
}

fn for_field(field: &Option<String>) -> String {
    field.as_ref().map(|f| format!(" (for field `{f}`)")).unwrap_or_default()
}

fn did_you_mean(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|n| format!("; did you mean `{n}`?")).unwrap_or_default()
}

/// The error for a column that is not there, with those that are and the nearest of them.
pub(crate) fn no_column(file: &Arc<str>, column: &str, field: Option<&str>, names: &[String]) -> DataError {
    const SHOWN: usize = 40;
    let score = |n: &String| strsim::jaro_winkler(&n.to_lowercase(), &column.to_lowercase());
    let nearest =
        names.iter().max_by(|a, b| score(a).total_cmp(&score(b))).filter(|n| score(n) > 0.6).cloned();
    let mut available = names.iter().take(SHOWN).map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        available.push_str(&format!(" and {} more", names.len() - SHOWN));
    }
    DataError::NoColumn {
        file: file.clone(),
        column: column.to_owned(),
        field: field.map(str::to_owned),
        available,
        nearest,
    }
}
