//! ONNX Runtime's profile, added up by operator.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;

use crate::error::{Result, RuntimeError};

/// Largest profile that is read, in bytes.
const LIMIT: u64 = 1 << 30;

/// Time by operator, longest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Summary {
    /// One row for each operator.
    pub rows: Vec<Row>,
    /// Microseconds of all operators together.
    pub total_us: u64,
}

/// Time of one operator.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Operator, as ONNX Runtime runs it (after its fusions); `MemcpyFromHost` and `MemcpyToHost` are its copies to a device
    /// and back.
    pub op: String,
    /// Who runs it: `CPU`, `CUDA`, `Tensorrt`.
    pub provider: String,
    /// Number of calls.
    pub calls: u64,
    /// Microseconds of all calls.
    pub us: u64,
    /// Part of the total, 0 to 1.
    pub share: f64,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<32} {:<8} {:>8} {:>12} {:>8}", "operator", "runs on", "calls", "µs", "share")?;
        for r in &self.rows {
            let share = 100.0 * r.share;
            writeln!(f, "{:<32} {:<8} {:>8} {:>12} {share:>7.1}%", r.op, r.provider, r.calls, r.us)?;
        }
        write!(f, "{:<32} {:<8} {:>8} {:>12}", "all", "", "", self.total_us)
    }
}

#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    cat: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    dur: u64,
    #[serde(default)]
    args: Args,
}

#[derive(Deserialize, Default)]
struct Args {
    #[serde(default)]
    op_name: Option<String>,
    #[serde(default)]
    provider: Option<String>,
}

/// Adds up the kernel times in a profile that [`Session::finish_profile`](crate::Session::finish_profile) wrote.
///
/// # Errors
/// [`RuntimeError::Profile`] for a file that can't be read, is larger than 1 GiB or is no such profile.
pub fn summary(path: &Path) -> Result<Summary> {
    summary_by(path, |_, op| op.to_owned())
}

/// As [`summary`], with rows by whatever `key` makes of node name and operator: by node, layer or module.
///
/// # Errors
/// As [`summary`].
pub fn summary_by(path: &Path, key: impl Fn(&str, &str) -> String) -> Result<Summary> {
    let bad = |reason: String| RuntimeError::Profile { path: path.to_path_buf(), reason };
    let mut text = Vec::new();
    let file = fs::File::open(path).map_err(|e| bad(e.to_string()))?;
    file.take(LIMIT + 1).read_to_end(&mut text).map_err(|e| bad(e.to_string()))?;
    if text.len() as u64 > LIMIT {
        return Err(bad("it is larger than 1 GiB; profile fewer runs".into()));
    }
    let events: Vec<Event> = serde_json::from_slice(&text)
        .map_err(|e| bad(format!("it is not a profile of ONNX Runtime: {e}")))?;
    Ok(add_up(&events, key))
}

fn add_up(events: &[Event], key: impl Fn(&str, &str) -> String) -> Summary {
    let mut by: HashMap<(String, String), (u64, u64)> = HashMap::new();
    for e in events {
        let Some(node) = e.name.strip_suffix("_kernel_time").filter(|_| e.cat == "Node") else { continue };
        let provider = e.args.provider.as_deref().unwrap_or("?");
        let provider = provider.strip_suffix("ExecutionProvider").unwrap_or(provider).to_owned();
        let entry = by.entry((key(node, e.args.op_name.as_deref().unwrap_or("?")), provider)).or_default();
        entry.0 += 1;
        entry.1 = entry.1.saturating_add(e.dur);
    }
    let total_us = by.values().fold(0u64, |a, (_, us)| a.saturating_add(*us));
    let mut rows: Vec<Row> = by
        .into_iter()
        .map(|((op, provider), (calls, us))| Row {
            op,
            provider,
            calls,
            us,
            share: us as f64 / total_us.max(1) as f64,
        })
        .collect();
    rows.sort_by(|a, b| b.us.cmp(&a.us).then_with(|| (&a.op, &a.provider).cmp(&(&b.op, &b.provider))));
    Summary { rows, total_us }
}

/// Moves the file that ONNX Runtime wrote (it adds a time to the name) to where it was asked for.
pub(crate) fn put(written: &Path, wanted: &Path) -> Result<()> {
    fs::rename(written, wanted).map_err(|e| RuntimeError::Profile {
        path: wanted.to_path_buf(),
        reason: format!("{} could not be moved there: {e}", written.display()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_times_are_added_up_by_operator() {
        let t = tempfile::tempdir().unwrap();
        let path = t.path().join("p.json");
        fs::write(
            &path,
            r#"[{"cat":"Session","name":"model_run","dur":99},
            {"cat":"Node","name":"/a/MatMul_kernel_time","dur":30,"args":{"op_name":"MatMul","provider":"CUDAExecutionProvider"}},
            {"cat":"Node","name":"/b/MatMul_kernel_time","dur":45,"args":{"op_name":"MatMul","provider":"CUDAExecutionProvider"}},
            {"cat":"Node","name":"/b/MatMul_fence_before","dur":5,"args":{"op_name":"MatMul"}},
            {"cat":"Node","name":"/a/Add_kernel_time","dur":15,"args":{"op_name":"Add","provider":"CPUExecutionProvider"}},
            {"cat":"Node","name":"/a/Add_kernel_time","dur":10,"args":{"op_name":"Add"}}]"#,
        )
        .unwrap();
        let s = summary(&path).unwrap();
        assert_eq!(s.total_us, 100);
        assert_eq!(
            s.rows[0],
            Row { op: "MatMul".into(), provider: "CUDA".into(), calls: 2, us: 75, share: 0.75 }
        );
        assert_eq!((&s.rows[1].op[..], &s.rows[1].provider[..], s.rows[1].us), ("Add", "CPU", 15));
        let by_module = summary_by(&path, |node, _| node[..2].into()).unwrap();
        let on = |op: &str, provider: &str| {
            by_module.rows.iter().find(|r| r.op == op && r.provider == provider).map(|r| r.us)
        };
        assert_eq!((on("/b", "CUDA"), on("/a", "CUDA"), on("/a", "CPU")), (Some(45), Some(30), Some(15)));
        assert!(s.to_string().contains("75.0%"));
    }

    #[test]
    fn other_files_are_refused() {
        let t = tempfile::tempdir().unwrap();
        let path = t.path().join("p.json");
        fs::write(&path, "{\"a\": 1}").unwrap();
        assert!(matches!(summary(&path), Err(RuntimeError::Profile { .. })));
        assert!(matches!(summary(&t.path().join("none")), Err(RuntimeError::Profile { .. })));
    }
}
