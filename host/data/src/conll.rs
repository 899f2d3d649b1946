//! Files with a word and its tag a line, as the shared tasks of CoNLL have them.
//!
//! The word is the first field of a line and the tag the last one; fields are separated by tabs, or in a line without a
//! tab by spaces. A blank line ends a sentence; `-DOCSTART-` lines, which separate documents, are left out. The table
//! has a row for each sentence: `tokens` and `tags`, both JSON lists of strings.

use crate::error::DataError;
use crate::table::{Builder, Table};

/// The columns of such a table.
const COLUMNS: [&str; 2] = ["tokens", "tags"];

/// Begins the line that separates documents.
const DOCUMENT: &str = "-DOCSTART-";

/// Reads the sentences of `text`.
///
/// # Errors
/// [`DataError::NoTag`] for a line without a tag; the limits of the builder.
pub(crate) fn read(mut builder: Builder, text: &str, digest: String) -> Result<Table, DataError> {
    for column in COLUMNS {
        builder.add_column(column, 1)?;
    }
    let (mut words, mut tags, mut began) = (Vec::new(), Vec::new(), 1);
    for (index, raw) in text.split('\n').enumerate() {
        let line = index as u64 + 1;
        let raw = raw.strip_suffix('\r').unwrap_or(raw);
        if raw.trim().is_empty() {
            end(&mut builder, &mut words, &mut tags, began)?;
            continue;
        }
        if raw.starts_with(DOCUMENT) {
            continue;
        }
        let (word, tag) = fields(raw).ok_or_else(|| DataError::NoTag {
            place: builder.place(line),
            found: raw.chars().take(60).collect(),
        })?;
        if words.is_empty() {
            began = line;
        }
        words.push(word);
        tags.push(tag);
    }
    end(&mut builder, &mut words, &mut tags, began)?;
    builder.finish(digest)
}

/// Word and tag of a line.
fn fields(line: &str) -> Option<(&str, &str)> {
    let (word, tag) = if line.contains('\t') {
        (line.split('\t').next()?, line.rsplit('\t').next()?)
    } else {
        let mut parts = line.split_whitespace();
        (parts.next()?, parts.next_back()?)
    };
    let (word, tag) = (word.trim(), tag.trim());
    (!word.is_empty() && !tag.is_empty()).then_some((word, tag))
}

/// Ends a sentence that began on a line, if there is one.
fn end<'a>(
    builder: &mut Builder,
    words: &mut Vec<&'a str>,
    tags: &mut Vec<&'a str>,
    line: u64,
) -> Result<(), DataError> {
    if words.is_empty() {
        return Ok(());
    }
    for (column, list) in [words, tags].into_iter().enumerate() {
        let cell = serde_json::Value::from(std::mem::take(list)).to_string();
        builder.set(column, Some(&cell), line)?;
    }
    builder.end_row(line)
}
