//! What an author of an objective writes.

use serde_json::Value as Json;

use crate::config::Config;
use crate::graph::Host;
use crate::{Graph, Result, Summary, Tensor, Tokens, Value, wire};

/// What is optimised. The type is the config (see [`config!`](crate::config)).
pub trait Objective: Config {
    /// Name that people type, such as `classification`.
    const ID: &'static str;
    /// One line that says what it does.
    const SUMMARY: &'static str;

    /// Refuses configs that cannot work.
    ///
    /// # Errors
    /// `CONFIG` naming the option.
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// Configs worth showing, each with a line that says what it is for. They are checked by a test.
    fn examples() -> Vec<(&'static str, Self)> {
        Vec::new()
    }

    /// The fields of the data that it reads.
    fn fields(&self) -> Vec<Field>;

    /// The config with everything filled in that the training data decides (labels, class weights). It is kept with
    /// the adapter; what comes later is called on it.
    ///
    /// # Errors
    /// `DATA` when the data cannot be trained on.
    fn prepare(self, data: &Summary) -> Result<Self>;

    /// Turns the raw fields of a batch into named tensors; the text is the host's business. A batch without the fields
    /// that only training needs gives no tensors.
    ///
    /// # Errors
    /// `DATA` naming what is unknown or missing.
    fn collate(&self, host: &Host<'_>, rows: &[Row], seed: u64) -> Result<Vec<Tensor>>;

    /// Writes the head, and in a training graph the loss.
    ///
    /// # Errors
    /// Those of the graph.
    fn build(&self, graph: &Graph<'_>) -> Result<Built>;

    /// Judges a whole evaluation set: the outputs and the collated tensors of all its rows, joined along axis 0. The
    /// first metric selects the best epoch.
    ///
    /// # Errors
    /// `DATA` for a missing tensor.
    fn metrics(&self, tensors: &[Tensor]) -> Result<Vec<Metric>>;

    /// One answer for each row of the outputs.
    ///
    /// # Errors
    /// `DATA` for a missing tensor.
    fn decode(&self, host: &Host<'_>, tensors: &[Tensor]) -> Result<Vec<Json>>;

    /// Whether [`Objective::calibrate`] has anything to decide.
    fn calibrates(&self) -> bool {
        false
    }

    /// The config with everything filled in that the outputs of the trained adapter on evaluation data decide, such as
    /// thresholds; `tensors` are those of [`Objective::metrics`]. Called once, after training, where there is such data.
    ///
    /// # Errors
    /// `DATA` for a missing tensor.
    fn calibrate(self, _tensors: &[Tensor]) -> Result<Self> {
        Ok(self)
    }

    /// As [`Objective::decode`], for answers that point into the text: each of `rows` has its tokens.
    ///
    /// # Errors
    /// As [`Objective::decode`].
    fn decode_rows(&self, host: &Host<'_>, _rows: &[Row], tensors: &[Tensor]) -> Result<Vec<Json>> {
        self.decode(host, tensors)
    }
}

/// What a field holds. Crosses as a number, so that more can be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FieldKind(pub u32);

impl FieldKind {
    /// Text that is tokenised by the host. The texts of two such fields are one row, by the tokenizer's template of pairs.
    pub const TEXT: FieldKind = FieldKind(1);
    /// One of few values; the host counts them for [`Objective::prepare`].
    pub const LABEL: FieldKind = FieldKind(2);
    /// A number.
    pub const NUMBER: FieldKind = FieldKind(3);
    /// An image that is decoded by the host. A base reads texts or images; fields of the other kind are left out.
    pub const IMAGE: FieldKind = FieldKind(4);
    /// Text that is a further row of the base's batch: with two texts an example, the first `batch` rows are those of
    /// [`FieldKind::TEXT`], and as many behind them are these. Outputs of evaluation are in that order too.
    pub const TEXT_APART: FieldKind = FieldKind(5);
    /// A text as a JSON list of its words; it is tokenised by the host as the words with a space between each two. The
    /// row gets its [`Tokens`].
    pub const WORDS: FieldKind = FieldKind(6);
    /// A JSON list with a label for each word of the row.
    pub const WORD_LABELS: FieldKind = FieldKind(7);
    /// A JSON list of labelled spans of the row's text, `{"start", "end", "label"}` in characters. The row gets its
    /// [`Tokens`], whose words are those that the tokenizer finds.
    pub const SPANS: FieldKind = FieldKind(8);
}

/// A field of the data that an objective reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Name, such as `text`.
    pub name: String,
    /// What it holds.
    pub kind: FieldKind,
    /// True when training cannot do without it.
    pub required: bool,
    /// One line for a person.
    pub description: String,
    /// What stands between the values of a cell that holds several of them, or none; empty where each cell is one value.
    pub separator: String,
}

impl Field {
    /// A required field.
    pub fn new(name: &str, kind: FieldKind, description: &str) -> Field {
        Field {
            name: name.to_owned(),
            kind,
            required: true,
            description: description.to_owned(),
            separator: String::new(),
        }
    }

    /// Read only where a column is named for it.
    pub fn optional(mut self) -> Field {
        self.required = false;
        self
    }

    /// A cell holds any number of values with `separator` between them; see [`Field::values`].
    pub fn several(mut self, separator: &str) -> Field {
        separator.clone_into(&mut self.separator);
        self
    }

    /// The values of a cell: itself, or what stands between the separators, without blanks around it.
    pub fn values<'a>(&self, cell: &'a str) -> Vec<&'a str> {
        if self.separator.is_empty() {
            return vec![cell];
        }
        cell.split(self.separator.as_str()).map(str::trim).filter(|v| !v.is_empty()).collect()
    }
}

