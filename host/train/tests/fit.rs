//! The loop over a real, tiny engine: logistic regression with its gradient derived by hand.
#![allow(clippy::unwrap_used, reason = "tests")]

use graft_train::optim::OptimizerConfig;
use graft_train::{
    At, Direction, Ended, Engine, EngineError, Event, EventFile, Interrupt, Kept, Metrics, MetricsFile,
    Observer, Parameter, Parameters, Plan, Prepared, ScheduleKind, Source, StepBatches, StepOutput,
    StepRecord, TrainError, Warmup, Watch, fit,
};

type Example = ([f32; 2], f32);

/// Points on two sides of the line x + 2y = 0.3, from a little generator of its own.
fn points(count: usize, mut seed: u64) -> Vec<Example> {
    let mut next = || {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count)
        .map(|_| {
            let x = [next(), next()];
            (x, f32::from(u8::from(x[0] + 2.0 * x[1] > 0.3)))
        })
        .collect()
}

fn batches(data: &[Example], size: usize) -> Prepared<Vec<Example>> {
    Prepared(data.chunks(size).map(|c| vec![c.to_vec()]).collect())
}

fn params() -> Parameters {
    let w = Parameter::new("w", [1, 2], vec![0.0; 2]).unwrap();
    Parameters::new(vec![w, Parameter::new("b", [1], vec![0.0]).unwrap()]).unwrap()
}

struct Logistic {
    dev: Option<Vec<Example>>,
    /// Gives a NaN loss at this step.
    nan_at: u64,
    /// Presses at this step.
    interrupt: Option<(u64, Interrupt)>,
    /// Overrides the evaluation's accuracies.
    script: Vec<f64>,
}

impl Logistic {
    fn new() -> Self {
        Logistic { dev: None, nan_at: 0, interrupt: None, script: Vec::new() }
    }

    fn margin(params: &Parameters, x: [f32; 2]) -> f32 {
        let (w, b) = (&params.get("w").unwrap().values, params.get("b").unwrap().values[0]);
        w[0] * x[0] + w[1] * x[1] + b
    }
}

impl Engine for Logistic {
    type Batch = Vec<Example>;

    fn gradients(
        &mut self,
        batch: &Vec<Example>,
        at: At,
        params: &Parameters,
        grads: &mut [Vec<f32>],
    ) -> Result<StepOutput, EngineError> {
        if let Some((step, i)) = &self.interrupt
            && *step == at.step
        {
            i.press();
        }
        grads.iter_mut().flatten().for_each(|g| *g = 0.0);
        let mut loss = 0.0;
        for (x, y) in batch {
            let z = Self::margin(params, *x);
            let p = 1.0 / (1.0 + (-z).exp());
            let d = (p - y) / batch.len() as f32;
            grads[0][0] += d * x[0];
            grads[0][1] += d * x[1];
            grads[1][0] += d;
            loss -= f64::from(y * p.ln() + (1.0 - y) * (1.0 - p).ln());
        }
        let loss = if at.step == self.nan_at { f64::NAN } else { loss / batch.len() as f64 };
        Ok(StepOutput { loss, samples: batch.len() })
    }

    fn evaluate(&mut self, params: &Parameters) -> Result<Option<Metrics>, EngineError> {
        let Some(dev) = &self.dev else { return Ok(None) };
        let right = dev.iter().filter(|(x, y)| (Self::margin(params, *x) > 0.0) == (*y > 0.5)).count();
        let accuracy = right as f64 / dev.len() as f64;
        let accuracy = if self.script.is_empty() { accuracy } else { self.script.remove(0) };
        Ok(Some(Metrics::from([("accuracy".into(), accuracy)])))
    }
}

/// Writes down all that it is told.
#[derive(Default)]
struct Log {
    steps: Vec<StepRecord>,
    epochs: Vec<(usize, Option<bool>, Parameters)>,
    finished: bool,
}

impl Observer for Log {
    fn observe(&mut self, event: &Event<'_>) -> Result<(), TrainError> {
        match event {
            Event::Step(r) => self.steps.push(**r),
            Event::Epoch { record, params } => {
                self.epochs.push((record.epoch, record.improved, (*params).clone()));
            }
            Event::Finish(_) => self.finished = true,
            Event::Start { .. } | Event::Penalty(_) | Event::Solved { .. } => {}
        }
        Ok(())
    }
}

