//! A batch of 32 rows with 32 distinct LoRAs on all linear layers beside the base alone, as ONNX Runtime runs its file:
//! `cargo bench -p graft-tasks --bench banks -- BASE PLUGINS [THREADS] [TURNS] [PROVIDER] [ROUNDS] [TOKENS …]`.
//!
//! Each side runs in a process of its own: two sessions in one process have threads that look for work on the same
//! processors, and fill each other's caches. In a round each process runs for half a second at each number of tokens, one after
//! the other, as the pace of a machine changes; the next turn has new processes, as those differ too. Adapters run in passes
//! of as many tokens as a server takes at once ([`PASS_TOKENS`] for each thread of a processor); the base alone runs all 32 rows
//! at once, and as a side of its own in such passes too.
//! With `GRAFT_PROFILE=FILE`, `GRAFT_SIDE` and `GRAFT_TOKENS` one side's operators are timed instead.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use graft_adapters::{ParamKey, PeftConfig, StoredAdapter};
use graft_graph::sites::{SiteKind, sites};
use graft_graph::{Tensor, onnx};
use graft_plugins::Objective;
use graft_runtime::{Provider, Runtime, RuntimeOptions, SessionOptions, View};
use graft_tasks::{Banks, Base, BaseOptions, Fitted, PASS_TOKENS, Parts, Program, Room, Tenant};

type Any<T> = Result<T, Box<dyn std::error::Error>>;
type Batch = HashMap<String, Tensor>;

const ROWS: usize = 32;
const TOKENS: [usize; 3] = [16, 64, 128];
/// What the rows of a batch have; the first is what the others are measured by.
const SIDES: [&str; 5] = ["base alone", "32 of r=8", "32 of r=4…64", "base rows", "base in passes"];
/// Ranks of the third.
const RANKS: [usize; 5] = [4, 8, 16, 32, 64];
/// Rounds of a turn.
const ROUNDS: usize = 4;
/// How long a process runs in a round, and how often at least, the first run not counted.
const SLICE: Duration = Duration::from_millis(500);
const RUNS: usize = 3;
/// Runs of a profile.
const PROFILED: usize = 13;
/// How long ONNX Runtime's threads may look for work after a run, on the processors of who comes next.
const SETTLE: Duration = Duration::from_millis(300);

fn main() -> Any<()> {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let [base, plugins, rest @ ..] = args.as_slice() else { return Ok(()) };
    let number = |i: usize, default: usize| rest.get(i).and_then(|a| a.parse().ok()).unwrap_or(default);
    let (threads, turns) = (number(0, 2), number(1, 5).max(1));
    let provider: Provider = rest.get(2).map_or("cpu", String::as_str).parse()?;
    let rounds = number(3, ROUNDS).max(1);
    let mut lengths = rest.iter().skip(4).map(|t| t.parse()).collect::<Result<Vec<usize>, _>>()?;
    if lengths.is_empty() {
        lengths.extend(TOKENS);
    }
    if let Ok(side) = std::env::var("GRAFT_SIDE") {
        let options = SessionOptions { threads: Some(threads), provider, ..SessionOptions::default() };
        return one_side(&Side::open(Path::new(base), PathBuf::from(plugins), options, &side)?);
    }
    let mut found: Vec<Vec<Round>> = lengths.iter().map(|_| Vec::new()).collect();
    for turn in 0..turns {
        let mut sides =
            SIDES.iter().map(|name| Asked::start(name, &args, &lengths)).collect::<Any<Vec<_>>>()?;
        for round in 0..rounds {
            for (tokens, found) in lengths.iter().zip(&mut found) {
                let mut times = Round::default();
                for n in 0..SIDES.len() {
                    let side = (n + turn + round) % SIDES.len();
                    times[side] = sides[side].runs(*tokens)?;
                }
                found.push(times);
            }
        }
    }
    let rounds = turns * rounds;
    println!(
        "{threads} threads, {rounds} rounds in {turns} processes a side; ms of the best and the middle run; throughput relative to \
         the base by the best, by the middle of the rounds, and that one's standard error"
    );
    println!(
        "{:>7}  {:<14} {:>8} {:>8} {:>8} {:>8} {:>8}",
        "tokens", "rows", "best", "middle", "of best", "of it", "error"
    );
    for (tokens, rounds) in lengths.iter().zip(&found) {
        let best = |side: usize| rounds.iter().flat_map(|r| &r[side]).copied().fold(f64::INFINITY, f64::min);
        for (side, name) in SIDES.iter().enumerate() {
            let all = rounds.iter().flat_map(|r| &r[side]).copied().collect();
            let of: Vec<f64> =
                rounds.iter().map(|r| middle(r[0].clone()) / middle(r[side].clone())).collect();
            let (of_best, error) = (best(0) / best(side), standard_error(&of));
            println!(
                "{tokens:>7}  {name:<14} {:>8.2} {:>8.2} {of_best:>8.3} {:>8.3} {error:>8.3}",
                best(side),
                middle(all),
                middle(of),
            );
        }
    }
    Ok(())
}

