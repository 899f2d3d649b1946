//! Texts whose words have labels: which token is a piece of which word.

use graft_data::{DataError, EncodeOptions, Encoding, Mapping, ReadOptions, Records, Table, Tokenizer};
use graft_plugins::api::{Cell, Field, FieldKind, Piece, Row, Tokens};

use crate::error::Result;
use crate::examples::Examples;
use crate::fields;

/// How a table is read for these fields: the columns of the mapping alone, lists and objects where a field has them.
pub fn table_options(mapping: &Mapping, fields: &[Field], encoding: Option<String>) -> ReadOptions {
    let lists = [FieldKind::WORDS, FieldKind::WORD_LABELS, FieldKind::SPANS];
    let is_list = |field: &str| fields.iter().any(|f| f.name == field && lists.contains(&f.kind));
    let nested = mapping.iter().filter(|(f, _)| is_list(f)).map(|(_, c)| c.to_owned()).collect();
    ReadOptions { encoding, select: Some(mapping.columns()), nested, ..ReadOptions::default() }
}

/// Whether the values of such a field are labels.
pub(crate) fn has_labels(kind: FieldKind) -> bool {
    [FieldKind::LABEL, FieldKind::WORD_LABELS, FieldKind::SPANS].contains(&kind)
}

/// The labels in the cell of such a field. A list that can't be read has none: the objective, which sees it as well, says
/// what is wrong with it.
pub(crate) fn labels(kind: FieldKind, cell: String) -> Vec<String> {
    match kind {
        FieldKind::WORD_LABELS => serde_json::from_str(&cell).unwrap_or_default(),
        FieldKind::SPANS => {
            let spans: Vec<serde_json::Value> = serde_json::from_str(&cell).unwrap_or_default();
            spans.iter().filter_map(|s| s["label"].as_str().map(str::to_owned)).collect()
        }
        _ => vec![cell],
    }
}

/// The rows of a table, where the fields are words or have labelled spans, each with its [`Tokens`]; `None` otherwise.
///
/// # Errors
/// A cell that is no list of words, with its place; a text that can't be tokenised.
pub(crate) fn examples(
    table: &Table,
    records: &Records<'_>,
    mapping: &Mapping,
    fields: &[Field],
    tokenizer: &Tokenizer,
    max_length: Option<usize>,
) -> Result<Option<Examples>> {
    let of = |kind: FieldKind| fields.iter().find(|f| f.kind == kind).map(|f| f.name.as_str());
    let words = match of(FieldKind::WORDS).and_then(|f| Some((f, records.field(f)?))) {
        Some((field, cells)) => {
            let column = mapping.iter().find(|(f, _)| *f == field).map_or(field, |(_, c)| c);
            let read = |(row, cell): (usize, &&str)| {
                serde_json::from_str::<Vec<String>>(cell).map_err(|e| DataError::List {
                    place: table.place(row),
                    column: column.to_owned(),
                    expected: "a JSON list of words",
                    message: e.to_string(),
                })
            };
            Some(cells.iter().enumerate().map(read).collect::<std::result::Result<Vec<_>, _>>()?)
        }
        None => None,
    };
    let texts: Vec<String> = match (&words, of(FieldKind::SPANS), of(FieldKind::TEXT)) {
        (Some(rows), ..) => rows.iter().map(|r| r.join(" ")).collect(),
        (None, Some(_), Some(text)) => match records.field(text) {
            Some(texts) => texts.iter().map(|t| (*t).to_owned()).collect(),
            None => return Ok(None),
        },
        _ => return Ok(None),
    };
    let options = EncodeOptions { max_length, offsets: true, ..EncodeOptions::default() };
    let encoded = tokenizer.encode_batch(&texts, None, &options)?;
    let others = fields::rows(table, mapping, fields)?;
    let each = texts.iter().zip(&encoded.rows).zip(others).enumerate();
    let rows = each.map(|(r, ((text, encoding), other))| match &words {
        Some(words) => with_tokens(other, given(text, encoding, &words[r])),
        None => row(text, encoding, other),
    });
    Ok(Some(Examples {
        rows: rows.collect(),
        cut: encoded.cut,
        encodings: encoded.rows,
        origin: table.file().to_string(),
        ..Examples::default()
    }))
}

/// A row with the tokens of its text; the words are those of the tokenizer.
pub(crate) fn row(text: &str, encoding: &Encoding, other: Row) -> Row {
    let words = encoding.words.iter().map(|w| w.map(|w| w as usize));
    let count = words.clone().flatten().max().map_or(0, |w| w + 1);
    let pieces = encoding.offsets.iter().zip(words);
    let pieces = pieces.map(|((start, end), word)| Piece { start: *start, end: *end, word }).collect();
    with_tokens(other, Tokens { text: text.to_owned(), pieces, words: count })
}

/// The tokens of words that were given and joined by spaces.
fn given(text: &str, encoding: &Encoding, words: &[String]) -> Tokens {
    let mut ends = Vec::with_capacity(words.len());
    let mut at = 0;
    for word in words {
        ends.push((at, at + word.len()));
        at += word.len() + 1;
    }
    let pieces = encoding.offsets.iter().zip(&encoding.words).map(|((start, end), word)| {
        // The word that the token has a part of: a blank in front may belong to the token, but to no word.
        let first = ends.partition_point(|(_, e)| e <= start);
        let inside = word.is_some() && ends.get(first).is_some_and(|(s, _)| s < end);
        Piece { start: *start, end: *end, word: inside.then_some(first) }
    });
    Tokens { text: text.to_owned(), pieces: pieces.collect(), words: words.len() }
}

fn with_tokens(mut row: Row, tokens: Tokens) -> Row {
    row.cells.push(("tokens".to_owned(), Cell::Tokens(tokens)));
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_belong_to_the_words_that_were_given() {
        let words = ["It", "'s", "", "Zoë"].map(str::to_owned);
        let text = words.join(" ");
        assert_eq!(text, "It 's  Zoë");
        let offsets = vec![(0, 0), (0, 2), (2, 4), (4, 5), (6, 9), (9, 11), (0, 0)];
        let inner = [None, Some(0), Some(1), Some(2), Some(3), Some(3), None];
        let encoding = Encoding { offsets, words: inner.to_vec(), ..Encoding::default() };
        let tokens = given(&text, &encoding, &words);
        let found: Vec<Option<usize>> = tokens.pieces.iter().map(|p| p.word).collect();
        // " '" begins with the blank; "" has no token.
        assert_eq!(found, [None, Some(0), Some(1), Some(1), Some(3), Some(3), None]);
        assert_eq!((tokens.words, tokens.first_pieces()), (4, vec![(1, 0), (2, 1), (4, 3)]));
    }

    #[test]
    fn labels_of_words_and_spans_are_counted_one_by_one() {
        assert_eq!(labels(FieldKind::WORD_LABELS, r#"["O", "B-x", "O"]"#.into()), ["O", "B-x", "O"]);
        let spans = r#"[{"start": 0, "end": 2, "label": "x"}]"#;
        assert_eq!(labels(FieldKind::SPANS, spans.into()), ["x"]);
        assert_eq!(labels(FieldKind::LABEL, "[x]".into()), ["[x]"]);
    }
}