fn plan(epochs: usize) -> Plan {
    Plan {
        epochs,
        optimizer: OptimizerConfig::AdamW { betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.01 },
        lr: 0.05,
        schedule: ScheduleKind::Linear,
        warmup: Warmup::Ratio(0.06),
        clip_norm: Some(1.0),
        watch: None,
    }
}

fn watching(epochs: usize, patience: usize) -> Plan {
    let watch = Watch { metric: "accuracy".into(), direction: Direction::Higher, patience };
    Plan { watch: Some(watch), ..plan(epochs) }
}

fn bits(p: &Parameters) -> Vec<u32> {
    p.iter().flat_map(|p| p.values.iter().map(|v| v.to_bits())).collect()
}

#[test]
fn training_learns_the_line_and_reports_what_it_did() {
    let (data, mut engine, mut p, mut log) = (points(320, 1), Logistic::new(), params(), Log::default());
    engine.dev = Some(points(200, 2));
    let r = fit(
        &mut engine,
        &mut batches(&data, 32),
        &mut p,
        &watching(20, 0),
        &mut [&mut log],
        &Interrupt::new(),
    )
    .unwrap();
    assert!(r.evaluation.unwrap()["accuracy"] > 0.95);
    assert!(r.last_loss < 0.5 * log.steps[0].loss);
    assert_eq!((r.steps, r.epochs, r.samples, r.ended), (200, 20, 6400, Ended::Complete));
    assert!(r.train_seconds > 0.0 && r.samples_per_second > 0.0);
    assert_eq!((log.steps.len(), log.epochs.len(), log.finished), (200, 20, true));
    // Warm-up is 6 % of 200 steps: the rate begins at 0, is at its peak at the 13th step and ends just above 0.
    assert_eq!((log.steps[0].lr, log.steps[12].lr), (0.0, 0.05));
    assert!(log.steps[199].lr > 0.0 && log.steps[199].lr < 0.001);
}

#[test]
fn the_same_run_gives_the_same_bits() {
    let run = || {
        let mut p = params();
        fit(
            &mut Logistic::new(),
            &mut batches(&points(100, 3), 8),
            &mut p,
            &plan(3),
            &mut [],
            &Interrupt::new(),
        )
        .unwrap();
        bits(&p)
    };
    assert_eq!(run(), run());
}

#[test]
fn equal_micro_batches_give_the_step_of_the_whole_batch() {
    let data = points(64, 4);
    let (mut whole, mut parts) = (params(), params());
    let mut log = [Log::default(), Log::default()];
    let [a, b] = &mut log;
    let i = Interrupt::new();
    fit(&mut Logistic::new(), &mut batches(&data, 16), &mut whole, &plan(2), &mut [a], &i).unwrap();
    let mut split = Prepared(data.chunks(16).map(|c| c.chunks(4).map(<[_]>::to_vec).collect()).collect());
    let r = fit(&mut Logistic::new(), &mut split, &mut parts, &plan(2), &mut [b], &i).unwrap();
    assert_eq!((r.steps, r.samples), (8, 128));
    for (a, b) in log[0].steps.iter().zip(&log[1].steps) {
        assert!((a.loss - b.loss).abs() < 1e-6 && (a.grad_norm - b.grad_norm).abs() < 1e-6);
    }
    for (a, b) in whole.iter().zip(parts.iter()) {
        a.values.iter().zip(&b.values).for_each(|(a, b)| assert!((a - b).abs() < 1e-5));
    }
}

#[test]
fn the_best_epoch_is_kept_and_patience_ends_the_run() {
    let (mut engine, mut p, mut log) = (Logistic::new(), params(), Log::default());
    engine.dev = Some(points(10, 5));
    engine.script = vec![0.5, 0.8, 0.7, 0.8, 0.9];
    let data = points(64, 6);
    let r = fit(
        &mut engine,
        &mut batches(&data, 16),
        &mut p,
        &watching(9, 2),
        &mut [&mut log],
        &Interrupt::new(),
    )
    .unwrap();
    assert_eq!((r.kept, r.ended, r.epochs), (Kept::Best { epoch: 2 }, Ended::Early, 4));
    assert_eq!(r.evaluation.unwrap()["accuracy"], 0.8);
    assert_eq!(log.epochs.iter().map(|e| e.1).collect::<Vec<_>>(), [true, true, false, false].map(Some));
    assert_eq!(bits(&p), bits(&log.epochs[1].2));
    assert_ne!(bits(&p), bits(&log.epochs[3].2));
}

