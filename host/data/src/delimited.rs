//! CSV and TSV.

use std::sync::Arc;

use csv::{ReaderBuilder, StringRecord};

use crate::error::DataError;
use crate::read::{Format, ReadOptions};
use crate::table::{Builder, Table};

/// Delimiter, quoting and header of a file.
pub(crate) struct Dialect {
    delimiter: u8,
    quotes: bool,
    columns: Option<Vec<String>>,
}

impl Dialect {
    pub(crate) fn new(file: &Arc<str>, format: Format, options: &ReadOptions) -> Result<Dialect, DataError> {
        let tsv = format == Format::Tsv;
        let given = options.delimiter.unwrap_or(if tsv { '\t' } else { ',' });
        let delimiter = u8::try_from(given).ok().filter(|d| d.is_ascii() && !b"\"\r\n".contains(d));
        let delimiter = delimiter.ok_or_else(|| DataError::BadDelimiter {
            place: file.to_string(),
            delimiter: given.to_string(),
        })?;
        Ok(Dialect { delimiter, quotes: options.quotes.unwrap_or(!tsv), columns: options.columns.clone() })
    }

    fn reader<'a>(&self, text: &'a str) -> csv::Reader<&'a [u8]> {
        let mut builder = ReaderBuilder::new();
        builder.has_headers(false).flexible(true).delimiter(self.delimiter).quoting(self.quotes);
        builder.from_reader(text.as_bytes())
    }
}

/// Reads the records of `text`. Empty lines are skipped.
pub(crate) fn read(
    mut builder: Builder,
    text: &str,
    dialect: &Dialect,
    digest: String,
) -> Result<Table, DataError> {
    let mut reader = dialect.reader(text);
    let mut record = StringRecord::new();
    let mut lines = LineCounter { text: text.as_bytes(), at: 0, line: 1 };
    let mut named = false;
    if let Some(names) = &dialect.columns {
        names.iter().try_for_each(|n| builder.add_column(n, 1))?;
        named = true;
    }
    loop {
        let start = lines.skip_ends(reader.position().byte() as usize);
        let line = lines.line;
        let more = reader.read_record(&mut record).map_err(|e| match e.into_kind() {
            csv::ErrorKind::Io(source) => DataError::Io { file: builder.file.to_string().into(), source },
            // The text is valid UTF-8 and the reader is flexible: nothing else can go wrong.
            _ => DataError::OpenQuote { place: builder.place(line) },
        })?;
        if !more {
            break;
        }
        if reader.is_done() || reader.position().byte() as usize >= text.len() {
            check_closed(&builder, dialect, &text[start..], &record, line)?;
        }
        if !named {
            record.iter().try_for_each(|n| builder.add_column(n, line))?;
            named = true;
            continue;
        }
        if record.len() != builder.width() {
            return Err(DataError::FieldCount {
                place: builder.place(line),
                found: record.len(),
                expected: builder.width(),
                columns: builder.listed(),
                delimiter: dialect.delimiter as char,
            });
        }
        for (index, cell) in record.iter().enumerate() {
            builder.set(index, Some(cell), line)?;
        }
        builder.end_row(line)?;
    }
    builder.finish(digest)
}

/// The `csv` crate takes the end of the file for the end of an open quote. That a quote is open shows in that
/// one more quote at the end closes it and changes nothing else.
fn check_closed(
    builder: &Builder,
    dialect: &Dialect,
    raw: &str,
    record: &StringRecord,
    line: u64,
) -> Result<(), DataError> {
    if !dialect.quotes || !raw.contains('"') {
        return Ok(());
    }
    let closed = format!("{raw}\"");
    let mut records = dialect.reader(&closed).into_records();
    let same = matches!(records.next(), Some(Ok(r)) if r.iter().eq(record.iter()));
    if same && records.next().is_none() {
        return Err(DataError::OpenQuote { place: builder.place(line) });
    }
    Ok(())
}

/// Counts lines up to the start of each record: the reader's own position stands before the line ends that it
/// has yet to skip.
struct LineCounter<'a> {
    text: &'a [u8],
    at: usize,
    line: u64,
}

impl LineCounter<'_> {
    /// Moves to `position`, then over line ends; returns where the next record starts.
    fn skip_ends(&mut self, position: usize) -> usize {
        let ends = self.text.get(position..).unwrap_or_default();
        let start = position + ends.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
        self.line += self.text[self.at..start].iter().filter(|b| **b == b'\n').count() as u64;
        self.at = start;
        start
    }
}
