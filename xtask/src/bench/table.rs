//! Markdown tables.

use std::fmt;

/// A table whose columns are padded, so that the text reads as well as what is made of it.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these column heads.
    pub fn new<const N: usize>(head: [&str; N]) -> Table {
        Table { rows: vec![head.map(str::to_owned).to_vec()] }
    }

    /// Adds a row; the cells behind the last one given are blank.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.to_vec());
    }

    /// Whether there is nothing below the head.
    pub fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows[0].len();
        let cell = |row: &[String], c: usize| row.get(c).map_or("", String::as_str).replace('|', "\\|");
        let width = |c: usize| self.rows.iter().map(|r| cell(r, c).chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for (i, row) in self.rows.iter().enumerate() {
            let cells: Vec<String> =
                (0..columns).map(|c| format!("{:<1$}", cell(row, c), widths[c])).collect();
            writeln!(f, "| {} |", cells.join(" | "))?;
            if i == 0 {
                let rules: Vec<String> = widths.iter().map(|w| "-".repeat((*w).max(3))).collect();
                writeln!(f, "| {} |", rules.join(" | "))?;
            }
        }
        Ok(())
    }
}

/// A number with so many decimals, or a dash where it is not known.
pub fn number(value: Option<f64>, decimals: usize) -> String {
    value.filter(|v| v.is_finite()).map_or_else(|| "–".into(), |v| format!("{v:.decimals$}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_markdown_with_aligned_columns() {
        let mut table = Table::new(["side", "samples/s"]);
        table.row(["Graft".into(), "210".into()]);
        table.row(["PEFT|CPU".into()]);
        let expected = "| side      | samples/s |\n| --------- | --------- |\n\
                        | Graft     | 210       |\n| PEFT\\|CPU |           |\n";
        assert_eq!(table.to_string(), expected);
    }

    #[test]
    fn what_is_not_known_is_a_dash() {
        assert_eq!(number(None, 1), "–");
        assert_eq!(number(Some(f64::NAN), 1), "–");
        assert_eq!(number(Some(1.25), 1), "1.2");
    }
}