#[test]
fn without_evaluation_data_the_last_epoch_is_kept() {
    let (mut p, mut log) = (params(), Log::default());
    let data = points(64, 6);
    let r = fit(
        &mut Logistic::new(),
        &mut batches(&data, 16),
        &mut p,
        &watching(3, 1),
        &mut [&mut log],
        &Interrupt::new(),
    )
    .unwrap();
    assert_eq!((r.kept, r.ended, r.evaluation), (Kept::Last, Ended::Complete, None));
    assert!(log.epochs.iter().all(|e| e.1.is_none()));
    assert_eq!(bits(&p), bits(&log.epochs[2].2));
}

#[test]
fn an_interrupt_finishes_its_step_and_leaves_usable_parameters() {
    let (mut engine, mut p, mut log, i) = (Logistic::new(), params(), Log::default(), Interrupt::new());
    engine.interrupt = Some((6, i.clone()));
    let data = points(64, 7);
    let r = fit(&mut engine, &mut batches(&data, 16), &mut p, &plan(9), &mut [&mut log], &i).unwrap();
    assert_eq!((r.ended, r.steps, r.epochs, r.kept), (Ended::Interrupted, 6, 1, Kept::Last));
    assert!(log.finished);
    assert!(p.iter().flat_map(|p| &p.values).all(|v| v.is_finite() && *v != 0.0));
}

#[test]
fn an_interrupt_in_the_last_step_of_an_epoch_waits_for_no_evaluation() {
    let (mut engine, mut p, i) = (Logistic::new(), params(), Interrupt::new());
    engine.interrupt = Some((4, i.clone()));
    engine.dev = Some(points(50, 8));
    let data = points(64, 7);
    let r = fit(&mut engine, &mut batches(&data, 16), &mut p, &watching(9, 0), &mut [], &i).unwrap();
    assert_eq!((r.ended, r.steps, r.epochs, r.kept), (Ended::Interrupted, 4, 1, Kept::Last));
    assert_eq!((r.evaluation, r.evaluation_seconds), (None, 0.0));
}

#[test]
fn an_interrupt_after_an_evaluation_keeps_the_best_epoch() {
    let (mut engine, mut p, mut log, i) = (Logistic::new(), params(), Log::default(), Interrupt::new());
    engine.interrupt = Some((6, i.clone()));
    engine.dev = Some(points(50, 8));
    let data = points(64, 7);
    let r = fit(&mut engine, &mut batches(&data, 16), &mut p, &watching(9, 0), &mut [&mut log], &i).unwrap();
    assert_eq!((r.ended, r.kept), (Ended::Interrupted, Kept::Best { epoch: 1 }));
    assert_eq!(bits(&p), bits(&log.epochs[0].2));
}

#[test]
fn metrics_of_an_earlier_epoch_are_not_reported_for_later_parameters() {
    let (mut engine, mut p, i) = (Logistic::new(), params(), Interrupt::new());
    engine.interrupt = Some((6, i.clone()));
    engine.dev = Some(points(50, 8));
    let data = points(64, 7);
    let r = fit(&mut engine, &mut batches(&data, 16), &mut p, &plan(9), &mut [], &i).unwrap();
    assert_eq!((r.ended, r.kept, r.evaluation), (Ended::Interrupted, Kept::Last, None));
}

