//! Data that are made up for a dry run of an objective.

use graft_plugin_api::{Cell, Field, FieldKind, Numbers, Piece, Row, Summary, Tokens};

/// Examples of a batch.
pub(crate) const EXAMPLES: usize = 4;

/// Tokens of each text, the two special ones at its ends included.
pub(crate) const TOKENS: usize = 4;

/// What labels are called, so that they do as tags of words too.
const LABELS: [&str; 2] = ["O", "B-one"];

/// The choices of fields that are tried in turn: those that training needs, those with one optional field each, all. Which
/// optional ones go together is the objective's own business.
pub(crate) fn choices(fields: &[Field]) -> Vec<Vec<&Field>> {
    let with = |extra: &[usize]| -> Vec<&Field> {
        fields.iter().enumerate().filter(|(i, f)| f.required || extra.contains(i)).map(|(_, f)| f).collect()
    };
    let optional: Vec<usize> = (0..fields.len()).filter(|i| !fields[*i].required).collect();
    let mut choices = vec![with(&[])];
    choices.extend(optional.iter().map(|i| with(&[*i])));
    if optional.len() > 1 {
        choices.push(with(&optional));
    }
    choices
}

/// True when data can be made up for the field.
pub(crate) fn known(kind: FieldKind) -> bool {
    (FieldKind::TEXT.0..=FieldKind::SPANS.0).contains(&kind.0)
}

/// What is known of the rows.
pub(crate) fn summary(fields: &[&Field]) -> Summary {
    let of = |kinds: &[FieldKind]| -> Vec<&Field> {
        fields.iter().copied().filter(|f| kinds.contains(&f.kind)).collect()
    };
    let counts = |f: &Field| -> Vec<(String, u64)> {
        let names: &[&str] = if f.kind == FieldKind::SPANS { &["one"] } else { &LABELS };
        names.iter().map(|l| ((*l).to_owned(), EXAMPLES as u64 / 2)).collect()
    };
    let numbers: Vec<f64> = (0..EXAMPLES).map(number).collect();
    let labelled = of(&[FieldKind::LABEL, FieldKind::WORD_LABELS, FieldKind::SPANS]);
    let unseen = [FieldKind::TEXT, FieldKind::IMAGE];
    Summary {
        rows: EXAMPLES as u64,
        labels: labelled.iter().map(|f| (f.name.clone(), counts(f))).collect(),
        numbers: of(&[FieldKind::NUMBER]).iter().map(|f| (f.name.clone(), Numbers::of(&numbers))).collect(),
        fields: fields.iter().filter(|f| !unseen.contains(&f.kind)).map(|f| f.name.clone()).collect(),
    }
}

/// The rows, [`EXAMPLES`] of them, each of two words.
pub(crate) fn rows(fields: &[&Field]) -> Vec<Row> {
    let tokenised = fields.iter().any(|f| [FieldKind::WORDS, FieldKind::SPANS].contains(&f.kind));
    let row = |i: usize| {
        let mut cells: Vec<(String, Cell)> =
            fields.iter().filter_map(|f| Some((f.name.clone(), cell(f, i)?))).collect();
        if tokenised {
            cells.push(("tokens".to_owned(), Cell::Tokens(tokens())));
        }
        Row { cells }
    };
    (0..EXAMPLES).map(row).collect()
}

fn number(i: usize) -> f64 {
    [0.0, 1.0, 2.5, 4.0][i % 4]
}

/// What row `i` has in the field; nothing where the host reads the field itself.
fn cell(field: &Field, i: usize) -> Option<Cell> {
    let label = LABELS[i % 2];
    let text = match field.kind {
        FieldKind::NUMBER => return Some(Cell::Number(number(i))),
        FieldKind::LABEL if field.separator.is_empty() => label.to_owned(),
        // None, one, the other, both.
        FieldKind::LABEL => ["", LABELS[0], LABELS[1], &LABELS.join(&field.separator)][i % 4].to_owned(),
        FieldKind::WORD_LABELS => format!(r#"["{label}", "O"]"#),
        FieldKind::SPANS if i.is_multiple_of(2) => "[]".to_owned(),
        FieldKind::SPANS => r#"[{"start": 0, "end": 2, "label": "one"}]"#.to_owned(),
        _ => return None,
    };
    Some(Cell::Text(text))
}

fn tokens() -> Tokens {
    let special = Piece::default();
    let word = |start, word| Piece { start, end: start + 2, word: Some(word) };
    Tokens { text: "ab cd".to_owned(), pieces: vec![special, word(0, 0), word(3, 1), special], words: 2 }
}
