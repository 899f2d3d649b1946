//! A convex head over frozen features, solved instead of trained step by step.

use std::collections::HashMap;
use std::time::Instant;

use graft_graph::Tensor;
use graft_graph::split::Split;
use graft_plugins::Adapted;
use graft_plugins::adapt::ConvexHead;
use graft_plugins::api::HeadSolver;
use graft_runtime::{SessionOptions, View};
use graft_tasks::{Base, Program, TaskError};

use super::job::JobError;
use super::source::BatchSource;
use super::step::Step;
use crate::error::TrainError;
use crate::fit::{At, Engine};
use crate::interrupt::Interrupt;
use crate::observe::{Event, Observer};
use crate::params::Parameters;
use crate::report::{Ended, FitReport, Kept};
use crate::solve::{self, Data, How, Optimum};

/// Rows on which the declared loss is compared with the graph's own.
const TRIED: usize = 64;
/// Largest relative difference of the two: the graph computes in float32.
const SAME_LOSS: f64 = 1e-4;

/// What a head is solved with.
pub(super) struct Resources<'a> {
    pub(super) base: &'a Base,
    /// Folds of the cross-validation at once.
    pub(super) threads: usize,
    pub(super) options: &'a SessionOptions,
    pub(super) interrupt: &'a Interrupt,
}

/// A head that can be solved.
pub(super) struct Solvable<'a> {
    head: &'a ConvexHead,
    solver: HeadSolver,
    names: [String; 3],
}

/// Whether the head is all that is trained, and reads nothing but the features in front of the cut. `None` where the
/// method does not ask for it.
///
/// # Errors
/// Why it is trained step by step.
pub(super) fn solvable<'a>(
    adapted: &'a Adapted,
    split: Option<&Split>,
    rows: usize,
) -> Result<Option<Solvable<'a>>, String> {
    let Some(solver) = adapted.solver else { return Ok(None) };
    let no = |why: &str| Err(why.to_string());
    let Some(head) = &adapted.convex else {
        return no("the objective declares no convex head with these settings");
    };
    let Some(split) = split else { return no("its features are not computed once per example") };
    let own = |v| v == head.weight || v == head.bias;
    if adapted.params.iter().any(|p| p.trained() && !own(p.value)) {
        return no("more than the head is trained");
    }
    if !adapted.noises.is_empty() || !adapted.states.is_empty() {
        return no("its loss is another one in each step");
    }
    let name = |v| adapted.graph.name_of(v).to_string();
    if split.cut.as_slice() != [name(head.input)] {
        return no("the loss reads more than the features of the head");
    }
    let width = adapted.params.iter().find(|p| p.value == head.weight).and_then(|p| p.shape.last().copied());
    if !solve::has_room(rows, width.unwrap_or(usize::MAX)) {
        return no("the features of all examples take more than 8 GiB in float64");
    }
    Ok(Some(Solvable { head, solver, names: [head.input, head.weight, head.bias].map(name) }))
}

/// The data of a head: features, targets, counts.
struct Rows {
    features: Vec<f32>,
    targets: Vec<f32>,
    counts: Vec<f32>,
}

impl Rows {
    fn data(&self, rows: usize) -> Data<'_> {
        let part = |v: &'_ [f32]| v.len() / self.counts.len().max(1) * rows;
        Data {
            features: &self.features[..part(&self.features)],
            targets: &self.targets[..part(&self.targets)],
            counts: &self.counts[..rows],
        }
    }
}

