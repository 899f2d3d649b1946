//! From a path to a table: format, limits, encoding, digest.

use std::borrow::Cow;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use encoding_rs::{Encoding, UTF_8};

use crate::error::DataError;
use crate::table::{Builder, Table};
use crate::{conll, delimited, jsonl, parquet_file};

/// File formats of tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Comma-separated values after RFC 4180: fields may be quoted, quoted fields may hold line ends.
    Csv,
    /// Tab-separated values after IANA `text/tab-separated-values`: quotes are text, no field holds a line end.
    Tsv,
    /// One JSON object a line.
    Jsonl,
    /// A word and its tag a line, as CoNLL's shared tasks have it.
    Conll,
    /// Apache Parquet with flat columns; uncompressed, Snappy, gzip, LZ4 or Zstandard.
    Parquet,
}

impl Format {
    /// The format that a file's ending stands for.
    ///
    /// # Errors
    /// [`DataError::UnknownFormat`].
    pub fn of(path: &Path) -> Result<Format, DataError> {
        let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        ending.parse().map_err(|_| DataError::UnknownFormat { file: path.to_owned() })
    }

    fn name(self) -> &'static str {
        match self {
            Format::Csv => "CSV",
            Format::Tsv => "TSV",
            Format::Jsonl => "JSONL",
            Format::Conll => "CoNLL",
            Format::Parquet => "Parquet",
        }
    }
}

impl FromStr for Format {
    type Err = DataError;

    fn from_str(name: &str) -> Result<Format, DataError> {
        match name.to_ascii_lowercase().as_str() {
            "csv" => Ok(Format::Csv),
            "tsv" | "tab" => Ok(Format::Tsv),
            "jsonl" | "ndjson" | "json" => Ok(Format::Jsonl),
            "conll" | "bio" | "iob" | "iob2" | "iobes" => Ok(Format::Conll),
            "parquet" | "pq" => Ok(Format::Parquet),
            _ => Err(DataError::NoSuchFormat { name: name.to_owned() }),
        }
    }
}

/// What is refused before it is parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a file, and of the text that a compressed file unpacks to; 4 GiB.
    pub file_bytes: u64,
    /// Bytes of a cell; 16 MiB.
    pub field_bytes: usize,
    /// Columns; 4096.
    pub columns: usize,
    /// Rows; 100 million.
    pub rows: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { file_bytes: 4 << 30, field_bytes: 16 << 20, columns: 4096, rows: 100_000_000 }
    }
}

/// How a file is read. The default takes the format from the ending and expects UTF-8 with a header.
#[derive(Debug, Clone, Default)]
pub struct ReadOptions {
    /// The format, if not the one that the ending stands for.
    pub format: Option<Format>,
    /// A name of the WHATWG encoding standard such as `utf-8`, `latin1` or `windows-1252` (as there, `latin1` means
    /// Windows-1252); UTF-8 if not given. A byte order mark is taken off. Parquet has no encoding.
    pub encoding: Option<String>,
    /// The delimiter, if neither comma (CSV) nor tab (TSV).
    pub delimiter: Option<char>,
    /// Whether `"` quotes fields; yes for CSV and no for TSV if not given.
    pub quotes: Option<bool>,
    /// Names of the columns of a CSV or TSV file that has no header line.
    pub columns: Option<Vec<String>>,
    /// The columns to keep (all if not given). Others are not stored and may be nested.
    pub select: Option<Vec<String>>,
    /// The columns of a JSONL file whose cells may be lists and objects: they are kept as the JSON that they are.
    pub nested: Vec<String>,
    /// Limits.
    pub limits: Limits,
}

