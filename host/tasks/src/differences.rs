//! The gradients of a plugin, compared with central differences on a tiny base. In float32, as training is.

use std::collections::HashMap;

use graft_graph::grad::expose;
use graft_graph::{Attr, Builder, DType, Graph, Tensor, ValueId, onnx};
use graft_plugins::adapt::{self, Noise, Param};
use graft_plugins::api::{Code, Distribution, Error, Init};
use graft_plugins::{GraphHost, NoGraph, Trial};
use graft_runtime::{Runtime, Session, SessionOptions, SessionSource};

use crate::error::{Result, TaskError};

/// Half the distances of the two points that a difference is taken over. A kink that lies between the points of one pair
/// lies outside of a nearer one; rounding weighs more there, see [`bound`].
const STEPS: [f64; 3] = [1e-2, 2.5e-3, 6e-4];

/// Largest error of a difference, relative to the largest element of the gradient: what the curve of the function makes.
const CURVE: f64 = 5e-3;

/// Rounding of the function's value, relative to it (or to 1, where that is smaller).
const ROUNDING: f64 = 1e-6;

/// Elements of each parameter that are compared one by one, besides all of them at once.
const ELEMENTS: usize = 4;

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

/// A direction of all elements, and some single ones; each of length 1.
fn directions(p: &Param) -> Vec<Vec<f64>> {
    let count: usize = p.shape.iter().product();
    let length = (count as f64).sqrt();
    let signs = NoGraph.random(1, &p.name, count as u64).unwrap_or_default();
    let mut directions = vec![signs.iter().map(|s| if *s < 0.5 { -1.0 } else { 1.0 } / length).collect()];
    for i in (0..count).step_by(count.div_ceil(ELEMENTS).max(1)) {
        directions.push((0..count).map(|k| f64::from(u8::from(k == i))).collect());
    }
    directions
}

/// What every input is: data, parameters, settings, noise, states, and what nothing flows through.
fn feed(runtime: &'static Runtime, trial: &Trial) -> Result<HashMap<String, Tensor>> {
    let a = &trial.adapted;
    let mut fed: HashMap<String, Tensor> = trial.inputs.iter().cloned().collect();
    fed.extend(a.settings.iter().map(|s| (s.input.clone(), Tensor::scalar(s.number))));
    for n in &a.noises {
        fed.insert(n.name.clone(), noise(trial, n)?);
    }
    for s in &a.states {
        let name = a.graph.name_of(s.value).to_owned();
        fed.insert(name.clone(), near(&name, &s.shape, &s.init, None, 0.0)?);
    }
    let mut computed = computed(runtime, trial)?.into_iter();
    for p in &a.params {
        let start = if matches!(p.init, Init::Computed(_)) { computed.next() } else { None };
        fed.insert(p.name.clone(), near(&p.name, &p.shape, &p.init, start, 0.25)?);
    }
    let stopped: Vec<ValueId> = stops(trial).collect();
    if !stopped.is_empty() {
        let mut graph = a.graph.clone();
        let names: Vec<String> = stopped.iter().map(|v| graph.name_of(*v).to_owned()).collect();
        graph.outputs = stopped;
        graph.remove_dead();
        let mut session = load(runtime, graph, &fed)?;
        let inputs = session.inputs().iter().map(|p| p.name.clone()).collect::<Vec<_>>();
        let wanted: Vec<&str> = names.iter().map(String::as_str).collect();
        let run = session.run(&picked(&inputs, &fed), &wanted)?;
        let tensors = names.iter().map(|n| Ok((n.clone(), run.tensor(n)?))).collect::<Result<Vec<_>>>()?;
        fed.extend(tensors);
    }
    Ok(fed)
}

/// What parameters begin as that are computed from weights, in their order.
fn computed(runtime: &'static Runtime, trial: &Trial) -> Result<Vec<Tensor>> {
    let graph = &trial.adapted.starts;
    if graph.outputs.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<&str> = graph.outputs.iter().map(|v| graph.name_of(*v)).collect();
    let mut session = load(runtime, graph.clone(), &HashMap::new())?;
    let run = session.run(&[], &names)?;
    names.iter().map(|n| Ok(run.tensor(n)?)).collect()
}

/// Numbers within ±`spread` of what a parameter begins as.
fn near(name: &str, shape: &[usize], init: &Init, computed: Option<Tensor>, spread: f32) -> Result<Tensor> {
    let count: usize = shape.iter().product();
    let middle: Vec<f32> = match (init, computed) {
        (_, Some(t)) => t.to_f64s().unwrap_or_default().into_iter().map(|v| v as f32).collect(),
        (Init::Ones, _) => vec![1.0; count],
        (Init::Full(v), _) => vec![*v as f32; count],
        (Init::Given(t), _) => adapt::to_graph_tensor(t.clone())
            .map_err(unfit)?
            .to_f64s()
            .unwrap_or_default()
            .into_iter()
            .map(|v| v as f32)
            .collect(),
        _ => vec![0.0; count],
    };
    let drawn = NoGraph.random(0, name, count as u64).map_err(unfit)?;
    let values: Vec<f32> = middle.iter().zip(drawn).map(|(m, d)| m + 2.0 * spread * (d - 0.5)).collect();
    Ok(Tensor::new(shape, &values)?)
}

