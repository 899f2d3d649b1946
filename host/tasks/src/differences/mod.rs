//! The gradients of a plugin, compared with central differences on a tiny base. In float32, as training is.

mod blame;
mod feed;

use std::collections::HashMap;

use graft_graph::grad::expose;
use graft_graph::{Graph, Tensor, ValueId, onnx};
use graft_plugins::Trial;
use graft_plugins::adapt::Param;
use graft_runtime::{Runtime, Session, SessionOptions, SessionSource};

use self::blame::wrong;
use self::feed::{directions, feed};
use crate::error::{Result, TaskError};

/// Half the distances of the two points that a difference is taken over. A kink that lies between the points of one pair
/// lies outside of a nearer one; rounding weighs more there, see [`bound`].
const STEPS: [f64; 3] = [1e-2, 2.5e-3, 6e-4];

/// Largest error of a difference, relative to the largest element of the gradient: what the curve of the function makes.
const CURVE: f64 = 5e-3;

/// Rounding of the function's value, relative to it (or to 1, where that is smaller).
const ROUNDING: f64 = 1e-6;

/// How well gradients agree with differences.
#[derive(Debug, Clone, PartialEq)]
pub struct Agreement {
    /// Parameters.
    pub parameters: usize,
    /// Derivatives that were compared.
    pub compared: usize,
    /// The largest difference, relative to the largest element of all gradients.
    pub largest: f64,
    /// Where gradients are stopped, in the plugin's sources; empty text where it does not say. What flows there was held
    /// fixed while differences were taken.
    pub stopped: Vec<String>,
}

/// What a derivative is, and what the difference that comes nearest to it is.
struct Compared {
    derivative: f64,
    difference: f64,
    agrees: bool,
}

/// Compares the gradient of each parameter of `trial` with central differences: along one direction of all its elements, and
/// of some elements. Parameters lie near what they begin as, where none is zero by chance.
///
/// # Errors
/// A gradient that is another than the differences, with the line that wrote the operator where it goes wrong; what ONNX
/// Runtime says.
pub fn compare(runtime: &'static Runtime, trial: &Trial) -> Result<Agreement> {
    let fed = feed(runtime, trial)?;
    let mut agreement = Agreement {
        parameters: trial.adapted.params.len(),
        compared: 0,
        largest: 0.0,
        stopped: stops(trial).map(|v| trial.adapted.places.get(&v).cloned().unwrap_or_default()).collect(),
    };
    let trained = trial.trained();
    if trained.is_empty() {
        return Ok(agreement);
    }
    let mut both = Both::new(runtime, trial, &trial.adapted.graph, trial.from, &trained, &fed)?;
    let grads = both.gradients(&fed)?;
    let scale = grads.iter().flatten().fold(f64::MIN_POSITIVE, |m, g| m.max(g.abs()));
    for (p, grad) in trained.iter().zip(&grads) {
        for direction in directions(p) {
            let c = both.compare(&fed, p, grad, &direction)?;
            if !c.agrees {
                return Err(wrong(runtime, trial, &fed, p, &direction, &c));
            }
            agreement.compared += 1;
            agreement.largest = agreement.largest.max((c.derivative - c.difference).abs());
        }
    }
    agreement.largest /= scale;
    Ok(agreement)
}

/// The values through which nothing flows and that something depends on.
fn stops(trial: &Trial) -> impl Iterator<Item = ValueId> {
    let made = trial.adapted.graph.producers();
    trial.adapted.stopped.iter().copied().filter(move |v| made[v.index()].is_some())
}

/// A graph and the one with its gradients, loaded. In the first, what nothing flows through is an input.
struct Both {
    forward: Session,
    gradient: Session,
    from: String,
    grads: Vec<String>,
}

impl Both {
    fn new(
        runtime: &'static Runtime,
        trial: &Trial,
        graph: &Graph,
        from: ValueId,
        wrt: &[&Param],
        fed: &HashMap<String, Tensor>,
    ) -> Result<Both> {
        let (mut with, values) = trial.gradients_in(graph.clone(), from, wrt).map_err(|e| trial.fail(e))?;
        let names: Vec<String> = wrt.iter().map(|p| p.name.clone()).collect();
        with.outputs.clear();
        expose(&mut with, &values, &names);
        let mut held = graph.clone();
        held.outputs = vec![from];
        let stopped: Vec<ValueId> = stops(trial).collect();
        held.nodes.retain(|n| !n.outputs.iter().flatten().any(|o| stopped.contains(o)));
        held.inputs.extend(stopped);
        held.remove_dead();
        Ok(Both {
            forward: load(runtime, held, fed)?,
            gradient: load(runtime, with, fed)?,
            from: graph.name_of(from).to_owned(),
            grads: names.iter().map(|n| format!("grad:{n}")).collect(),
        })
    }

