//! The same batches without a server: the example `bare` of the package `graft-tasks`.

use std::path::Path;

use serde_json::Value;

use crate::bench::Bench;
use crate::error::Result;
use crate::fetch::ORT_DYLIB_PATH;
use crate::process::cargo;

/// What the batches of a folder's adapters take.
pub struct Bare {
    shapes: Vec<Value>,
    sorted: Value,
}

impl Bare {
    /// Runs batches of these shapes (`32x16`), and the texts of a file, if given, in sorted ones.
    ///
    /// # Errors
    /// When the run fails.
    pub fn run(
        bench: &Bench<'_>,
        adapters: &Path,
        repeats: usize,
        texts: Option<&Path>,
        shapes: &[&str],
    ) -> Result<Bare> {
        let mut command = cargo();
        command.current_dir(&bench.paths.root).env(ORT_DYLIB_PATH, &bench.fetched.library);
        command.args(["run", "--release", "--quiet", "-p", "graft-tasks", "--example", "bare", "--"]);
        command.arg(bench.base()).arg(bench.paths.outputs("release")).arg(adapters);
        command.args([bench.threads, repeats].map(|n| n.to_string()));
        command.arg(texts.unwrap_or(Path::new("-"))).args(shapes);
        let found = bench.measure("serve", &mut command)?;
        let shapes = found.get("shapes").and_then(Value::as_array).cloned().unwrap_or_default();
        Ok(Bare { shapes, sorted: found.get("sorted").cloned().unwrap_or_default() })
    }

    /// Milliseconds of the base alone and of rows with adapters, in the middle.
    pub fn of(&self, rows: usize, tokens: usize) -> (Option<f64>, Option<f64>) {
        (self.ms(rows, tokens, "/base_ms/middle"), self.ms(rows, tokens, "/banks_ms/middle"))
    }

    /// Rows with adapters in a second, over all runs.
    pub fn rows_per_second(&self, rows: usize, tokens: usize) -> Option<f64> {
        self.ms(rows, tokens, "/banks_ms/mean").map(|ms| rows as f64 / ms * 1e3)
    }

    fn ms(&self, rows: usize, tokens: usize, which: &str) -> Option<f64> {
        let found = self.shapes.iter().find(|s| s["rows"] == rows && s["tokens"] == tokens);
        found?.pointer(which)?.as_f64()
    }

    /// Tokens a second of the sorted texts, padding not included.
    pub fn sorted_tokens(&self) -> Option<f64> {
        Some(self.sorted["tokens"].as_f64()? / self.sorted["seconds"].as_f64()?)
    }
}
