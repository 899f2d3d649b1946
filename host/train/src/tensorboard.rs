//! TensorBoard event files: scalars only.
//!
//! A file is a sequence of TFRecords: length (u64, little-endian), masked CRC-32C of it, payload, masked CRC-32C of the
//! payload. A payload is a protobuf `tensorflow.Event`; the first has the file version alone.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message;

use crate::error::TrainError;
use crate::observe::{Observer, StepRecord};

/// `tensorflow.Event`, the fields used.
#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(oneof = "What", tags = "3, 5")]
    what: Option<What>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum What {
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    Summary(Summary),
}

/// `tensorflow.Summary`.
#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<SummaryValue>,
}

/// `tensorflow.Summary.Value` with `simple_value`.
#[derive(Clone, PartialEq, Message)]
struct SummaryValue {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

/// Writes the scalars of a run into a new event file.
pub struct EventFile {
    path: PathBuf,
    file: File,
}

impl EventFile {
    /// Begins `events.out.tfevents.SECONDS.graft.PROCESS` in `folder`, which must exist.
    ///
    /// # Errors
    /// [`TrainError::Write`].
    pub fn create(folder: &Path) -> Result<Self, TrainError> {
        let name = format!("events.out.tfevents.{:010}.graft.{}", now() as u64, std::process::id());
        let path = folder.join(name);
        let opened = OpenOptions::new().create(true).append(true).open(&path);
        let file = opened.map_err(|source| TrainError::Write { path: path.clone(), source })?;
        let mut events = EventFile { path, file };
        events.write(0, What::FileVersion("brain.Event:2".into()))?;
        Ok(events)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds scalars at a step.
    ///
    /// # Errors
    /// [`TrainError::Write`].
    pub fn scalars<'a>(
        &mut self,
        step: u64,
        values: impl IntoIterator<Item = (&'a str, f64)>,
    ) -> Result<(), TrainError> {
        let one = |(tag, v): (&str, f64)| SummaryValue { tag: tag.into(), simple_value: Some(v as f32) };
        self.write(step, What::Summary(Summary { value: values.into_iter().map(one).collect() }))
    }

    fn write(&mut self, step: u64, what: What) -> Result<(), TrainError> {
        let event =
            Event { wall_time: now(), step: i64::try_from(step).unwrap_or(i64::MAX), what: Some(what) };
        let done = self.file.write_all(&frame(&event.encode_to_vec()));
        done.map_err(|source| TrainError::Write { path: self.path.clone(), source })
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

/// CRC-32C, rotated and shifted so that the checksum of a record that holds checksums is not degenerate.
fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// A TFRecord.
fn frame(payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u64).to_le_bytes();
    let mut out = Vec::with_capacity(payload.len() + 16);
    out.extend_from_slice(&length);
    out.extend_from_slice(&masked_crc(&length).to_le_bytes());
    out.extend_from_slice(payload);
    out.extend_from_slice(&masked_crc(payload).to_le_bytes());
    out
}

impl Observer for EventFile {
    fn observe(&mut self, event: &crate::observe::Event<'_>) -> Result<(), TrainError> {
        use crate::observe::Event;
        match event {
            Event::Step(StepRecord { step, loss, lr, grad_norm, .. }) => self
                .scalars(*step, [("train/loss", *loss), ("train/lr", *lr), ("train/grad_norm", *grad_norm)]),
            Event::Epoch { record, .. } => {
                let tags: Vec<(String, f64)> =
                    record.evaluation.iter().flatten().map(|(k, v)| (format!("eval/{k}"), *v)).collect();
                let scalars = tags.iter().map(|(k, v)| (k.as_str(), *v));
                self.scalars(
                    record.step,
                    scalars.chain([("train/samples_per_second", record.samples_per_second)]),
                )
            }
            Event::Start { .. } | Event::Penalty(_) | Event::Solved { .. } | Event::Finish(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