impl Solvable<'_> {
    /// Solves the head and puts it into `params`.
    ///
    /// # Errors
    /// A declaration that is not what the graph computes; what the solver and the observers say.
    pub(super) fn solve(
        &self,
        how: &Resources<'_>,
        source: &BatchSource<'_>,
        engine: &mut Step<'_>,
        params: &mut Parameters,
        observers: &mut [&mut dyn Observer],
    ) -> Result<(FitReport, Optimum), JobError> {
        let Resources { base, threads, options, interrupt } = *how;
        let mut tell = |event: &Event<'_>| observers.iter_mut().try_for_each(|o| o.observe(event));
        tell(&Event::Start { steps: 0, epochs: 0, trainable: params.elements() })?;
        let rows = self.rows(base, source, options)?;
        self.compare(&rows, source, engine, params)?;
        let how = How { l2: self.solver.l2, folds: self.solver.folds as usize, seed: source.seed, threads };
        let count = rows.counts.len();
        let found = solve::solve(&rows.data(count), &how, &mut |p| tell(&Event::Penalty(p)), interrupt)?;
        for (name, values) in [(&self.names[1], &found.weight), (&self.names[2], &found.bias)] {
            if let Some(p) = params.get_mut(name) {
                p.values = values.iter().map(|v| *v as f32).collect();
            }
        }
        tell(&Event::Solved { optimum: &found, params })?;
        let clock = Instant::now();
        let evaluation =
            engine.evaluate(params).map_err(|source| TrainError::Evaluation { epoch: 0, source })?;
        let report = FitReport {
            steps: 0,
            epochs: 0,
            samples: count,
            train_seconds: found.seconds,
            evaluation_seconds: clock.elapsed().as_secs_f64(),
            samples_per_second: count as f64 / found.seconds.max(1e-9),
            last_loss: found.loss,
            kept: Kept::Last,
            evaluation,
            ended: if found.interrupted { Ended::Interrupted } else { Ended::Complete },
        };
        tell(&Event::Finish(&report))?;
        Ok((report, found))
    }

    fn rows(
        &self,
        base: &Base,
        source: &BatchSource<'_>,
        options: &SessionOptions,
    ) -> Result<Rows, JobError> {
        let all: Vec<usize> = (0..source.examples.len()).collect();
        let fed: HashMap<String, Tensor> = source.feed.batch(&all)?;
        let lacking = |what: &str| TaskError::Input { what: what.into(), detail: "it is missing".into() };
        let features = fed.get(&self.names[0]).ok_or_else(|| lacking(&self.names[0]))?;
        let features = features.values::<f32>().map_err(TaskError::from)?.into_owned();
        let collated: HashMap<String, Tensor> =
            source.examples.collate(source.objective, &all, source.seed)?.into_iter().collect();
        let graph = &self.head.targets;
        let options = SessionOptions { name: "targets".into(), ..options.clone() };
        let outputs = Program::new(base, graph, &options)?.run(&|n| collated.get(n).map(View::from))?;
        let values = |i: usize| -> Result<Vec<f32>, TaskError> {
            let name = graph.outputs.get(i).map(|v| graph.name_of(*v)).unwrap_or_default();
            Ok(outputs.f32s(name)?.to_vec())
        };
        Ok(Rows { features, targets: values(0)?, counts: values(1)? })
    }

    /// What an objective declares is believed after its loss on a batch was the same.
    fn compare(
        &self,
        rows: &Rows,
        source: &BatchSource<'_>,
        engine: &mut Step<'_>,
        params: &Parameters,
    ) -> Result<(), JobError> {
        let tried: Vec<usize> = (0..rows.counts.len().min(TRIED)).collect();
        let failed = |source| TrainError::Step { step: 0, epoch: 0, source };
        let batch = source.make(&tried, source.seed).map_err(failed)?;
        let at = At { step: 1, epoch: 1, micro: 0 };
        let graph = engine.gradients(&batch, at, params, &mut params.zeros()).map_err(failed)?.loss;
        let values = |name: &String| params.get(name).map_or(&[][..], |p| &p.values);
        let declared = rows.data(tried.len()).loss(values(&self.names[1]), values(&self.names[2]));
        if (graph - declared).abs() <= SAME_LOSS * graph.abs().max(declared.abs()).max(1.0) {
            return Ok(());
        }
        Err(JobError::Setup(format!(
            "the objective '{}' declares a convex head whose loss is {declared} on {} rows, but its graph gives {graph}: \
             its plugin is at fault; --set method.solve=false trains without the declaration",
            source.objective.id(),
            tried.len()
        )))
    }
}
