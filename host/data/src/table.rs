//! The table: columns of strings, and the place of each row.

use std::path::Path;
use std::sync::Arc;

use crate::error::{DataError, Place, no_column};
use crate::read::{Limits, ReadOptions};

/// One column: a string or nothing for each row.
#[derive(Debug, Clone)]
pub struct Column {
    name: String,
    // One long string and the end of each cell in it take far less memory than a `String` for each cell.
    text: String,
    ends: Vec<usize>,
    null: Vec<bool>,
}

impl Column {
    /// The column's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The cell of a row: `None` where the file has null or nothing (JSONL, Parquet) or there is no such row. A CSV
    /// cell is never `None`, but may be empty.
    pub fn get(&self, row: usize) -> Option<&str> {
        let end = *self.ends.get(row)?;
        let start = if row == 0 { 0 } else { self.ends[row - 1] };
        (!self.null[row]).then(|| &self.text[start..end])
    }

    fn push(&mut self, cell: Option<&str>) {
        self.text.push_str(cell.unwrap_or_default());
        self.ends.push(self.text.len());
        self.null.push(cell.is_none());
    }
}

/// How rows are counted in messages.
#[derive(Debug, Clone)]
pub(crate) enum Lines {
    /// The line on which each row starts.
    Of(Vec<u64>),
    /// Rows have numbers only.
    None(usize),
}

/// A table of strings, read from a file and complete in memory.
#[derive(Debug, Clone)]
pub struct Table {
    pub(crate) file: Arc<str>,
    columns: Vec<Column>,
    // Names of every column of the file, those that were not selected too: what an error lists.
    names: Vec<String>,
    lines: Lines,
    digest: String,
}

impl Table {
    /// Reads a file; the format comes from the ending unless the options give one. A folder whose subfolders hold the
    /// images of a class each is a table of the columns `image` and `label`. All cells stay strings: JSON
    /// numbers as they are written, Parquet integers in decimal, floats in the shortest form that reads back the
    /// same (`1.0`, `0.1`), booleans as `true` and `false`, dates as ISO 8601.
    ///
    /// # Errors
    /// Whatever is wrong with the file, with its line; see [`DataError`].
    pub fn read(path: impl AsRef<Path>, options: &ReadOptions) -> Result<Table, DataError> {
        crate::read::read(path.as_ref(), options)
    }

    /// A table of rows that came from no file, such as arguments; `origin` stands for the file in messages.
    ///
    /// # Errors
    /// [`DataError::NoRows`] without rows, [`DataError::FieldCount`] for a row that is not as wide as `columns`.
    pub fn from_rows(origin: &str, columns: &[&str], rows: &[Vec<String>]) -> Result<Table, DataError> {
        let mut builder = Builder::new(origin.into(), false, None, Limits::default());
        let mut hasher = blake3::Hasher::new();
        for column in columns {
            builder.add_column(column, 0)?;
        }
        for row in rows {
            if row.len() != columns.len() {
                return Err(DataError::FieldCount {
                    place: builder.place(0),
                    found: row.len(),
                    expected: columns.len(),
                    columns: columns.join(", "),
                    delimiter: ',',
                });
            }
            for (index, cell) in row.iter().enumerate() {
                hasher.update(&(cell.len() as u64).to_le_bytes());
                hasher.update(cell.as_bytes());
                builder.set(index, Some(cell), 0)?;
            }
            builder.end_row(0)?;
        }
        builder.finish(format!("blake3:{}", hasher.finalize().to_hex()))
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        match &self.lines {
            Lines::Of(lines) => lines.len(),
            Lines::None(rows) => *rows,
        }
    }

    /// True without rows (reading such a file is an error, so this is never true of a file).
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The file as it was named.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// `blake3:` and the hexadecimal digest of the file's bytes.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Names of the columns that were read.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(Column::name)
    }

    /// The column of that name.
    ///
    /// # Errors
    /// [`DataError::NoColumn`], which lists the columns there are and the nearest.
    pub fn column(&self, name: &str) -> Result<&Column, DataError> {
        self.column_for(name, None)
    }

    pub(crate) fn column_for(&self, name: &str, field: Option<&str>) -> Result<&Column, DataError> {
        let found = self.columns.iter().find(|c| c.name == name);
        found.ok_or_else(|| no_column(&self.file, name, field, &self.names))
    }

    /// Where a row stands in the file.
    pub fn place(&self, row: usize) -> Place {
        match &self.lines {
            Lines::Of(lines) => {
                Place::Line { file: self.file.clone(), line: lines.get(row).copied().unwrap_or_default() }
            }
            Lines::None(_) => Place::Row { file: self.file.clone(), row: row as u64 + 1 },
        }
    }

    /// A column of finite numbers, one for each row.
    ///
    /// # Errors
    /// [`DataError::NotANumber`] or [`DataError::Missing`] with the row's place, [`DataError::NoColumn`].
    pub fn numbers(&self, column: &str) -> Result<Vec<f64>, DataError> {
        let cells = self.column(column)?;
        let number = |row: usize| {
            let value = cells.get(row).ok_or_else(|| DataError::Missing {
                place: self.place(row),
                column: column.to_owned(),
                field: column.to_owned(),
            })?;
            value.trim().parse::<f64>().ok().filter(|v| v.is_finite()).ok_or_else(|| DataError::NotANumber {
                place: self.place(row),
                column: column.to_owned(),
                value: value.chars().take(60).collect(),
            })
        };
        (0..self.len()).map(number).collect()
    }
}