/// Milliseconds of each side's runs, right after one another.
type Round = [Vec<f64>; SIDES.len()];

/// A side in a process of its own, which ends with its input.
struct Asked {
    side: String,
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
}

impl Asked {
    fn start(side: &str, args: &[String], lengths: &[usize]) -> Any<Asked> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(args).env("GRAFT_SIDE", side).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let (to, from) = (child.stdin.take(), child.stdout.take().ok_or("no output")?);
        let mut asked = Asked { side: side.into(), child, to, from: BufReader::new(from) };
        // What the first runs take is no side's disadvantage, and loading no other's.
        lengths.iter().try_for_each(|tokens| asked.runs(*tokens).map(drop))?;
        Ok(asked)
    }

    /// Milliseconds of runs now.
    fn runs(&mut self, tokens: usize) -> Any<Vec<f64>> {
        writeln!(self.to.as_mut().ok_or("no input")?, "{tokens}")?;
        let mut line = String::new();
        self.from.read_line(&mut line)?;
        std::thread::sleep(SETTLE);
        let times: Vec<f64> = line.split_whitespace().filter_map(|t| t.parse().ok()).collect();
        if times.is_empty() { Err(format!("{}: it ended", self.side).into()) } else { Ok(times) }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        drop(self.to.take());
        let _ = self.child.wait();
    }
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let n = values.len();
    (values[(n - 1) / 2] + values[n / 2]) / 2.0
}

fn standard_error(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0) / n).sqrt()
}

/// One side alone: a line of milliseconds for each number of tokens that is asked for, or a profile.
fn one_side(side: &Side) -> Any<()> {
    if let Some(path) = std::env::var_os("GRAFT_PROFILE") {
        let batches = side.batches(std::env::var("GRAFT_TOKENS")?.parse()?)?;
        let mut ready = side.ready(Some(path.into()))?;
        for _ in 0..PROFILED {
            ready.run(&batches)?;
        }
        println!("{}", ready.finish_profile()?.display());
        return Ok(());
    }
    let mut ready = side.ready(None)?;
    for tokens in std::io::stdin().lines() {
        let batches = side.batches(tokens?.parse()?)?;
        let (all, mut times) = (Instant::now(), Vec::new());
        while times.len() < RUNS || all.elapsed() < SLICE {
            let began = Instant::now();
            ready.run(&batches)?;
            times.push(format!("{:.3}", began.elapsed().as_secs_f64() * 1e3));
        }
        println!("{}", times[1..].join(" "));
    }
    Ok(())
}

/// The base, and the adapters of one side's rows; none for the base alone.
struct Side {
    base: Base,
    options: SessionOptions,
    rows: Vec<(u64, Parts)>,
    /// What is in the banks besides.
    others: Vec<(u64, Parts)>,
    /// Whether all rows go in one run.
    whole: bool,
}