impl From<wire::Field> for Field {
    fn from(f: wire::Field) -> Field {
        Field {
            name: f.name,
            kind: FieldKind(f.kind),
            required: f.required,
            description: f.description,
            separator: f.separator,
        }
    }
}

impl From<Field> for wire::Field {
    fn from(f: Field) -> wire::Field {
        wire::Field {
            name: f.name,
            kind: f.kind.0,
            required: f.required,
            description: f.description,
            separator: f.separator,
        }
    }
}

/// A cell of a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// Text or label.
    Text(String),
    /// Number.
    Number(f64),
    /// The tokens of the row's text.
    Tokens(Tokens),
}

/// A row of data: field → cell, for the fields that it has.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Row {
    /// The cells.
    pub cells: Vec<(String, Cell)>,
}

impl Row {
    /// The cell of a field.
    pub fn get(&self, field: &str) -> Option<&Cell> {
        self.cells.iter().find(|(f, _)| f == field).map(|(_, c)| c)
    }

    /// A field as a number, where it is one.
    pub fn number(&self, field: &str) -> Option<f64> {
        match self.get(field)? {
            Cell::Number(n) => Some(*n),
            Cell::Text(_) | Cell::Tokens(_) => None,
        }
    }

    /// A field as text; a number as people write it.
    pub fn text(&self, field: &str) -> Option<String> {
        self.get(field).and_then(|c| match c {
            Cell::Text(t) => Some(t.clone()),
            Cell::Number(n) => Some(n.to_string()),
            Cell::Tokens(_) => None,
        })
    }

    /// The tokens of the row's text, where the host gave them.
    pub fn tokens(&self) -> Option<&Tokens> {
        self.cells.iter().find_map(|(_, c)| if let Cell::Tokens(t) = c { Some(t) } else { None })
    }
}

impl From<wire::Row> for Row {
    fn from(r: wire::Row) -> Row {
        let cell = |c: wire::Cell| match c.value? {
            wire::CellValue::Text(t) => Some((c.field, Cell::Text(t))),
            wire::CellValue::Number(n) => Some((c.field, Cell::Number(n))),
            wire::CellValue::Tokens(t) => Some((c.field, Cell::Tokens(t.into()))),
        };
        Row { cells: r.cells.into_iter().filter_map(cell).collect() }
    }
}

impl From<&Row> for wire::Row {
    fn from(r: &Row) -> wire::Row {
        let cell = |(field, cell): &(String, Cell)| wire::Cell {
            field: field.clone(),
            value: Some(match cell {
                Cell::Text(t) => wire::CellValue::Text(t.clone()),
                Cell::Number(n) => wire::CellValue::Number(*n),
                Cell::Tokens(t) => wire::CellValue::Tokens(t.into()),
            }),
        };
        wire::Row { cells: r.cells.iter().map(cell).collect() }
    }
}

/// What an objective built.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Built {
    /// The loss, a scalar; none outside training.
    pub loss: Option<Value>,
    /// Named outputs, such as `logits`.
    pub outputs: Vec<(String, Value)>,
}

/// A number that says how good it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    /// Name, such as `accuracy`.
    pub name: String,
    /// Value.
    pub value: f64,
    /// Direction.
    pub higher_is_better: bool,
}

impl Metric {
    /// A metric that is better when it is higher.
    pub fn higher(name: &str, value: f64) -> Metric {
        Metric { name: name.to_owned(), value, higher_is_better: true }
    }

    /// A metric that is better when it is lower.
    pub fn lower(name: &str, value: f64) -> Metric {
        Metric { name: name.to_owned(), value, higher_is_better: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_one_value_or_several() {
        let one = Field::new("label", FieldKind::LABEL, "");
        assert_eq!(one.values(" a;b "), [" a;b "]);
        let several = one.several(";");
        assert_eq!(several.values(" a; b c;;"), ["a", "b c"]);
        assert!(several.values(" ; ").is_empty() && several.values("").is_empty());
    }

    #[test]
    fn a_field_survives_the_wire() {
        let f = Field::new("label", FieldKind::LABEL, "which").several(",").optional();
        assert_eq!(Field::from(wire::Field::from(f.clone())), f);
        assert!(!f.required);
    }
}
