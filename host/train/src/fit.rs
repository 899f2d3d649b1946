//! The loop: epochs of steps, evaluation, the best epoch kept.

use std::time::{Duration, Instant};

use crate::accumulate;
use crate::best::{Best, Metrics};
use crate::clip;
use crate::error::{EngineError, TrainError};
use crate::guard::Guard;
use crate::interrupt::Interrupt;
use crate::observe::{EpochRecord, Event, Observer, StepRecord};
use crate::optim::Optimizer;
use crate::params::Parameters;
use crate::plan::Plan;
use crate::report::{Ended, FitReport, Kept};
use crate::schedule::Schedule;
use crate::source::Source;

/// Where in the run a gradient is asked for; noise is drawn from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    /// Number of the step, from 1.
    pub step: u64,
    /// Number of the epoch, from 1.
    pub epoch: usize,
    /// Number of the micro-batch within the step, from 0.
    pub micro: usize,
}

/// What one micro-batch gives besides its gradient.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepOutput {
    /// Mean loss of the micro-batch.
    pub loss: f64,
    /// Examples in it.
    pub samples: usize,
}

/// What computes losses and gradients.
pub trait Engine {
    /// A prepared micro-batch.
    type Batch;

    /// Loss and gradient of one micro-batch. `grads` has one buffer for each parameter, in order and as long as it;
    /// each is overwritten whole.
    ///
    /// # Errors
    /// Whatever went wrong; training stops with it.
    fn gradients(
        &mut self,
        batch: &Self::Batch,
        at: At,
        params: &Parameters,
        grads: &mut [Vec<f32>],
    ) -> Result<StepOutput, EngineError>;

    /// Metrics on the evaluation data, `None` if there is none.
    ///
    /// # Errors
    /// Whatever went wrong; training stops with it.
    fn evaluate(&mut self, params: &Parameters) -> Result<Option<Metrics>, EngineError>;
}

/// Trains `params` in place.
///
/// Each epoch ends with an evaluation. With a [`Watch`](crate::Watch) and evaluation data, `params` are afterwards those of the
/// best epoch; without, those of the last step. An interrupt ends the run after the step in hand, without a further
/// evaluation: the best epoch is kept if one was evaluated, else the last step.
///
/// # Errors
/// [`TrainError`]; `params` are then the last good ones, see [`Guard`].
pub fn fit<E: Engine, S: Source<Batch = E::Batch>>(
    engine: &mut E,
    source: &mut S,
    params: &mut Parameters,
    plan: &Plan,
    observers: &mut [&mut dyn Observer],
    interrupt: &Interrupt,
) -> Result<FitReport, TrainError> {
    let total = check(source.steps(), params, plan)?;
    let mut run = Run::new(params, plan, total, observers);
    run.tell(&Event::Start { steps: total, epochs: plan.epochs, trainable: params.elements() })?;
    let mut ended = Ended::Complete;
    for epoch in 1..=plan.epochs {
        if !run.epoch(engine, source, params, epoch, interrupt)? {
            ended = Ended::Interrupted;
            break;
        }
        if run.evaluate(engine, params, epoch)? {
            if epoch < plan.epochs {
                ended = Ended::Early;
            }
            break;
        }
    }
    let report = run.finish(params, ended);
    run.tell(&Event::Finish(&report))?;
    Ok(report)
}

/// The number of steps, if there is something to do.
fn check(steps: usize, params: &Parameters, plan: &Plan) -> Result<u64, TrainError> {
    let no = |what: &str| Err(TrainError::Plan(what.into()));
    if params.elements() == 0 {
        return no("the method and the objective declare no trainable parameter");
    }
    if steps == 0 {
        return no("there is no batch to train on; is the data empty?");
    }
    if plan.epochs == 0 {
        return no("epochs is 0: nothing would be trained");
    }
    match (steps as u64).checked_mul(plan.epochs as u64) {
        Some(n) => Ok(n),
        None => no("epochs is too large: the number of steps has no end"),
    }
}

/// All that changes during a run, besides the parameters.
struct Run<'a, 'o> {
    plan: &'a Plan,
    observers: &'a mut [&'o mut dyn Observer],
    schedule: Schedule,
    optimizer: Box<dyn Optimizer>,
    guard: Guard,
    grads: Vec<Vec<f32>>,
    /// Gradient of one further micro-batch; made when a step first has several.
    extra: Vec<Vec<f32>>,
    best: Option<Best>,
    /// The best epoch's parameters and metrics.
    kept: Option<(usize, Vec<Vec<f32>>, Metrics)>,
    /// Metrics after the latest epoch, dropped by the next step.
    latest: Option<Metrics>,
    step: u64,
    epochs: usize,
    samples: usize,
    last_loss: f64,
    epoch_loss: f64,
    training: Duration,
    evaluating: Duration,
}

