//! Words and tables on stdout: what a person reads, or one JSON object for scripts.

use std::fmt::Write as _;
use std::io::{self, ErrorKind, IsTerminal, Write};

use anyhow::Result;
use clap::builder::styling::Style;
use serde_json::Value as Json;

/// Text for stdout, put together section by section. Headings are bold on a terminal.
#[derive(Debug, Default)]
pub struct Page {
    text: String,
    bold: Style,
}

impl Page {
    /// An empty page for stdout.
    pub fn new() -> Page {
        let colours = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        Page { text: String::new(), bold: if colours { Style::new().bold() } else { Style::new() } }
    }

    /// A heading, with an empty line before it.
    pub fn heading(&mut self, text: &str) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.strong(text);
    }

    /// A line.
    pub fn line(&mut self, text: impl AsRef<str>) {
        self.text.push_str(&clean(text.as_ref()));
        self.text.push('\n');
    }

    /// Names and what they stand for, aligned.
    pub fn facts<K: AsRef<str>, V: AsRef<str>>(&mut self, facts: &[(K, V)]) {
        let width = facts.iter().map(|(k, _)| k.as_ref().chars().count()).max().unwrap_or(0);
        for (key, value) in facts {
            // Further lines of a value stand below its first.
            for (i, line) in value.as_ref().lines().enumerate() {
                let key = if i == 0 { key.as_ref() } else { "" };
                self.line(format!("{key:width$}  {line}").trim_end());
            }
        }
    }

    /// A table with its heading row.
    pub fn table(&mut self, table: &Table) {
        let mut lines = table.lines().into_iter();
        if let Some(head) = lines.next() {
            self.strong(&head);
        }
        lines.for_each(|l| self.line(l));
    }

    fn strong(&mut self, text: &str) {
        let (on, off) = (self.bold.render(), self.bold.render_reset());
        // Writing into a string can't fail.
        let _ = writeln!(self.text, "{on}{}{off}", clean(text));
    }

    /// Writes the page to stdout.
    ///
    /// # Errors
    /// When stdout can't be written to; a reader that has gone away (`| head`) is no error.
    pub fn show(&self) -> Result<()> {
        write_out(&self.text)
    }
}

/// Rows under headings. Columns of numbers are flush right.
#[derive(Debug)]
pub struct Table {
    head: Vec<&'static str>,
    numbers: Vec<bool>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings; a `#` before a heading marks a column of numbers.
    pub fn new(columns: &[&'static str]) -> Table {
        Table {
            head: columns.iter().map(|c| c.trim_start_matches('#')).collect(),
            numbers: columns.iter().map(|c| c.starts_with('#')).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row; cells that are missing are empty.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|c| clean(&c).replace('\n', " ")).collect());
    }

    fn lines(&self) -> Vec<String> {
        let head = self.head.iter().map(ToString::to_string).collect();
        let all: Vec<&Vec<String>> = std::iter::once(&head).chain(&self.rows).collect();
        let cell = |row: &[String], i: usize| row.get(i).cloned().unwrap_or_default();
        let width = |i: usize| all.iter().map(|r| cell(r, i).chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        let line = |row: &&Vec<String>| {
            let padded = widths.iter().enumerate().map(|(i, w)| match self.numbers[i] {
                true => format!("{:>w$}", cell(row, i)),
                false => format!("{:<w$}", cell(row, i)),
            });
            padded.collect::<Vec<_>>().join("  ").trim_end().to_string()
        };
        all.iter().map(line).collect()
    }
}

/// Writes one JSON object as the last line of stdout.
///
/// # Errors
/// When stdout can't be written to.
pub fn show_json(value: &Json) -> Result<()> {
    write_out(&format!("{value}\n"))
}

fn write_out(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(e.into()),
        _ => Ok(()),
    }
}

/// Names in files and plugins are not ours: control characters in them must not reach the terminal.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

/// A whole number with its thousands apart: `22,713,216`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(c);
    }
    text
}

/// Bytes in units of 1000: `90.9 MB`.
pub fn bytes(n: u64) -> String {
    let units = ["kB", "MB", "GB", "TB"];
    let mut value = n as f64 / 1e3;
    let mut unit = 0;
    // 999.95 would be written as 1000.0.
    while value >= 999.95 && unit + 1 < units.len() {
        value /= 1e3;
        unit += 1;
    }
    if n < 1000 { format!("{n} B") } else { format!("{value:.1} {}", units[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_numbers_flush_right() {
        let mut t = Table::new(&["name", "#count"]);
        t.row(["wörd".into(), "7".into()]);
        t.row(["a longer name".into(), "1,234".into()]);
        assert_eq!(t.lines(), ["name           count", "wörd               7", "a longer name  1,234"]);
    }

    #[test]
    fn a_row_with_fewer_cells_than_columns_is_filled_up() {
        let mut t = Table::new(&["a", "b"]);
        t.row(["x".into()]);
        assert_eq!(t.lines(), ["a  b", "x"]);
    }

    #[test]
    fn foreign_control_characters_do_not_reach_the_terminal() {
        let mut page = Page::default();
        page.line("a\x1b[31mb\r");
        page.facts(&[("key", "one\ntwo\x07")]);
        assert_eq!(page.text, "a\u{fffd}[31mb\u{fffd}\nkey  one\n     two\u{fffd}\n");
    }

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!([0, 999, 1000, 22_713_216].map(count), ["0", "999", "1,000", "22,713,216"]);
        assert_eq!(
            [0, 999, 1000, 999_949, 999_950, 90_852_864, u64::MAX].map(bytes),
            ["0 B", "999 B", "1.0 kB", "999.9 kB", "1.0 MB", "90.9 MB", "18446744.1 TB"]
        );
    }
}
