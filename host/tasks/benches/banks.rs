//! A batch of 32 rows with 32 distinct LoRAs on all linear layers beside the base alone, as ONNX Runtime runs its file:
//! `cargo bench -p graft-tasks --bench banks -- BASE PLUGINS [THREADS] [REPEATS]`. The runs of all sides take turns.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use graft_adapters::{ParamKey, PeftConfig, StoredAdapter};
use graft_graph::sites::{SiteKind, sites};
use graft_graph::{Tensor, onnx};
use graft_plugins::Objective;
use graft_runtime::{Runtime, RuntimeOptions, SessionOptions, View};
use graft_tasks::{Banks, Base, BaseOptions, Fitted, Parts, Program, Room, Tenant};

type Any<T> = Result<T, Box<dyn std::error::Error>>;
type Batch = HashMap<String, Tensor>;

const ROWS: usize = 32;

fn main() -> Any<()> {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let [base, plugins, rest @ ..] = args.as_slice() else { return Ok(()) };
    let number = |i: usize, default: usize| rest.get(i).and_then(|a| a.parse().ok()).unwrap_or(default);
    let (threads, repeats) = (number(0, 2), number(1, 40));
    let runtime = Runtime::start(&RuntimeOptions { threads: Some(threads), ..RuntimeOptions::default() })?;
    let base = Base::open(runtime, Path::new(base), &BaseOptions::default())?;
    let dirs = vec![PathBuf::from(plugins)];
    let options = SessionOptions { threads: Some(threads), ..SessionOptions::default() };

    // The file as it is, neither raised nor lowered.
    let file = onnx::read(&base.path)?;
    let mut plain = Program::new(&base, &file, &options)?;
    let embed = || Objective::find(&dirs, "embedding", &serde_json::json!({}));
    let bare = Fitted::with_objective(&base, None, embed()?, &dirs)?.parts(&base)?;
    let lora = |seed: u64, r: usize| -> Any<Parts> {
        let stored = adapter(&base, seed, r)?;
        Ok(Fitted::with_objective(&base, Some(&stored), embed()?, &dirs)?.parts(&base)?)
    };
    let same: Vec<Parts> = (0..ROWS as u64).map(|i| lora(i, 8)).collect::<Any<_>>()?;
    let mixed: Vec<Parts> =
        (0..ROWS as u64).map(|i| lora(100 + i, [4, 8, 16, 32, 64][i as usize % 5])).collect::<Any<_>>()?;
    let fragments: Vec<_> =
        [&bare, &same[0], &mixed[0]].into_iter().flat_map(|p| p.fragments().cloned()).collect();
    let mut banks = Banks::new(Room::new(&base, &fragments, &options)?);
    let all: Vec<Tenant<'_>> =
        same.iter().enumerate().map(|(i, parts)| Tenant { id: 1 + i as u64, parts }).collect();
    let ranks: Vec<Tenant<'_>> =
        mixed.iter().enumerate().map(|(i, parts)| Tenant { id: 1000 + i as u64, parts }).collect();
    let nobody: Vec<Tenant<'_>> = (0..ROWS).map(|_| Tenant { id: 0, parts: &bare }).collect();
    for tenant in all.iter().chain(&ranks).chain(&nobody) {
        banks.place(&base, tenant)?;
    }
    if let Some(path) = std::env::var_os("GRAFT_PROFILE") {
        let options = SessionOptions { profile: Some(path.into()), ..options.clone() };
        let mut banks = Banks::new(Room::new(&base, &fragments, &options)?);
        for tenant in &all {
            banks.place(&base, tenant)?;
        }
        let batch = batch(&base, 64)?;
        for _ in 0..5 {
            drop(banks.run(&batch, &all)?);
        }
        println!("{}", banks.session().finish_profile()?.display());
        return Ok(());
    }
    println!(
        "{threads} threads, {repeats} turns; best and middle run in ms, throughput relative to the base"
    );
    println!(
        "{:>7}  {:<14} {:>8} {:>8} {:>8} {:>8}",
        "tokens", "rows", "best", "middle", "of best", "of middle"
    );
    for tokens in [16usize, 64, 128] {
        let batch = batch(&base, tokens)?;
        let mut times: [Vec<f64>; 4] = Default::default();
        for turn in 0..repeats + 3 {
            for (side, times) in times.iter_mut().enumerate() {
                let began = Instant::now();
                match side {
                    0 => drop(plain.run(&|n| batch.get(n).map(View::from))?),
                    1 => drop(banks.run(&batch, &all)?),
                    2 => drop(banks.run(&batch, &ranks)?),
                    _ => drop(banks.run(&batch, &nobody)?),
                }
                if turn >= 3 {
                    times.push(began.elapsed().as_secs_f64() * 1e3);
                }
            }
        }
        let figures: Vec<(f64, f64)> = times
            .iter_mut()
            .map(|t| {
                t.sort_by(f64::total_cmp);
                (t[0], t[t.len() / 2])
            })
            .collect();
        for (name, (best, middle)) in
            ["base alone", "32 of r=8", "32 of r=4…64", "base rows"].iter().zip(&figures)
        {
            let (b, m) = (figures[0].0 / best, figures[0].1 / middle);
            println!("{tokens:>7}  {name:<14} {best:>8.2} {middle:>8.2} {b:>8.3} {m:>8.3}");
        }
    }
    Ok(())
}

/// A LoRA of rank `r` on all linear layers of the encoder, with random weights.
fn adapter(base: &Base, seed: u64, r: usize) -> Any<StoredAdapter> {
    let config = serde_json::json!({
        "peft_type": "LORA", "task_type": "FEATURE_EXTRACTION", "r": r, "lora_alpha": 16, "target_modules": "all-linear",
    });
    let peft = PeftConfig::parse(Path::new("adapter_config.json"), config.to_string().as_bytes())?;
    let mut numbers = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut random = |shape: [usize; 2]| {
        let values: Vec<f32> = (0..shape[0] * shape[1])
            .map(|_| {
                numbers ^= numbers << 13;
                numbers ^= numbers >> 7;
                numbers ^= numbers << 17;
                ((numbers >> 40) as f32 / 16_777_216.0 - 0.5) * 0.02
            })
            .collect();
        Tensor::new(shape, &values)
    };
    let mut parameters = graft_adapters::Parameters::new();
    for s in sites(&base.graph) {
        if s.kind == SiteKind::Linear && s.path.contains("encoder") {
            parameters.insert(ParamKey::new(s.path.clone(), "lora_A.weight"), random([r, s.in_features])?);
            parameters.insert(ParamKey::new(s.path.clone(), "lora_B.weight"), random([s.out_features, r])?);
        }
    }
    Ok(StoredAdapter {
        dir: PathBuf::from(format!("r{r}-{seed}")),
        peft: Some(peft),
        hub: None,
        parameters,
        head: None,
        graft: None,
    })
}

fn batch(base: &Base, tokens: usize) -> Any<Batch> {
    let ids: Vec<i64> = (0..ROWS * tokens).map(|i| 1000 + (i as i64 * 7919) % 20000).collect();
    let ids = Tensor::new([ROWS, tokens], &ids)?;
    let name = base.model.input(graft_graph::model::Role::Ids).map(|v| base.graph.name_of(v).to_string());
    let mut batch: Batch = name.into_iter().map(|n| (n, ids.clone())).collect();
    let implied = base.imply_inputs(&|n| batch.get(n).cloned())?;
    batch.extend(implied);
    Ok(batch)
}