/// Fills a table row by row; columns may appear at any time and are null in the rows before.
pub(crate) struct Builder {
    pub(crate) file: Arc<str>,
    pub(crate) limits: Limits,
    columns: Vec<Column>,
    // For every name of the file, in order: where it goes, or `None` if it was not selected.
    names: indexmap::IndexMap<String, Option<usize>>,
    select: Option<Vec<String>>,
    lines: Lines,
    rows: usize,
}

impl Builder {
    pub(crate) fn new(file: Arc<str>, lines: bool, select: Option<Vec<String>>, limits: Limits) -> Builder {
        let lines = if lines { Lines::Of(Vec::new()) } else { Lines::None(0) };
        Builder { file, limits, columns: Vec::new(), names: Default::default(), select, lines, rows: 0 }
    }

    /// The place of the row that is being filled, which starts on `line` (ignored where rows have no lines).
    pub(crate) fn place(&self, line: u64) -> Place {
        match self.lines {
            Lines::Of(_) => Place::Line { file: self.file.clone(), line },
            Lines::None(_) => Place::Row { file: self.file.clone(), row: self.rows as u64 + 1 },
        }
    }

    /// True if cells of a column with that name are kept.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.select.as_ref().is_none_or(|s| s.iter().any(|n| n == name))
    }

    /// Declares a column of the file.
    pub(crate) fn add_column(&mut self, name: &str, line: u64) -> Result<(), DataError> {
        if self.names.contains_key(name) {
            return Err(DataError::DuplicateColumn { place: self.place(line), column: name.to_owned() });
        }
        if self.names.len() >= self.limits.columns {
            let (count, limit) = (self.names.len() + 1, self.limits.columns);
            return Err(DataError::TooManyColumns { place: self.place(line), count, limit });
        }
        let index = self.wants(name).then_some(self.columns.len());
        self.names.insert(name.to_owned(), index);
        if index.is_some() {
            let (ends, null) = (vec![0; self.rows], vec![true; self.rows]);
            self.columns.push(Column { name: name.to_owned(), text: String::new(), ends, null });
        }
        Ok(())
    }

    /// Number of columns that the file was found to have.
    pub(crate) fn width(&self) -> usize {
        self.names.len()
    }

    /// The file's column of that name, by position.
    pub(crate) fn index_of(&self, name: &str) -> Option<usize> {
        self.names.get_index_of(name)
    }

    /// The names of the file's columns for a message.
    pub(crate) fn listed(&self) -> String {
        self.names.keys().take(20).map(String::as_str).collect::<Vec<_>>().join(", ")
    }

    /// Sets the cell of the current row in the file's column `index`. False if it was set before in this row.
    pub(crate) fn set(&mut self, index: usize, cell: Option<&str>, line: u64) -> Result<bool, DataError> {
        let size = cell.map_or(0, str::len);
        let Some((name, target)) = self.names.get_index(index) else { return Ok(true) };
        if size > self.limits.field_bytes {
            let (place, column) = (self.place(line), name.clone());
            return Err(DataError::FieldTooLarge { place, column, size, limit: self.limits.field_bytes });
        }
        let Some(target) = *target else { return Ok(true) };
        let column = &mut self.columns[target];
        if column.ends.len() > self.rows {
            return Ok(false);
        }
        column.push(cell);
        Ok(true)
    }

    /// Ends the current row; columns that were not set are null.
    pub(crate) fn end_row(&mut self, line: u64) -> Result<(), DataError> {
        if self.rows >= self.limits.rows {
            return Err(DataError::TooManyRows { file: self.file.clone(), limit: self.limits.rows });
        }
        self.rows += 1;
        for column in self.columns.iter_mut().filter(|c| c.ends.len() < self.rows) {
            column.push(None);
        }
        match &mut self.lines {
            Lines::Of(lines) => lines.push(line),
            Lines::None(rows) => *rows += 1,
        }
        Ok(())
    }

    /// The finished table.
    pub(crate) fn finish(self, digest: String) -> Result<Table, DataError> {
        let names: Vec<String> = self.names.into_keys().collect();
        if let Some(missing) = self.select.iter().flatten().find(|s| !names.is_empty() && !names.contains(s))
        {
            return Err(no_column(&self.file, missing, None, &names));
        }
        if self.rows == 0 {
            return Err(DataError::NoRows { file: self.file });
        }
        Ok(Table { file: self.file, columns: self.columns, names, lines: self.lines, digest })
    }
}
