//! `metrics.jsonl`: one JSON object a line, a header first.
//!
//! The first line of a file is `{"format":"graft.metrics","version":1,…}`; each further one has `"kind"`: `start`,
//! `step`, `epoch`, `penalty`, `solved` or `finish`. Steps and epochs count from 1. Numbers that are not finite are `null`.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::error::TrainError;
use crate::observe::{Event, Observer};
use crate::report::Ended;

/// The version in the header.
pub const METRICS_VERSION: u32 = 1;

/// Appends a run to a `metrics.jsonl`, each line written out at once.
pub struct MetricsFile {
    path: PathBuf,
    file: File,
}

impl MetricsFile {
    /// Opens the file to append to it; a new or empty one gets the header. A last line that was cut off is ended.
    ///
    /// # Errors
    /// [`TrainError::Write`].
    pub fn open(path: &Path) -> Result<Self, TrainError> {
        let failed = |source| TrainError::Write { path: path.into(), source };
        let (file, empty) = open_appending(path).map_err(failed)?;
        let mut m = MetricsFile { path: path.into(), file };
        if empty {
            m.line(&json!({ "format": "graft.metrics", "version": METRICS_VERSION }))?;
        }
        Ok(m)
    }

    /// Appends one object, whatever it holds.
    ///
    /// # Errors
    /// [`TrainError::Write`].
    pub fn line(&mut self, value: &Value) -> Result<(), TrainError> {
        let mut text = value.to_string();
        text.push('\n');
        let done = self.file.write_all(text.as_bytes()).and_then(|()| self.file.flush());
        done.map_err(|source| TrainError::Write { path: self.path.clone(), source })
    }
}

fn open_appending(path: &Path) -> io::Result<(File, bool)> {
    let mut file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
    if file.metadata()?.len() == 0 {
        return Ok((file, true));
    }
    let mut last = [0u8];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    if last != *b"\n" {
        file.write_all(b"\n")?;
    }
    Ok((file, false))
}

fn ended(e: Ended) -> &'static str {
    match e {
        Ended::Complete => "complete",
        Ended::Early => "early",
        Ended::Interrupted => "interrupted",
    }
}

impl Observer for MetricsFile {
    fn observe(&mut self, event: &Event<'_>) -> Result<(), TrainError> {
        let line = match event {
            Event::Start { steps, epochs, trainable } => {
                json!({ "kind": "start", "steps": steps, "epochs": epochs, "trainable_parameters": trainable })
            }
            Event::Step(r) => json!({
                "kind": "step", "step": r.step, "epoch": r.epoch, "loss": r.loss, "lr": r.lr,
                "grad_norm": r.grad_norm, "samples": r.samples, "seconds": r.seconds,
            }),
            Event::Epoch { record: r, .. } => json!({
                "kind": "epoch", "epoch": r.epoch, "step": r.step, "train_loss": r.train_loss,
                "evaluation": r.evaluation, "improved": r.improved, "seconds": r.seconds,
                "samples_per_second": r.samples_per_second,
            }),
            Event::Penalty(r) => json!({
                "kind": "penalty", "l2": r.l2, "held_out_loss": r.loss, "held_out_accuracy": r.accuracy,
                "iterations": r.iterations,
            }),
            Event::Solved { optimum: o, .. } => json!({
                "kind": "solved", "l2": o.l2, "loss": o.loss, "folds": o.folds, "iterations": o.iterations,
                "gradient": o.gradient, "converged": o.converged, "seconds": o.seconds,
            }),
            Event::Finish(r) => {
                let mut line = Map::from_iter([("kind".to_string(), json!("finish"))]);
                line.insert("ended".into(), json!(ended(r.ended)));
                line.insert("steps".into(), json!(r.steps));
                line.insert("epochs".into(), json!(r.epochs));
                line.insert("kept_epoch".into(), json!(r.kept_epoch()));
                line.insert("train_seconds".into(), json!(r.train_seconds));
                line.insert("samples_per_second".into(), json!(r.samples_per_second));
                line.insert("evaluation".into(), json!(r.evaluation));
                Value::Object(line)
            }
        };
        self.line(&line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::StepRecord;

    fn step(loss: f64) -> StepRecord {
        StepRecord { step: 1, epoch: 1, loss, lr: 0.1, grad_norm: 2.0, samples: 32, seconds: 0.5 }
    }

    fn lines(path: &Path) -> Vec<Value> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    }

    #[test]
    fn a_file_begins_with_its_format_and_grows_line_by_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let mut m = MetricsFile::open(&path).unwrap();
        assert_eq!(lines(&path), [json!({ "format": "graft.metrics", "version": 1 })]);
        m.observe(&Event::Step(&step(0.1 + 0.2))).unwrap();
        // Visible while the file is still open, and with every digit.
        assert_eq!(lines(&path)[1]["loss"], json!(0.1 + 0.2));
        m.observe(&Event::Step(&step(f64::NAN))).unwrap();
        assert_eq!(lines(&path)[2]["loss"], Value::Null);
    }

    #[test]
    fn appending_keeps_what_is_there_and_ends_a_broken_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        std::fs::write(&path, "{\"format\":\"graft.metrics\",\"version\":1}\n{\"kind\":\"st").unwrap();
        MetricsFile::open(&path).unwrap().observe(&Event::Step(&step(1.0))).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let all: Vec<&str> = text.lines().collect();
        assert_eq!((all.len(), all[1]), (3, "{\"kind\":\"st"));
        assert!(serde_json::from_str::<Value>(all[2]).is_ok());
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let e = MetricsFile::open(&dir.path().join("none/metrics.jsonl")).err().unwrap();
        assert!(e.to_string().contains("metrics.jsonl"), "{e}");
    }
}