    fn gradients(&mut self, fed: &HashMap<String, Tensor>) -> Result<Vec<Vec<f64>>> {
        let wanted: Vec<&str> = self.grads.iter().map(String::as_str).collect();
        let inputs = self.gradient.inputs().iter().map(|p| p.name.clone()).collect::<Vec<_>>();
        let run = self.gradient.run(&picked(&inputs, fed), &wanted)?;
        wanted.iter().map(|n| Ok(run.tensor(n)?.to_f64s().unwrap_or_default())).collect()
    }

    fn value(&mut self, fed: &HashMap<String, Tensor>) -> Result<f64> {
        let inputs = self.forward.inputs().iter().map(|p| p.name.clone()).collect::<Vec<_>>();
        Ok(f64::from(self.forward.run(&picked(&inputs, fed), &[&self.from])?.scalar(&self.from)?))
    }

    /// The derivative along a direction of length 1, from the gradient and from differences.
    fn compare(
        &mut self,
        fed: &HashMap<String, Tensor>,
        p: &Param,
        grad: &[f64],
        direction: &[f64],
    ) -> Result<Compared> {
        let largest = grad.iter().fold(0f64, |m, g| m.max(g.abs()));
        let derivative: f64 = grad.iter().zip(direction).map(|(g, d)| g * d).sum();
        let start = fed.get(&p.name).and_then(Tensor::to_f64s).unwrap_or_default();
        let here = self.value(fed)?.abs().max(1.0);
        let mut best = Compared { derivative, difference: f64::NAN, agrees: false };
        for step in STEPS {
            let mut moved = fed.clone();
            let mut at = |by: f64| -> Result<(f64, f64)> {
                let values: Vec<f32> =
                    start.iter().zip(direction).map(|(x, d)| (x + by * d) as f32).collect();
                // How far it really is: float32 rounds.
                let far = values.iter().zip(&start).zip(direction).map(|((v, x), d)| (f64::from(*v) - x) * d);
                let far = far.sum();
                moved.insert(p.name.clone(), Tensor::new(p.shape.clone(), &values)?);
                Ok((self.value(&moved)?, far))
            };
            let ((up, high), (down, low)) = (at(step)?, at(-step)?);
            let difference = (up - down) / (high - low);
            // Written so that a number that is none is no agreement.
            if (difference - derivative).abs() <= CURVE * largest + ROUNDING * here / step {
                return Ok(Compared { difference, agrees: true, ..best });
            }
            if best.difference.is_nan()
                || (difference - derivative).abs() < (best.difference - derivative).abs()
            {
                best.difference = difference;
            }
        }
        Ok(best)
    }
}

fn picked<'a>(names: &[String], fed: &'a HashMap<String, Tensor>) -> Vec<(&'a str, &'a Tensor)> {
    names.iter().filter_map(|n| fed.get_key_value(n)).map(|(n, t)| (n.as_str(), t)).collect()
}

/// A session of the graph; inputs that nothing reads and nothing feeds are left out.
fn load(runtime: &'static Runtime, mut graph: Graph, fed: &HashMap<String, Tensor>) -> Result<Session> {
    let read = graph.consumers();
    let outputs = graph.outputs.clone();
    let inputs = std::mem::take(&mut graph.inputs);
    let wanted = |v: &ValueId| !read[v.index()].is_empty() || outputs.contains(v);
    graph.inputs = inputs.into_iter().filter(wanted).collect();
    if let Some(v) = graph.inputs.iter().find(|v| !fed.contains_key(graph.name_of(**v))) {
        let what = format!("input '{}'", graph.name_of(*v));
        return Err(TaskError::Input { what, detail: "no data can be made up for it".into() });
    }
    let options =
        SessionOptions { name: "gradient check".into(), threads: Some(1), ..SessionOptions::default() };
    Ok(Session::new(runtime, &SessionSource::plain(onnx::to_bytes(&graph)), &options)?)
}
