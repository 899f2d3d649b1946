//! From the labels of words and spans to the labels of tokens.

use graft_plugin_api::*;

use crate::labels::{OUTSIDE, unknown};
use crate::loss::IGNORED;
use crate::{Format, TokenClassification};

/// The tokens of a row, which only a host that tokenises texts gives.
pub fn tokens(row: &Row) -> Result<&Tokens> {
    let none =
        || Error::new(Code::UNSUPPORTED, "the rows have no tokens").help("the base must be one of texts");
    row.tokens().ok_or_else(none)
}

/// `labels` `[batch, seq]` i64, −100 where there is no label, and `firsts` `[batch, seq]` i64, 1 at the first piece of
/// each word; `seq` is the longest row. Nothing for rows without labels.
///
/// # Errors
/// `DATA` for a row whose labels do not fit its words, or that has none where others do; a label that is not known.
pub fn collate(c: &TokenClassification, rows: &[Row]) -> Result<Vec<Tensor>> {
    let field = if c.format == Format::Words { "tags" } else { "spans" };
    let given: Vec<Option<String>> = rows.iter().map(|r| r.text(field)).collect();
    if given.iter().all(Option::is_none) {
        return Ok(Vec::new());
    }
    let names = c.labels()?;
    let mut longest = 0;
    for row in rows {
        longest = longest.max(tokens(row)?.pieces.len());
    }
    let mut labels = vec![IGNORED; rows.len() * longest];
    let mut firsts = vec![0; labels.len()];
    for (r, (row, given)) in rows.iter().zip(&given).enumerate() {
        let Some(given) = given else {
            return fail!(DATA, "some rows have `{field}` and some have none");
        };
        let tokens = tokens(row)?;
        let words = match c.format {
            Format::Words => of_words(tokens, given)?,
            Format::Spans => of_spans(tokens, given)?,
        };
        let number = |w: usize| match words.get(w) {
            Some(l) => match names.iter().position(|n| n == l) {
                Some(i) => Ok(i as i64),
                None => Err(unknown(l, names)),
            },
            None => fail!(DATA, "a token is a piece of word {w}, and there are {} words", words.len()),
        };
        let start = r * longest;
        for (place, word) in tokens.first_pieces() {
            labels[start + place] = number(word)?;
            firsts[start + place] = 1;
        }
        if c.label_all_pieces {
            for (place, piece) in tokens.pieces.iter().enumerate() {
                if let Some(word) = piece.word {
                    labels[start + place] = number(word)?;
                }
            }
        }
    }
    let shape = [rows.len(), longest];
    Ok(vec![Tensor::i64s("labels", &shape, &labels), Tensor::i64s("firsts", &shape, &firsts)])
}

/// A label for each word.
fn of_words(tokens: &Tokens, given: &str) -> Result<Vec<String>> {
    let labels: Vec<String> = serde_json::from_str(given)
        .map_err(|e| Error::new(Code::DATA, format!("`tags` {} is no list of labels: {e}", short(given))))?;
    if labels.len() != tokens.words {
        let text = short(&tokens.text);
        let what = format!("there are {} labels for the {} words {text}", labels.len(), tokens.words);
        return Err(Error::new(Code::DATA, what).help("give a label for each word"));
    }
    Ok(labels)
}

#[derive(serde::Deserialize)]
#[serde(crate = "graft_plugin_api::serde")]
struct Span {
    start: usize,
    end: usize,
    label: String,
}

/// B at the first word that a span has a part of, I at its further ones, O elsewhere.
fn of_spans(tokens: &Tokens, given: &str) -> Result<Vec<String>> {
    let mut spans: Vec<Span> = serde_json::from_str(given).map_err(|e| {
        let what = format!("`spans` {} is no list of {{\"start\", \"end\", \"label\"}}: {e}", short(given));
        Error::new(Code::DATA, what)
    })?;
    spans.sort_by_key(|s| s.start);
    let bytes: Vec<usize> = tokens.text.char_indices().map(|(at, _)| at).chain([tokens.text.len()]).collect();
    let mut words: Vec<Option<(usize, usize)>> = vec![None; tokens.words];
    for piece in &tokens.pieces {
        if let Some(word) = piece.word.and_then(|w| words.get_mut(w)) {
            let (start, end) = word.unwrap_or((piece.start, piece.end));
            *word = Some((start.min(piece.start), end.max(piece.end)));
        }
    }
    let mut labels = vec![OUTSIDE.to_owned(); tokens.words];
    let mut taken: Vec<bool> = vec![false; tokens.words];
    for s in &spans {
        let at = || format!("the span {}–{} of {}", s.start, s.end, short(&tokens.text));
        let (Some(start), Some(end), true) = (bytes.get(s.start), bytes.get(s.end), s.start < s.end) else {
            let what = format!("{} lies outside of it, whose length is {}", at(), bytes.len() - 1);
            return Err(
                Error::new(Code::DATA, what).help("positions are characters from 0; the end is not included")
            );
        };
        let mut prefix = "B";
        for (w, word) in words.iter().enumerate() {
            if !word.is_some_and(|(a, b)| a < *end && b > *start) {
                continue;
            }
            if std::mem::replace(&mut taken[w], true) {
                let what = format!("{} has a word in common with another span", at());
                return Err(
                    Error::new(Code::DATA, what).help("each word can be in one span; leave one of them out")
                );
            }
            labels[w] = format!("{prefix}-{}", s.label);
            prefix = "I";
        }
    }
    Ok(labels)
}

