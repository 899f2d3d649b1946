//! The steps of a chore and how long each took.

use std::fmt;
use std::time::{Duration, Instant};

use crate::error::Result;

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It did its work.
    Done,
    /// All was there already.
    Skipped,
}

/// A list of steps with their times; shown as a table.
#[derive(Default)]
pub struct Steps {
    rows: Vec<(String, Outcome, Duration)>,
}

impl Steps {
    /// Announces `name`, runs `work` and notes what it took.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn step<T>(&mut self, name: &str, work: impl FnOnce() -> Result<(T, Outcome)>) -> Result<T> {
        eprintln!("\n── {name}");
        let start = Instant::now();
        let (value, outcome) = work()?;
        self.rows.push((name.to_owned(), outcome, start.elapsed()));
        Ok(value)
    }

    /// The time of all steps together.
    pub fn total(&self) -> Duration {
        self.rows.iter().map(|row| row.2).sum()
    }

    /// The time of the steps behind the one called `name`.
    pub fn after(&self, name: &str) -> Duration {
        self.rows.iter().skip_while(|row| row.0 != name).skip(1).map(|row| row.2).sum()
    }
}

impl fmt::Display for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.rows.iter().map(|row| row.0.chars().count()).max().unwrap_or(0).max("all".len());
        for (name, outcome, took) in &self.rows {
            let note = if *outcome == Outcome::Skipped { "  (there already)" } else { "" };
            writeln!(f, "  {name:<width$}  {:>7.1} s{note}", took.as_secs_f64())?;
        }
        write!(f, "  {:<width$}  {:>7.1} s", "all", self.total().as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_what_was_there_already() {
        let mut steps = Steps::default();
        steps.rows.push(("fetch".into(), Outcome::Skipped, Duration::from_millis(40)));
        steps.rows.push(("build".into(), Outcome::Done, Duration::from_millis(61_500)));
        steps.rows.push(("train".into(), Outcome::Done, Duration::from_secs(2)));
        let table = steps.to_string();
        assert_eq!(
            table,
            "  fetch      0.0 s  (there already)\n  build     61.5 s\n  train      2.0 s\n  all       63.5 s"
        );
        assert_eq!(steps.after("build"), Duration::from_secs(2));
    }
}
