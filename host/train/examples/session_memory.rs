//! Memory that the sessions of one base add: `session_memory BASE shared|alone [SESSIONS] [THREADS]`, with weights shared
//! as Graft does or each built by ONNX Runtime from the model file alone. Each runs once on 32 × 64 tokens. Prints one
//! JSON object with the megabytes of resident memory that each one added. One way at a time, for what a session frees
//! stays with the process, and the next one would seem to take less.

use std::error::Error;

use graft_graph::Tensor;
use graft_runtime::{Runtime, RuntimeOptions, Session, SessionOptions, SessionSource, rss_mb};
use graft_tasks::{Base, BaseOptions};
use serde_json::json;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const USAGE: &str = "usage: session_memory BASE shared|alone [SESSIONS] [THREADS]";

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or(USAGE)?;
    let share = match args.next().as_deref() {
        Some("shared") => true,
        Some("alone") => false,
        _ => return Err(USAGE.into()),
    };
    let count: usize = args.next().map_or(Ok(3), |n| n.parse())?;
    let threads: usize = args.next().map_or(Ok(2), |n| n.parse())?;
    let runtime = Runtime::start(&RuntimeOptions { threads: Some(threads), ..RuntimeOptions::default() })?;
    let base = Base::open(runtime, path.as_ref(), &BaseOptions::default())?;
    let ids = Tensor::new([32, 64], &vec![2000i64; 32 * 64])?;
    let mut inputs = base.imply_inputs(&|name| (name == "input_ids").then(|| ids.clone()))?;
    inputs.push(("input_ids".into(), ids.clone()));

    let options = SessionOptions::default();
    let sessions = measure(count, &inputs, || {
        if share {
            return Ok(base.session(&base.graph, &options)?);
        }
        let source = SessionSource {
            proto: std::fs::read(&base.path)?,
            weights: None,
            external_dir: Some(base.dir.canonicalize()?),
        };
        Ok(Session::new(runtime, &source, &options)?)
    })?;
    println!("{}", json!({ "threads": threads, "onnxruntime": runtime.version(), "sessions": sessions }));
    Ok(())
}

/// Makes and runs `count` sessions, keeps them all, and tells what each added: once loaded, and by its first run.
fn measure(
    count: usize,
    inputs: &[(String, Tensor)],
    make: impl Fn() -> Result<Session>,
) -> Result<Vec<serde_json::Value>> {
    let (mut kept, mut added) = (Vec::new(), Vec::new());
    let inputs: Vec<(&str, &Tensor)> = inputs.iter().map(|(n, t)| (n.as_str(), t)).collect();
    let now = || rss_mb().ok_or("this system does not tell the resident memory of a process");
    for _ in 0..count {
        let before = now()?;
        let mut session = make()?;
        let loaded = now()?;
        let output = session.outputs()[0].name.clone();
        drop(session.run(&inputs, &[&output])?);
        added.push(json!({ "loaded_mb": loaded - before, "first_run_mb": now()? - loaded }));
        kept.push(session);
    }
    Ok(added)
}