impl<'a, 'o> Run<'a, 'o> {
    fn new(
        params: &Parameters,
        plan: &'a Plan,
        total: u64,
        observers: &'a mut [&'o mut dyn Observer],
    ) -> Self {
        Run {
            plan,
            observers,
            schedule: Schedule { kind: plan.schedule, warmup: plan.warmup.steps(total), total },
            optimizer: plan.optimizer.build(params),
            guard: Guard::new(params),
            grads: params.zeros(),
            extra: Vec::new(),
            best: plan.watch.clone().map(Best::new),
            kept: None,
            latest: None,
            step: 0,
            epochs: 0,
            samples: 0,
            last_loss: f64::NAN,
            epoch_loss: 0.0,
            training: Duration::ZERO,
            evaluating: Duration::ZERO,
        }
    }

    fn tell(&mut self, event: &Event<'_>) -> Result<(), TrainError> {
        self.observers.iter_mut().try_for_each(|o| o.observe(event))
    }

    /// Runs the steps of an epoch; false if the interrupt ended it.
    fn epoch<E: Engine, S: Source<Batch = E::Batch>>(
        &mut self,
        engine: &mut E,
        source: &mut S,
        params: &mut Parameters,
        epoch: usize,
        interrupt: &Interrupt,
    ) -> Result<bool, TrainError> {
        let failed = |source| TrainError::Batches { epoch, source };
        let mut clock = Instant::now();
        let mut lap = |training: &mut Duration| {
            let now = Instant::now();
            *training += now - clock;
            clock = now;
        };
        let (mut sum, mut count) = (0.0, 0usize);
        for batches in source.epoch(epoch).map_err(failed)? {
            if interrupt.requested() {
                return Ok(false);
            }
            let batches = batches.map_err(failed)?;
            let mut record = self.step(engine, &batches, params, epoch)?;
            lap(&mut self.training);
            record.seconds = self.training.as_secs_f64();
            sum += record.loss;
            count += 1;
            self.tell(&Event::Step(&record))?;
        }
        lap(&mut self.training);
        self.epochs = epoch;
        self.epoch_loss = sum / count as f64;
        Ok(!interrupt.requested())
    }

    /// One update from all micro-batches of a step.
    fn step<E: Engine>(
        &mut self,
        engine: &mut E,
        batches: &[E::Batch],
        params: &mut Parameters,
        epoch: usize,
    ) -> Result<StepRecord, TrainError> {
        let step = self.step + 1;
        self.guard.at(step, epoch);
        let StepOutput { loss, samples } = self
            .gradients(engine, batches, params, epoch)
            .map_err(|source| TrainError::Step { step, epoch, source })?;
        self.guard.loss(loss, params)?;
        let grad_norm = clip::global_norm(&self.grads);
        self.guard.gradient(grad_norm, &self.grads, params)?;
        if let Some(max) = self.plan.clip_norm {
            clip::clip(&mut self.grads, grad_norm, max);
        }
        let lr = self.plan.lr * self.schedule.factor(self.step);
        self.optimizer.step(params, &self.grads, lr);
        self.guard.update(params)?;
        self.latest = None;
        self.step = step;
        self.samples += samples;
        self.last_loss = loss;
        Ok(StepRecord { step, epoch, loss, lr, grad_norm, samples, seconds: 0.0 })
    }

    /// Mean loss and gradient (into `self.grads`) of a step's micro-batches.
    fn gradients<E: Engine>(
        &mut self,
        engine: &mut E,
        batches: &[E::Batch],
        params: &Parameters,
        epoch: usize,
    ) -> Result<StepOutput, EngineError> {
        let step = self.step + 1;
        let (first, rest) = batches.split_first().ok_or("the step has no batch")?;
        let mut sum = engine.gradients(first, At { step, epoch, micro: 0 }, params, &mut self.grads)?;
        if rest.is_empty() {
            return Ok(sum);
        }
        if self.extra.is_empty() {
            self.extra = params.zeros();
        }
        for (i, batch) in rest.iter().enumerate() {
            let one = engine.gradients(batch, At { step, epoch, micro: i + 1 }, params, &mut self.extra)?;
            accumulate::add(&mut self.grads, &self.extra);
            sum.loss += one.loss;
            sum.samples += one.samples;
        }
        accumulate::divide(&mut self.grads, batches.len());
        sum.loss /= batches.len() as f64;
        Ok(sum)
    }

    /// Evaluates after an epoch, keeps the best; true if training is to stop.
    fn evaluate<E: Engine>(
        &mut self,
        engine: &mut E,
        params: &Parameters,
        epoch: usize,
    ) -> Result<bool, TrainError> {
        let clock = Instant::now();
        let metrics = engine.evaluate(params).map_err(|source| TrainError::Evaluation { epoch, source })?;
        self.evaluating += clock.elapsed();
        self.latest = metrics.clone();
        let (mut improved, mut stop) = (None, false);
        if let (Some(best), Some(metrics)) = (&mut self.best, &metrics) {
            let verdict = best.see(epoch, metrics)?;
            (improved, stop) = (Some(verdict.improved), verdict.stop);
            if verdict.improved {
                let mut values = self.kept.take().map_or_else(|| params.zeros(), |(_, v, _)| v);
                params.save_to(&mut values);
                self.kept = Some((epoch, values, metrics.clone()));
            }
        }
        let record = EpochRecord {
            epoch,
            step: self.step,
            train_loss: self.epoch_loss,
            evaluation: metrics,
            improved,
            seconds: self.training.as_secs_f64(),
            samples_per_second: self.rate(),
        };
        self.tell(&Event::Epoch { record: &record, params })?;
        Ok(stop)
    }

    fn rate(&self) -> f64 {
        self.samples as f64 / self.training.as_secs_f64().max(1e-9)
    }

    /// Puts the best epoch's parameters in place.
    fn finish(&mut self, params: &mut Parameters, ended: Ended) -> FitReport {
        let (kept, evaluation) = match self.kept.take() {
            Some((epoch, values, metrics)) => {
                params.restore_from(&values);
                (Kept::Best { epoch }, Some(metrics))
            }
            None => (Kept::Last, self.latest.take()),
        };
        FitReport {
            steps: self.step,
            epochs: self.epochs,
            samples: self.samples,
            train_seconds: self.training.as_secs_f64(),
            evaluation_seconds: self.evaluating.as_secs_f64(),
            samples_per_second: self.rate(),
            last_loss: self.last_loss,
            kept,
            evaluation,
            ended,
        }
    }
}
