//! Rows of several adapters in one batch, beside each adapter alone. `banks BASE PLUGINS TEXT ADAPTER…`

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Instant;

use graft_graph::Tensor;
use graft_runtime::{Runtime, RuntimeOptions, SessionOptions, View};
use graft_tasks::{Banks, Base, BaseOptions, Examples, Fitted, Intake, Room, Tenant};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let runtime = Runtime::start(&RuntimeOptions::default())?;
    let base = Base::open(runtime, args[0].as_ref(), &BaseOptions::default())?;
    let plugins = vec![PathBuf::from(&args[1])];
    let Intake::Text(tokenizer) = Intake::open(&base)? else { return Ok(()) };
    let options = SessionOptions::default();
    let mut all = Vec::new();
    for dir in &args[3..] {
        let fitted = Fitted::open(&base, &graft_adapters::load(dir.as_ref())?, &plugins)?;
        let began = Instant::now();
        match fitted.parts(&base) {
            Ok(parts) => {
                println!(
                    "{dir}: {} fragments, {:.1} ms",
                    parts.fragments().count(),
                    began.elapsed().as_secs_f64() * 1e3
                );
                all.push((fitted, parts));
            }
            Err(e) => println!("{dir}: {e}"),
        }
    }
    let fragments: Vec<_> = all.iter().flat_map(|(_, p)| p.fragments().cloned()).collect();
    let began = Instant::now();
    let room = Room::new(&base, &fragments, &options)?;
    println!("room {:.0} ms, {} nodes", began.elapsed().as_secs_f64() * 1e3, room.graph().nodes.len());
    let mut banks = Banks::new(room);
    for (i, (_, parts)) in all.iter().enumerate() {
        let began = Instant::now();
        banks.place(&base, &Tenant { id: i as u64, parts })?;
        println!(
            "placed {} in {:.2} ms, {} bytes",
            parts.name,
            began.elapsed().as_secs_f64() * 1e3,
            banks.bytes()
        );
    }
    let texts: Vec<String> = vec![args[2].clone(); all.len()];
    let examples = Examples::of_texts(&texts, None, &tokenizer, None)?;
    let rows: Vec<usize> = (0..all.len()).collect();
    let batch: HashMap<String, Tensor> = examples.base_batch(&base, &rows, 0, None)?.tensors;
    let tenants: Vec<Tenant<'_>> =
        all.iter().enumerate().map(|(i, (_, parts))| Tenant { id: i as u64, parts }).collect();
    let outputs = banks.run(&batch, &tenants)?;
    for (i, (fitted, parts)) in all.iter().enumerate() {
        let one: HashMap<String, Tensor> = examples.base_batch(&base, &[i], 0, None)?.tensors;
        let get = |name: &str| one.get(name).or_else(|| fitted.value(name)).map(View::from);
        let alone = fitted.program(&base, &options)?.run(&get)?;
        for (own, here, _) in banks.outputs(parts) {
            let (a, b) = (alone.f32s(&own)?, outputs.f32s(&here)?);
            let shape = outputs.shape(&here)?;
            let (width, own_width) =
                (shape[shape.len() - 1], alone.shape(&own)?.last().copied().unwrap_or(1));
            let per: usize = shape[1..].iter().product();
            let mine = b[i * per..][..per].chunks_exact(width).flat_map(|r| &r[..own_width]);
            let diff = a.iter().zip(mine).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
            println!("{} {own} {:?}: {diff:e}", parts.name, alone.shape(&own)?);
        }
    }
    Ok(())
}
