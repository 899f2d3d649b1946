//! The fields of an objective in a table, besides the texts and images that a base reads.

use graft_data::{Mapping, Records, Table};
use graft_plugins::api::{Cell, Field, FieldKind, Numbers, Row, Summary};
use indexmap::IndexMap;

use crate::error::Result;
use crate::examples::Examples;
use crate::words;

/// The cells of a table by field. Only a cell that may hold several values may be blank.
///
/// # Errors
/// A column that is not there, a blank cell; each with its place.
pub(crate) fn records<'t>(table: &'t Table, mapping: &Mapping, fields: &[Field]) -> Result<Records<'t>> {
    let blank: Vec<&str> =
        fields.iter().filter(|f| !f.separator.is_empty()).map(|f| f.name.as_str()).collect();
    Ok(table.records_with_blanks(mapping, &blank)?)
}

/// The cells of each row that are neither text nor image; those of numbers are numbers.
///
/// # Errors
/// As [`records`]; a cell that should be a number and is none.
pub(crate) fn rows(table: &Table, mapping: &Mapping, fields: &[Field]) -> Result<Vec<Row>> {
    let records = records(table, mapping, fields)?;
    let mut rows = vec![Row { cells: Vec::new() }; records.len()];
    let mut fill = |name: &str, cells: Vec<Cell>| {
        rows.iter_mut().zip(cells).for_each(|(r, c)| r.cells.push((name.to_owned(), c)));
    };
    for (field, column) in mapping.iter() {
        let Some(kind) = fields.iter().find(|f| f.name == field).map(|f| f.kind) else { continue };
        match kind {
            FieldKind::TEXT | FieldKind::TEXT_APART | FieldKind::IMAGE | FieldKind::WORDS => {}
            FieldKind::NUMBER => fill(field, table.numbers(column)?.into_iter().map(Cell::Number).collect()),
            _ => {
                let values = records.field(field).unwrap_or_default();
                fill(field, values.iter().map(|v| Cell::Text((*v).to_owned())).collect());
            }
        }
    }
    Ok(rows)
}

/// Counts of labels, statistics of numbers, and which fields there are.
pub(crate) fn summary(examples: &Examples, fields: &[Field]) -> Summary {
    let counts = |f: &Field| {
        let mut counts: IndexMap<String, u64> = IndexMap::new();
        for cell in examples.rows.iter().filter_map(|r| r.text(&f.name)) {
            let found = match f.kind {
                FieldKind::LABEL => f.values(&cell).into_iter().map(str::to_owned).collect(),
                kind => words::labels(kind, cell),
            };
            found.into_iter().for_each(|v| *counts.entry(v).or_default() += 1);
        }
        counts.sort_keys();
        (f.name.clone(), counts.into_iter().collect())
    };
    let of_kind = |kind| fields.iter().filter(move |f: &&Field| f.kind == kind);
    let numbers = |f: &Field| {
        let all: Option<Vec<f64>> = examples.rows.iter().map(|r| r.number(&f.name)).collect();
        Some((f.name.clone(), Numbers::of(&all.filter(|a| !a.is_empty())?)))
    };
    let first = examples.rows.first();
    let mut present: Vec<String> =
        first.into_iter().flat_map(|r| r.cells.iter().map(|(n, _)| n.clone())).collect();
    present.extend(examples.further.keys().cloned());
    Summary {
        rows: examples.len() as u64,
        labels: fields.iter().filter(|f| words::has_labels(f.kind)).map(counts).collect(),
        numbers: of_kind(FieldKind::NUMBER).filter_map(numbers).collect(),
        fields: present,
    }
}