impl Side {
    fn open(base: &Path, plugins: PathBuf, options: SessionOptions, side: &str) -> Any<Side> {
        let runtime =
            Runtime::start(&RuntimeOptions { threads: options.threads, ..RuntimeOptions::default() })?;
        let base = Base::open(runtime, base, &BaseOptions::default())?;
        let dirs = vec![plugins];
        let embed = || Objective::find(&dirs, "embedding", &serde_json::json!({}));
        let lora = |id: u64, r: usize| -> Any<(u64, Parts)> {
            let stored = adapter(&base, id, r)?;
            Ok((id, Fitted::with_objective(&base, Some(&stored), embed()?, &dirs)?.parts(&base)?))
        };
        let ids = |from: u64| from..from + ROWS as u64;
        let same = || ids(1).map(|id| lora(id, 8)).collect::<Any<Vec<_>>>();
        let mixed =
            || ids(1000).map(|id| lora(id, RANKS[id as usize % RANKS.len()])).collect::<Any<Vec<_>>>();
        let place = SIDES.iter().position(|s| *s == side);
        let (rows, others) = match place {
            Some(0 | 4) => (Vec::new(), Vec::new()),
            Some(1) => (same()?, mixed()?),
            Some(2) => (mixed()?, same()?),
            Some(3) => {
                let bare = || -> Any<_> {
                    Ok((0, Fitted::with_objective(&base, None, embed()?, &dirs)?.parts(&base)?))
                };
                let bare = (0..ROWS).map(|_| bare()).collect::<Any<Vec<_>>>()?;
                (bare, same()?.into_iter().chain(mixed()?).collect())
            }
            _ => return Err(format!("{side}: no side; there are {SIDES:?}").into()),
        };
        let whole = place == Some(0) || options.provider != Provider::Cpu;
        Ok(Side { base, options, rows, others, whole })
    }

    /// The 32 rows, in the runs that they are made in.
    fn batches(&self, tokens: usize) -> Any<Vec<Batch>> {
        let threads = self.options.threads.unwrap_or(1);
        let at_once = if self.whole { ROWS } else { (PASS_TOKENS * threads / tokens).clamp(1, ROWS) };
        (0..ROWS).step_by(at_once).map(|from| batch(&self.base, at_once.min(ROWS - from), tokens)).collect()
    }

    fn ready(&self, profile: Option<PathBuf>) -> Any<Ready<'_>> {
        let options = SessionOptions { profile, ..self.options.clone() };
        if self.rows.is_empty() {
            // The file as it is, neither raised nor lowered.
            let file = onnx::read(&self.base.path)?;
            return Ok(Ready::Plain(Box::new(Program::new(&self.base, &file, &options)?)));
        }
        let all = || self.rows.iter().chain(&self.others);
        let fragments: Vec<_> = all().flat_map(|(_, p)| p.fragments().cloned()).collect();
        let mut banks = Banks::new(Room::new(&self.base, &fragments, &options)?);
        for one in all() {
            banks.place(&self.base, &tenant(one))?;
        }
        Ok(Ready::Banks(Box::new(banks), self.rows.iter().map(tenant).collect()))
    }
}

fn tenant((id, parts): &(u64, Parts)) -> Tenant<'_> {
    Tenant { id: *id, parts }
}

/// What runs a side's batches.
enum Ready<'a> {
    Plain(Box<Program>),
    Banks(Box<Banks>, Vec<Tenant<'a>>),
}

impl Ready<'_> {
    fn run(&mut self, batches: &[Batch]) -> Any<()> {
        let mut from = 0;
        for batch in batches {
            let count = batch.values().find_map(|t| t.shape().first().copied()).unwrap_or_default();
            drop(match self {
                Ready::Plain(program) => program.run(&|n| batch.get(n).map(View::from))?,
                Ready::Banks(banks, rows) => banks.run(batch, &rows[from..from + count])?,
            });
            from += count;
        }
        Ok(())
    }

    fn finish_profile(&mut self) -> Any<PathBuf> {
        Ok(match self {
            Ready::Plain(program) => program.session().finish_profile()?,
            Ready::Banks(banks, _) => banks.finish_profile()?,
        })
    }
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

fn batch(base: &Base, rows: usize, tokens: usize) -> Any<Batch> {
    let ids: Vec<i64> = (0..rows * tokens).map(|i| 1000 + (i as i64 * 7919) % 20000).collect();
    let ids = Tensor::new([rows, tokens], &ids)?;
    let name = base.model.input(graft_graph::model::Role::Ids).map(|v| base.graph.name_of(v).to_string());
    let mut batch: Batch = name.into_iter().map(|n| (n, ids.clone())).collect();
    let implied = base.imply_inputs(&|n| batch.get(n).cloned())?;
    batch.extend(implied);
    Ok(batch)
}
