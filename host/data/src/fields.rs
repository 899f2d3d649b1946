//! Which column is which field of an objective.

use indexmap::IndexMap;

use crate::error::DataError;
use crate::table::Table;

/// Field name → column name, in the order given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mapping(IndexMap<String, String>);

impl Mapping {
    /// A mapping without fields.
    pub fn new() -> Mapping {
        Mapping::default()
    }

    /// The mapping with `field` taken from `column` (replacing what it was taken from before).
    #[must_use]
    pub fn with(mut self, field: impl Into<String>, column: impl Into<String>) -> Mapping {
        self.0.insert(field.into(), column.into());
        self
    }

    /// A mapping from arguments of the form `FIELD=COLUMN`.
    ///
    /// # Errors
    /// [`DataError::BadMapping`].
    pub fn parse<S: AsRef<str>>(arguments: impl IntoIterator<Item = S>) -> Result<Mapping, DataError> {
        let mut mapping = Mapping::new();
        for argument in arguments {
            let argument = argument.as_ref();
            match argument.split_once('=') {
                Some((field, column)) if !field.is_empty() && !column.is_empty() => {
                    mapping = mapping.with(field, column);
                }
                _ => return Err(DataError::BadMapping { argument: argument.to_owned() }),
            }
        }
        Ok(mapping)
    }

    /// Fields and their columns.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(f, c)| (f.as_str(), c.as_str()))
    }

    /// The columns that are needed, each once; fit for [`crate::ReadOptions::select`].
    pub fn columns(&self) -> Vec<String> {
        let mut columns: Vec<String> = Vec::new();
        for (_, column) in self.iter() {
            if !columns.iter().any(|c| c == column) {
                columns.push(column.to_owned());
            }
        }
        columns
    }
}

/// The values of each field, borrowed from the table; every row has a value that is not blank, unless blanks were allowed.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    fields: IndexMap<String, Vec<&'a str>>,
    rows: usize,
}

impl<'a> Records<'a> {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// True without rows.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The values of a field in the order of the rows; `None` if the mapping has no such field.
    pub fn field(&self, name: &str) -> Option<&[&'a str]> {
        self.fields.get(name).map(Vec::as_slice)
    }

    /// Names of the fields.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.keys().map(String::as_str)
    }
}

impl Table {
    /// The fields of a mapping, all of them required.
    ///
    /// # Errors
    /// [`DataError::NoColumn`] for a column that is not there; [`DataError::Missing`] for null,
    /// [`DataError::Empty`] for a blank cell, with the place of the first such row.
    pub fn records(&self, mapping: &Mapping) -> Result<Records<'_>, DataError> {
        self.records_with_blanks(mapping, &[])
    }

    /// As [`Table::records`], but cells of the fields `blank` may be blank or null, and then have an empty value.
    ///
    /// # Errors
    /// As [`Table::records`].
    pub fn records_with_blanks(&self, mapping: &Mapping, blank: &[&str]) -> Result<Records<'_>, DataError> {
        let mut fields = IndexMap::new();
        for (field, name) in mapping.iter() {
            let column = self.column_for(name, Some(field))?;
            let may_be_blank = blank.contains(&field);
            let value = |row: usize| {
                let (column_name, field) = (name.to_owned(), field.to_owned());
                match column.get(row) {
                    v if may_be_blank => Ok(v.unwrap_or_default()),
                    None => Err(DataError::Missing { place: self.place(row), column: column_name, field }),
                    Some(v) if v.trim().is_empty() => {
                        Err(DataError::Empty { place: self.place(row), column: column_name, field })
                    }
                    Some(v) => Ok(v),
                }
            };
            let values = (0..self.len()).map(value).collect::<Result<Vec<_>, _>>()?;
            fields.insert(field.to_owned(), values);
        }
        Ok(Records { fields, rows: self.len() })
    }
}