/// A text for a message, cut where it is long.
fn short(text: &str) -> String {
    let cut: String = text.chars().take(60).collect();
    if cut.len() < text.len() { format!("`{cut}…`") } else { format!("`{cut}`") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Piece = Piece { start: 0, end: 0, word: None };

    fn piece(start: usize, end: usize, word: usize) -> Piece {
        Piece { start, end, word: Some(word) }
    }

    /// "Zoë Ann met" as [CLS] zo ##ë ann met [SEP].
    fn row(field: &str, labels: &str) -> Row {
        let pieces = vec![NONE, piece(0, 2, 0), piece(2, 4, 0), piece(5, 8, 1), piece(9, 12, 2), NONE];
        let tokens = Tokens { text: "Zoë Ann met".into(), pieces, words: 3 };
        let labels = (!labels.is_empty()).then(|| (field.to_owned(), Cell::Text(labels.to_owned())));
        Row { cells: labels.into_iter().chain([("tokens".to_owned(), Cell::Tokens(tokens))]).collect() }
    }

    fn objective(format: Format, label_all_pieces: bool) -> TokenClassification {
        let labels = ["O", "B-per", "I-per"].map(str::to_owned).to_vec();
        TokenClassification {
            format,
            label_all_pieces,
            labels: Some(labels),
            ..TokenClassification::default()
        }
    }

    fn labels(c: &TokenClassification, row: Row) -> Result<Vec<i64>> {
        tensor(&collate(c, &[row])?, "labels")?.to_i64s()
    }

    #[test]
    fn the_first_piece_of_a_word_is_labelled_or_all_of_them() {
        let tags = r#"["B-per", "I-per", "O"]"#;
        let c = objective(Format::Words, false);
        assert_eq!(labels(&c, row("tags", tags)).unwrap(), [-100, 1, -100, 2, 0, -100]);
        let c = objective(Format::Words, true);
        let tensors = collate(&c, &[row("tags", tags)]).unwrap();
        assert_eq!(tensor(&tensors, "labels").unwrap().to_i64s().unwrap(), [-100, 1, 1, 2, 0, -100]);
        assert_eq!(tensor(&tensors, "firsts").unwrap().to_i64s().unwrap(), [0, 1, 0, 1, 1, 0]);
    }

    #[test]
    fn spans_label_the_words_that_they_have_a_part_of() {
        let c = objective(Format::Spans, false);
        let spans = r#"[{"start": 0, "end": 7, "label": "per"}]"#;
        assert_eq!(labels(&c, row("spans", spans)).unwrap(), [-100, 1, -100, 2, 0, -100]);
        assert_eq!(labels(&c, row("spans", "[]")).unwrap(), [-100, 0, -100, 0, 0, -100]);
    }

    #[test]
    fn labels_that_do_not_fit_are_refused() {
        let c = objective(Format::Words, false);
        let refused = |tags: &str, words: &str| {
            let e = labels(&c, row("tags", tags)).unwrap_err();
            assert!(e.code == Code::DATA && e.to_string().contains(words), "{e}");
        };
        refused(r#"["O"]"#, "1 labels for the 3 words");
        refused(r#"["O", "O", "B-pet"]"#, "did you mean `B-per`");
        refused("O O O", "no list of labels");
        let c = objective(Format::Spans, false);
        let refused = |spans: &str, words: &str| {
            let e = labels(&c, row("spans", spans)).unwrap_err();
            assert!(e.code == Code::DATA && e.to_string().contains(words), "{e}");
        };
        refused(r#"[{"start": 4, "end": 12, "label": "per"}]"#, "outside");
        refused(r#"[{"start": 4, "end": 4, "label": "per"}]"#, "outside");
        let twice = r#"[{"start": 0, "end": 2, "label": "per"}, {"start": 2, "end": 7, "label": "per"}]"#;
        refused(twice, "in common");
    }

    #[test]
    fn rows_are_labelled_all_or_none() {
        let c = objective(Format::Words, false);
        assert!(collate(&c, &[row("tags", ""), row("tags", "")]).unwrap().is_empty());
        assert!(collate(&c, &[row("tags", r#"["O", "O", "O"]"#), row("tags", "")]).is_err());
    }
}