pub(crate) fn read(path: &Path, options: &ReadOptions) -> Result<Table, DataError> {
    if path.is_dir() {
        return crate::images::read_folder(path, options);
    }
    let format = options.format.map_or_else(|| Format::of(path), Ok)?;
    let encoding = encoding(options)?;
    let io = |source| DataError::Io { file: path.to_owned(), source };
    let mut file = File::open(path).map_err(io)?;
    let meta = file.metadata().map_err(io)?;
    if meta.is_dir() {
        return Err(io(std::io::Error::from(std::io::ErrorKind::IsADirectory)));
    }
    let (size, limit) = (meta.len(), options.limits.file_bytes);
    let name: Arc<str> = path.display().to_string().into();
    if size > limit {
        return Err(DataError::FileTooLarge { file: name, size, limit });
    }
    let lines = format != Format::Parquet;
    let builder = Builder::new(name.clone(), lines, options.select.clone(), options.limits);
    if format == Format::Parquet {
        return parquet_file::read(builder, file, digest_file(path)?);
    }
    // A pipe or a file that grows says nothing true about its size: the limit is watched while reading as well.
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
    file.by_ref().take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > limit {
        return Err(DataError::FileTooLarge { file: name, size: bytes.len() as u64, limit });
    }
    let digest = format!("blake3:{}", blake3::hash(&bytes).to_hex());
    let text = decode(&name, &bytes, encoding, format)?;
    match format {
        Format::Jsonl => jsonl::read(builder, &text, &options.nested, digest),
        Format::Conll => conll::read(builder, &text, digest),
        _ => delimited::read(builder, &text, &delimited::Dialect::new(&name, format, options)?, digest),
    }
}

/// `blake3:` and the hexadecimal digest of a file's bytes, for provenance.
///
/// # Errors
/// [`DataError::Io`].
pub fn digest_file(path: &Path) -> Result<String, DataError> {
    let io = |source| DataError::Io { file: path.to_owned(), source };
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path).map_err(io)?).map_err(io)?;
    Ok(format!("blake3:{}", hasher.finalize().to_hex()))
}

fn encoding(options: &ReadOptions) -> Result<&'static Encoding, DataError> {
    let Some(name) = &options.encoding else { return Ok(UTF_8) };
    // The standard knows "latin1" and "iso-8859-1"; people also write "latin-1" and "utf8".
    let label = if name.eq_ignore_ascii_case("latin-1") { "latin1" } else { name };
    Encoding::for_label_no_replacement(label.as_bytes())
        .ok_or_else(|| DataError::NoSuchEncoding { name: name.clone() })
}

fn decode<'a>(
    file: &Arc<str>,
    bytes: &'a [u8],
    encoding: &'static Encoding,
    format: Format,
) -> Result<Cow<'a, str>, DataError> {
    if let Some((what, help)) = foreign(bytes) {
        return Err(DataError::NotText { file: file.clone(), what, format: format.name(), help });
    }
    if encoding != UTF_8 {
        let (text, wrong) = encoding.decode_with_bom_removal(bytes);
        return match wrong {
            true => Err(DataError::BadEncoding { file: file.clone(), encoding: encoding.name() }),
            false => Ok(text),
        };
    }
    let start = if bytes.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
    std::str::from_utf8(&bytes[start..]).map(Cow::Borrowed).map_err(|e| {
        let offset = start + e.valid_up_to();
        let line = 1 + bytes[..offset].iter().filter(|b| **b == b'\n').count() as u64;
        DataError::NotUtf8 { file: file.clone(), line, offset: offset as u64, value: bytes[offset] }
    })
}

/// Recognises files that are no text at all, for which advice on encodings would mislead.
fn foreign(bytes: &[u8]) -> Option<(&'static str, &'static str)> {
    const UNPACK: &str = "unpack it first";
    match bytes {
        [0x1f, 0x8b, ..] => Some(("gzip data", UNPACK)),
        [b'P', b'K', 3, 4, ..] => Some(("a zip archive or a spreadsheet", "export the table as CSV")),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(("Zstandard data", UNPACK)),
        [b'P', b'A', b'R', b'1', ..] => Some(("Parquet", "give --format parquet")),
        _ => None,
    }
}
