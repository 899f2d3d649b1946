//! What batches take without a server, beside the base's file as ONNX Runtime runs it:
//! `bare BASE PLUGINS ADAPTERS THREADS`, which prints a JSON object for each line that it reads:
//!
//! - `base ROWSxTOKENS SECONDS`: the base's file alone, `{"runs": …, "middle_ms": …, "mean_ms": …}`;
//! - `banks ROWSxTOKENS SECONDS`: the same rows with the adapters of the folder ADAPTERS in turn, each run beginning with the one
//!   after the last run's;
//! - `sorted FILE`: the file's texts, one a line, with these adapters in batches of 32 that are sorted by length,
//!   `{"texts": …, "tokens": …, "seconds": …}`, padding not counted.
//!
//! So it can take turns with another process: of two that are measured one after the other, the second may find a slower machine.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use graft_data::Encoding;
use graft_graph::model::Role;
use graft_graph::{Tensor, onnx};
use graft_runtime::{Runtime, RuntimeOptions, SessionOptions, View};
use graft_tasks::{Banks, Base, BaseOptions, Examples, Fitted, Intake, Parts, Program, Room, Tenant};
use serde_json::{Value, json};

type Any<T> = Result<T, Box<dyn std::error::Error>>;
type Inputs = HashMap<String, Tensor>;

/// Rows of the sorted batches.
const ROWS: usize = 32;
/// Adapters that take turns.
const MOST: usize = 32;
/// Runs that are not counted.
const FIRST: usize = 3;

fn main() -> Any<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [base, plugins, adapters, threads] = args.as_slice() else {
        return Err("BASE PLUGINS ADAPTERS THREADS".into());
    };
    let threads: usize = threads.parse()?;
    let runtime = Runtime::start(&RuntimeOptions { threads: Some(threads), ..RuntimeOptions::default() })?;
    let base = Base::open(runtime, Path::new(base), &BaseOptions::default())?;
    let options = SessionOptions { threads: Some(threads), ..SessionOptions::default() };
    let all = parts(&base, Path::new(adapters), &[PathBuf::from(plugins)])?;
    let tenants: Vec<Tenant<'_>> =
        all.iter().enumerate().map(|(i, parts)| Tenant { id: 1 + i as u64, parts }).collect();
    let rows = |from: usize, n: usize| -> Vec<Tenant<'_>> {
        tenants.iter().copied().cycle().skip(from % tenants.len()).take(n).collect()
    };
    // A server's next row is of another adapter, whose numbers are in no cache.
    let mut next = 0;
    let mut open = None;
    for line in std::io::stdin().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        if words.first() != Some(&"base") && open.is_none() {
            open = Some(banks(&base, &tenants, &options)?);
        }
        let said = match (words.as_slice(), &mut open) {
            (["base", shape, seconds], open) => {
                // One session at a time: the threads of two look for work on the same processors.
                *open = None;
                let mut plain = Program::new(&base, &onnx::read(&base.path)?, &options)?;
                timed(shape, seconds, &base, &mut |batch, _| {
                    drop(plain.run(&|name| batch.get(name).map(View::from))?);
                    Ok(())
                })?
            }
            (["banks", shape, seconds], Some(banks)) => timed(shape, seconds, &base, &mut |batch, n| {
                drop(banks.run(batch, &rows(next, n))?);
                next += n;
                Ok(())
            })?,
            (["sorted", ..], Some(banks)) => {
                let file = line.trim_start().trim_start_matches("sorted").trim();
                sorted(&base, &std::fs::read_to_string(file)?, banks, &|n| rows(0, n))?
            }
            _ => return Err(format!("{line}: not a line that is known").into()),
        };
        println!("{said}");
    }
    Ok(())
}

