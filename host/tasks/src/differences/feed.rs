//! What the inputs of a trial are, and along which directions derivatives are taken.

use std::collections::HashMap;

use graft_graph::{Tensor, ValueId};
use graft_plugins::adapt::{self, Noise, Param, Start};
use graft_plugins::api::{Distribution, Error, Init};
use graft_plugins::{GraphHost, NoGraph, Trial};
use graft_runtime::Runtime;

use super::{load, picked, stops};
use crate::error::{Result, TaskError};

/// Elements of each parameter that are compared one by one, besides all of them at once.
const ELEMENTS: usize = 4;

/// A direction of all elements, and some single ones; each of length 1.
pub(super) fn directions(p: &Param) -> Vec<Vec<f64>> {
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
pub(super) fn feed(runtime: &'static Runtime, trial: &Trial) -> Result<HashMap<String, Tensor>> {
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
        let (init, start) = match &p.init {
            Start::Base(values) => (&Init::Zeros, Some(values.clone())),
            Start::Asked(init @ Init::Computed(_)) => (init, computed.next()),
            Start::Asked(init) => (init, None),
        };
        fed.insert(p.name.clone(), near(&p.name, &p.shape, init, start, 0.25)?);
    }
    let stopped: Vec<ValueId> = stops(trial).collect();
    if !stopped.is_empty() {
        let graph = a.graph.cut_to(&stopped);
        let names: Vec<String> = stopped.iter().map(|v| graph.name_of(*v).to_owned()).collect();
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
