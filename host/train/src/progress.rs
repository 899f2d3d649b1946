//! Progress on standard error: a bar on a terminal, plain lines elsewhere.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::error::TrainError;
use crate::observe::{EpochRecord, Event, Observer, StepRecord};
use crate::solve::Optimum;

/// Shows how a run goes: step, loss, samples per second and the time left.
pub struct Progress {
    look: Look,
    steps: u64,
    epochs: usize,
    samples: usize,
}

enum Look {
    Quiet,
    Bar(ProgressBar),
    Lines { out: Box<dyn Write + Send>, every: Duration, last: Option<Instant> },
}

impl Progress {
    /// A bar if standard error is a terminal, else a line every ten seconds and at each epoch.
    pub fn stderr() -> Self {
        if io::stderr().is_terminal() {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
            let style = "{bar:30} step {pos}/{len}  {msg}  {eta} left";
            bar.set_style(
                ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()),
            );
            return Self::with(Look::Bar(bar));
        }
        Self::lines(Box::new(io::stderr()), Duration::from_secs(10))
    }

    /// Lines at most so often, and one at each epoch.
    pub fn lines(out: Box<dyn Write + Send>, every: Duration) -> Self {
        Self::with(Look::Lines { out, every, last: None })
    }

    /// Nothing at all.
    pub fn quiet() -> Self {
        Self::with(Look::Quiet)
    }

    fn with(look: Look) -> Self {
        Progress { look, steps: 0, epochs: 0, samples: 0 }
    }

    fn step(&mut self, r: &StepRecord) {
        self.samples += r.samples;
        let rate = self.samples as f64 / r.seconds.max(1e-9);
        match &mut self.look {
            Look::Quiet => {}
            Look::Bar(bar) => {
                bar.set_message(format!("loss {:.4}  {rate:.0} samples/s", r.loss));
                bar.set_position(r.step);
            }
            Look::Lines { out, every, last } => {
                let now = Instant::now();
                if last.is_some_and(|t| now - t < *every) {
                    return;
                }
                *last = Some(now);
                let left = r.seconds / r.step as f64 * self.steps.saturating_sub(r.step) as f64;
                let (step, steps, loss, left) = (r.step, self.steps, r.loss, duration(left));
                put(out, &format!("step {step}/{steps}  loss {loss:.4}  {rate:.0} samples/s  {left} left"));
            }
        }
    }

    fn epoch(&mut self, r: &EpochRecord) {
        let mut line = format!("epoch {}/{}  train loss {:.4}", r.epoch, self.epochs, r.train_loss);
        for (name, value) in r.evaluation.iter().flatten() {
            line += &format!("  {name} {value:.4}");
        }
        if r.improved == Some(true) {
            line += "  (best so far)";
        }
        self.say(&line);
    }

    fn solved(&mut self, o: &Optimum) {
        let (n, seconds, gradient) = (o.iterations, o.seconds, o.gradient);
        let by = match o.folds {
            0 => "given".to_string(),
            folds => format!("chosen by {folds}-fold cross-validation"),
        };
        self.say(&format!("l2 {:.2e}, {by}; solved with {n} more iterations, {seconds:.1} s in all", o.l2));
        let far = if o.converged { "" } else { ", not to its optimum: a larger method.l2 would have one" };
        self.say(&format!("train loss {:.4}  gradient {gradient:.1e}{far}", o.loss));
    }

    fn say(&mut self, line: &str) {
        match &mut self.look {
            Look::Quiet => {}
            Look::Bar(bar) => bar.println(line),
            Look::Lines { out, .. } => put(out, line),
        }
    }
}

/// Progress that cannot be shown (a closed pipe) is no reason to stop training.
fn put(out: &mut Box<dyn Write + Send>, line: &str) {
    let _ = writeln!(out, "{line}");
}

/// `7 s`, `3 min 20 s`, `2 h 5 min`.
fn duration(seconds: f64) -> String {
    let s = seconds.round() as u64;
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min {} s", s / 60, s % 60),
        _ => format!("{} h {} min", s / 3600, s % 3600 / 60),
    }
}

impl Observer for Progress {
    fn observe(&mut self, event: &Event<'_>) -> Result<(), TrainError> {
        match event {
            Event::Start { steps, epochs, .. } => {
                (self.steps, self.epochs) = (*steps, *epochs);
                if let Look::Bar(bar) = &self.look {
                    bar.set_length(*steps);
                    bar.reset();
                }
            }
            Event::Step(r) => self.step(r),
            Event::Epoch { record, .. } => self.epoch(record),
            Event::Penalty(r) => {
                self.say(&format!("l2 {:.2e}  held-out loss {:.4}  accuracy {:.4}", r.l2, r.loss, r.accuracy))
            }
            Event::Solved { optimum, .. } => self.solved(optimum),
            Event::Finish(r) if r.steps == 0 => {}
            Event::Finish(r) => {
                let (steps, seconds, rate) = (r.steps, r.train_seconds, r.samples_per_second);
                self.say(&format!("{steps} steps in {seconds:.1} s of training, {rate:.0} samples/s"));
                if let Look::Bar(bar) = &self.look {
                    bar.finish_and_clear();
                }
            }
        }
        Ok(())
    }
}

impl Drop for Progress {
    /// A bar left by a run that failed would stand in the way of the error message.
    fn drop(&mut self) {
        if let Look::Bar(bar) = &self.look {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::best::Metrics;
    use crate::params::Parameters;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, b: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(b);
            Ok(b.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn text(every: Duration) -> String {
        let sink = Sink::default();
        let mut p = Progress::lines(Box::new(sink.clone()), every);
        p.observe(&Event::Start { steps: 3, epochs: 1, trainable: 10 }).unwrap();
        for step in 1..=3 {
            let (loss, seconds) = (1.0 / step as f64, step as f64 * 40.0);
            let r = StepRecord { step, epoch: 1, loss, lr: 0.1, grad_norm: 1.0, samples: 80, seconds };
            p.observe(&Event::Step(&r)).unwrap();
        }
        let record = EpochRecord {
            epoch: 1,
            step: 3,
            train_loss: 0.5,
            evaluation: Some(Metrics::from([("accuracy".into(), 0.75)])),
            improved: Some(true),
            seconds: 120.0,
            samples_per_second: 2.0,
        };
        p.observe(&Event::Epoch { record: &record, params: &Parameters::default() }).unwrap();
        String::from_utf8(sink.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn lines_say_step_loss_rate_and_time_left() {
        let all = text(Duration::ZERO);
        assert_eq!(
            all.lines().collect::<Vec<_>>(),
            [
                "step 1/3  loss 1.0000  2 samples/s  1 min 20 s left",
                "step 2/3  loss 0.5000  2 samples/s  40 s left",
                "step 3/3  loss 0.3333  2 samples/s  0 s left",
                "epoch 1/1  train loss 0.5000  accuracy 0.7500  (best so far)",
            ]
        );
    }

    #[test]
    fn lines_come_no_more_often_than_asked_but_at_each_epoch() {
        let all = text(Duration::from_secs(3600));
        let all: Vec<&str> = all.lines().collect();
        assert_eq!(all.len(), 2);
        assert!(all[0].starts_with("step 1/3") && all[1].starts_with("epoch 1/1"));
    }

    #[test]
    fn durations_read_as_people_say_them() {
        assert_eq!([duration(7.4), duration(200.0), duration(7500.0)], ["7 s", "3 min 20 s", "2 h 5 min"]);
    }
}
