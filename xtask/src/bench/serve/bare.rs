//! The same batches without a server: the example `bare` of the package `graft-tasks`.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};
use std::time::Duration;

use super::server::number;
use crate::bench::{Bench, Figures, figures};
use crate::error::{Error, Result};
use crate::fetch::ORT_DYLIB_PATH;
use crate::process::{self, cargo};

/// How long ONNX Runtime's threads may look for work after a run, on processors that somebody else is measured on next.
const SETTLE: Duration = Duration::from_millis(500);

/// A process that runs batches of a folder's adapters when it is told to, and ends with this.
pub struct Bare<'a> {
    bench: &'a Bench<'a>,
    command: String,
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Bare<'_> {
    /// Starts one.
    ///
    /// # Errors
    /// Where it can't be started.
    pub fn start<'a>(bench: &'a Bench<'a>, adapters: &Path) -> Result<Bare<'a>> {
        let mut command = cargo();
        command.current_dir(&bench.paths.root).env(ORT_DYLIB_PATH, &bench.fetched.library);
        command.args(["run", "--release", "--quiet", "-p", "graft-tasks", "--example", "bare", "--"]);
        command.arg(bench.base()).arg(bench.paths.outputs("release")).arg(adapters);
        command.arg(bench.threads.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let line = process::shown(&command);
        eprintln!("\n$ {line}");
        let failed = |source| Error::Start { program: line.clone(), source };
        let mut child = command.spawn().map_err(failed)?;
        let said = child.stdout.take().ok_or_else(|| failed(std::io::ErrorKind::BrokenPipe.into()))?;
        Ok(Bare { bench, command: line, child, said: BufReader::new(said) })
    }

    /// Rows with adapters, for so many seconds.
    ///
    /// # Errors
    /// When the run fails.
    pub fn banks(&mut self, rows: usize, tokens: usize, seconds: f64) -> Result<Times> {
        self.times("banks", rows, tokens, seconds)
    }

    /// The same rows by the base alone.
    ///
    /// # Errors
    /// When the run fails.
    pub fn base(&mut self, rows: usize, tokens: usize, seconds: f64) -> Result<Times> {
        self.times("base", rows, tokens, seconds)
    }

    fn times(&mut self, what: &str, rows: usize, tokens: usize, seconds: f64) -> Result<Times> {
        let found = self.ask(&format!("{what} {rows}x{tokens} {seconds}"))?;
        let get = |key| number(&found, key);
        Ok(Times {
            middle: get("middle_ms"),
            rows_per_second: get("mean_ms").map(|ms| rows as f64 / ms * 1e3),
        })
    }

    /// Tokens a second of a file's texts in sorted batches, padding not included.
    ///
    /// # Errors
    /// When the run fails.
    pub fn sorted_tokens(&mut self, texts: &Path) -> Result<Option<f64>> {
        let found = self.ask(&format!("sorted {}", texts.display()))?;
        let get = |key| number(&found, key);
        Ok(get("tokens").zip(get("seconds")).map(|(tokens, seconds)| tokens / seconds))
    }

    fn ask(&mut self, what: &str) -> Result<Figures> {
        let asked = format!("{}: {what}", self.command);
        let told = self.child.stdin.as_mut().is_some_and(|to| writeln!(to, "{what}").is_ok());
        let mut line = String::new();
        if !told || self.said.read_line(&mut line).is_err() || line.is_empty() {
            return Err(Error::Failed { command: asked, status: "it ended".into() });
        }
        let found = figures::json_object(&line)
            .ok_or_else(|| Error::Figures { command: asked.clone(), printed: line })?;
        self.bench.note("serve", &asked, &found)?;
        std::thread::sleep(SETTLE);
        Ok(found)
    }
}

impl Drop for Bare<'_> {
    fn drop(&mut self) {
        // It ends with its input.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// What runs took.
pub struct Times {
    /// Milliseconds of the run in the middle.
    pub middle: Option<f64>,
    /// Over all runs.
    pub rows_per_second: Option<f64>,
}