#[test]
fn a_run_leaves_its_metrics_in_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metrics.jsonl");
    let (mut engine, mut p, mut log) = (Logistic::new(), params(), Log::default());
    engine.dev = Some(points(50, 8));
    let mut metrics = MetricsFile::open(&path).unwrap();
    let mut events = EventFile::create(dir.path()).unwrap();
    let empty = std::fs::metadata(events.path()).unwrap().len();
    let mut observers: [&mut dyn Observer; 3] = [&mut log, &mut metrics, &mut events];
    let data = points(64, 7);
    let i = Interrupt::new();
    fit(&mut engine, &mut batches(&data, 32), &mut p, &watching(2, 0), &mut observers, &i).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let kinds: Vec<&str> = lines[1..].iter().map(|l| l["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["start", "step", "step", "epoch", "step", "step", "epoch", "finish"]);
    let losses = lines.iter().filter(|l| l["kind"] == "step").map(|l| l["loss"].as_f64().unwrap());
    assert!(losses.eq(log.steps.iter().map(|r| r.loss)));
    assert_eq!(lines[4]["evaluation"]["accuracy"], lines[8]["evaluation"]["accuracy"]);
    assert_eq!((&lines[8]["ended"], &lines[8]["kept_epoch"]), (&"complete".into(), &1.into()));
    assert!(std::fs::metadata(events.path()).unwrap().len() > empty);
}

#[test]
fn a_nan_loss_stops_at_its_step_with_the_last_good_parameters() {
    let data = points(64, 9);
    let (mut engine, mut p, mut log) = (Logistic::new(), params(), Log::default());
    engine.nan_at = 7;
    let e = fit(&mut engine, &mut batches(&data, 16), &mut p, &plan(3), &mut [&mut log], &Interrupt::new())
        .unwrap_err();
    assert!(e.to_string().contains("the loss is NaN at step 7 (epoch 2)"), "{e}");
    assert_eq!((log.steps.len(), log.finished), (6, false));
    // The last finite loss, that of step 6, belongs to the parameters before that step's update: those of 5 steps.
    let (mut five, mut engine, i) = (params(), Logistic::new(), Interrupt::new());
    engine.interrupt = Some((5, i.clone()));
    fit(&mut engine, &mut batches(&data, 16), &mut five, &plan(3), &mut [], &i).unwrap();
    assert_eq!(bits(&p), bits(&five));
}

#[test]
fn an_update_that_overflows_in_the_very_last_step_is_undone() {
    let mut p = params();
    let plan = Plan {
        lr: 1e39,
        optimizer: OptimizerConfig::Sgd { momentum: 0.9, nesterov: false, weight_decay: 0.0 },
        warmup: Warmup::Steps(0),
        ..plan(1)
    };
    let data = points(64, 10);
    let e = fit(&mut Logistic::new(), &mut batches(&data, 64), &mut p, &plan, &mut [], &Interrupt::new())
        .unwrap_err();
    assert!(e.to_string().contains("the parameter `w` is"), "{e}");
    assert!(p.iter().flat_map(|p| &p.values).all(|v| *v == 0.0));
}

/// Batches that fail, or an engine that does.
struct Broken(bool);

impl Source for Broken {
    type Batch = ();

    fn steps(&self) -> usize {
        2
    }

    fn epoch(&mut self, _: usize) -> Result<Box<dyn Iterator<Item = StepBatches<()>> + '_>, EngineError> {
        let second = if self.0 { Err("row 7 is bad".into()) } else { Ok(vec![()]) };
        Ok(Box::new([Ok(vec![()]), second].into_iter()))
    }
}

impl Engine for Broken {
    type Batch = ();

    fn gradients(
        &mut self,
        _: &(),
        at: At,
        _: &Parameters,
        grads: &mut [Vec<f32>],
    ) -> Result<StepOutput, EngineError> {
        grads.iter_mut().flatten().for_each(|g| *g = 1.0);
        if at.step == 2 { Err("out of memory".into()) } else { Ok(StepOutput { loss: 1.0, samples: 1 }) }
    }

    fn evaluate(&mut self, _: &Parameters) -> Result<Option<Metrics>, EngineError> {
        Ok(None)
    }
}

#[test]
fn errors_of_engine_and_batches_say_where_in_the_run_they_were() {
    let run = |bad_batch| {
        let i = Interrupt::new();
        fit(&mut Broken(false), &mut Broken(bad_batch), &mut params(), &plan(1), &mut [], &i)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(run(true), "the batches of epoch 1 could not be made: row 7 is bad");
    assert_eq!(run(false), "step 2 (epoch 1) failed: out of memory");
}

#[test]
fn nothing_to_train_is_said_before_the_first_step() {
    let run = |p: &mut Parameters, data: &[Example], plan: &Plan| {
        fit(&mut Logistic::new(), &mut batches(data, 4), p, plan, &mut [], &Interrupt::new())
            .unwrap_err()
            .to_string()
    };
    let data = points(4, 1);
    assert!(run(&mut Parameters::default(), &data, &plan(1)).contains("no trainable parameter"));
    assert!(run(&mut params(), &[], &plan(1)).contains("no batch"));
    assert!(run(&mut params(), &data, &plan(0)).contains("epochs is 0"));
}