fn noise(trial: &Trial, n: &Noise) -> Result<Tensor> {
    let size = |s: &str| match s {
        "batch" => Some(trial.rows as i64),
        "sequence" => Some(trial.length as i64),
        _ => None,
    };
    let dims = n.shape.iter().map(|d| d.evaluate(&size).and_then(|v| usize::try_from(v).ok()));
    let shape: Vec<usize> = dims.collect::<Option<_>>().ok_or_else(|| TaskError::Input {
        what: format!("noise '{}'", n.name),
        detail: "it has a size that the tiny base does not tell".into(),
    })?;
    let drawn = NoGraph.random(2, &n.name, shape.iter().product::<usize>() as u64).map_err(unfit)?;
    let number = |u: f32| match n.distribution {
        Distribution::Uniform { low, high } => low + (high - low) * u,
        // Of the same spread; which distribution it is does not matter to a derivative.
        Distribution::Normal { mean, std } => mean + std * (u - 0.5) * 12f32.sqrt(),
        Distribution::Bernoulli { keep, value } => {
            if u < keep {
                value
            } else {
                0.0
            }
        }
    };
    Ok(Tensor::new(shape, &drawn.into_iter().map(number).collect::<Vec<f32>>())?)
}

fn unfit(e: Error) -> TaskError {
    TaskError::Input { what: "the tiny base".into(), detail: e.to_string() }
}

/// The error of a wrong gradient: it names the first operator of the plugin whose own derivative is wrong.
fn wrong(
    runtime: &'static Runtime,
    trial: &Trial,
    fed: &HashMap<String, Tensor>,
    p: &Param,
    direction: &[f64],
    c: &Compared,
) -> TaskError {
    let a = &trial.adapted;
    let culprit = a.graph.nodes.iter().find(|n| {
        let made = n.outputs.iter().flatten().find(|o| a.places.contains_key(o));
        made.is_some_and(|v| !agrees_at(runtime, trial, fed, *v, p, direction))
    });
    let mut what = format!(
        "the gradient of `{}` is {:.4e} in one direction, and differences give {:.4e}",
        p.name, c.derivative, c.difference
    );
    let made = culprit.and_then(|n| n.outputs.iter().flatten().next().copied());
    if let Some(n) = culprit {
        what += &format!("; it goes wrong at the operator {}", n.full_op());
    }
    let place = made.or(Some(p.value)).and_then(|v| a.places.get(&v)).cloned().unwrap_or_default();
    let help =
        "A result that jumps, or has a kink where it is used, has no derivative that training can follow";
    let e = Error {
        place,
        ..Error::new(Code::FAILED, what).help(help).at(p.site.as_deref().unwrap_or_default())
    };
    TaskError::Plugin(trial.fail(e))
}

/// True where a value's own derivative is what differences say, as far as can be told.
fn agrees_at(
    runtime: &'static Runtime,
    trial: &Trial,
    fed: &HashMap<String, Tensor>,
    value: ValueId,
    p: &Param,
    direction: &[f64],
) -> bool {
    let mut graph = trial.adapted.graph.clone();
    if graph.dtype(value) != Some(DType::F32) {
        return true;
    }
    let mut b = Builder::new(&mut graph, "check/");
    let square = b.op("Mul", &[value, value]);
    let both = b.op("Add", &[square, value]);
    let sum = b.op_with("ReduceSum", &[both], &[("keepdims", Attr::Int(0))]);
    let compared = match Both::new(runtime, trial, &graph, sum, &[p], fed) {
        Ok(mut both) => both.gradients(fed).and_then(|g| both.compare(fed, p, &g[0], direction)),
        // Without a gradient it is right only where the value does not change: what the next operators tell.
        Err(_) => return !changes(runtime, &graph, sum, fed, p, direction),
    };
    compared.is_ok_and(|c| c.agrees)
}

/// Whether the value `from` is another a step along the direction.
fn changes(
    runtime: &'static Runtime,
    graph: &Graph,
    from: ValueId,
    fed: &HashMap<String, Tensor>,
    p: &Param,
    direction: &[f64],
) -> bool {
    let mut graph = graph.clone();
    graph.outputs = vec![from];
    graph.remove_dead();
    let name = graph.name_of(from).to_owned();
    let Ok(mut session) = load(runtime, graph, fed) else { return false };
    let inputs = session.inputs().iter().map(|p| p.name.clone()).collect::<Vec<_>>();
    let mut at = |fed: &HashMap<String, Tensor>| {
        session.run(&picked(&inputs, fed), &[&name]).and_then(|r| r.scalar(&name)).ok()
    };
    let start = fed.get(&p.name).and_then(Tensor::to_f64s).unwrap_or_default();
    let values: Vec<f32> = start.iter().zip(direction).map(|(x, d)| (x + STEPS[0] * d) as f32).collect();
    let mut moved = fed.clone();
    if let Ok(t) = Tensor::new(p.shape.clone(), &values) {
        moved.insert(p.name.clone(), t);
    }
    at(fed) != at(&moved)
}