/// All adapters in one session.
fn banks(base: &Base, tenants: &[Tenant<'_>], options: &SessionOptions) -> Any<Banks> {
    let fragments: Vec<_> = tenants.iter().flat_map(|t| t.parts.fragments().cloned()).collect();
    let mut banks = Banks::new(Room::new(base, &fragments, options)?);
    tenants.iter().try_for_each(|tenant| banks.place(base, tenant))?;
    Ok(banks)
}

/// Runs a batch of this shape for so many seconds, once at least.
fn timed(
    shape: &str,
    seconds: &str,
    base: &Base,
    run: &mut dyn FnMut(&Inputs, usize) -> Any<()>,
) -> Any<Value> {
    let (n, tokens) = shape.split_once('x').ok_or("a shape is like 32x64")?;
    let (n, tokens): (usize, usize) = (n.parse()?, tokens.parse()?);
    let seconds = Duration::try_from_secs_f64(seconds.parse()?)?;
    let batch = batch(base, n, tokens)?;
    (0..FIRST).try_for_each(|_| run(&batch, n))?;
    let (all, mut times) = (Instant::now(), Vec::new());
    while times.is_empty() || all.elapsed() < seconds {
        let began = Instant::now();
        run(&batch, n)?;
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    Ok(json!({ "runs": times.len(), "mean_ms": mean(&times), "middle_ms": middle(times) }))
}

/// The first adapters of a folder, by name.
fn parts(base: &Base, folder: &Path, plugins: &[PathBuf]) -> Any<Vec<Parts>> {
    let mut dirs: Vec<PathBuf> =
        std::fs::read_dir(folder)?.map(|e| Ok(e?.path())).collect::<std::io::Result<_>>()?;
    dirs.retain(|d| d.join("adapter_config.json").is_file());
    dirs.sort();
    let one = |dir: &PathBuf| -> Any<Parts> {
        Ok(Fitted::open(base, &graft_adapters::load(dir)?, plugins)?.parts(base)?)
    };
    let all = dirs.iter().take(MOST).map(one).collect::<Any<Vec<Parts>>>()?;
    if all.is_empty() { Err(format!("no adapter in {}", folder.display()).into()) } else { Ok(all) }
}

fn batch(base: &Base, rows: usize, tokens: usize) -> Any<Inputs> {
    let ids: Vec<i64> = (0..rows * tokens).map(|i| 1000 + (i as i64 * 7919) % 20000).collect();
    let ids = Tensor::new([rows, tokens], &ids)?;
    let name = base.model.input(Role::Ids).map(|v| base.graph.name_of(v).to_string());
    let mut batch: Inputs = name.into_iter().map(|n| (n, ids.clone())).collect();
    let implied = base.imply_inputs(&|n| batch.get(n).cloned())?;
    batch.extend(implied);
    Ok(batch)
}

/// Runs texts in sorted batches: how many tokens, padding not included, in how many seconds.
fn sorted<'a>(
    base: &Base,
    texts: &str,
    banks: &mut Banks,
    rows: &dyn Fn(usize) -> Vec<Tenant<'a>>,
) -> Any<Value> {
    let Intake::Text(tokenizer) = Intake::open(base)? else { return Err("not a base of texts".into()) };
    let texts: Vec<String> = texts.lines().filter(|l| !l.trim().is_empty()).map(str::to_owned).collect();
    let longest = base.max_length(None, 0)?;
    let mut examples = Examples::of_texts(&texts, None, &tokenizer, longest)?;
    let length = |e: &Encoding| e.ids.len();
    examples.encodings.sort_by_key(length);
    let order: Vec<usize> = (0..examples.len()).collect();
    let batches: Vec<(Inputs, Vec<Tenant<'_>>)> = order
        .chunks(ROWS)
        .map(|chunk| {
            let made = examples.base_batch(base, chunk, tokenizer.pad_id(), None)?;
            Ok((made.tensors, rows(chunk.len())))
        })
        .collect::<Any<_>>()?;
    // Every shape once before the clock starts.
    for (batch, own) in &batches {
        drop(banks.run(batch, own)?);
    }
    let began = Instant::now();
    for (batch, own) in &batches {
        drop(banks.run(batch, own)?);
    }
    let seconds = began.elapsed().as_secs_f64();
    let tokens: usize = examples.encodings.iter().map(length).sum();
    Ok(json!({ "texts": texts.len(), "tokens": tokens, "seconds": seconds }))
}

fn mean(times: &[f64]) -> f64 {
    times.iter().sum::<f64>() / times.len() as f64
}

fn middle(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}
