//! First values of parameters and the numbers of noise, from the words of plugins to those of the loop.

use std::collections::HashMap;

use graft_graph::{Dim, Tensor};
use graft_plugins::adapt::{Noise, Param};
use graft_plugins::api;
use graft_tasks::binding::certain;

use crate::error::{EngineError, TrainError};
use crate::random::{self, Distribution, Init};

/// The first values of a parameter, as the plugin asks for them.
pub(super) fn first_values(p: &Param, init: &api::Init, seed: u64) -> Result<Vec<f32>, TrainError> {
    let draw = |init: Init| init.values(seed, &p.name, &p.shape);
    let unfit = |m: String| TrainError::Plan(format!("the parameter `{}`: {m}", p.name));
    if let Some(values) = certain(init, p.shape.iter().product()) {
        return Ok(values);
    }
    match init {
        api::Init::Normal(std) => draw(Init::Normal { std: *std }),
        api::Init::Uniform(bound) => draw(Init::Uniform { bound: *bound }),
        api::Init::KaimingUniform(a) => draw(Init::KaimingUniform { a: *a }),
        api::Init::XavierUniform => draw(Init::XavierUniform),
        api::Init::Rows { table, .. } => Err(unfit(format!("the rows of `{table}` are not to be had here"))),
        api::Init::Computed(_) => Err(unfit("what it begins as was not computed".to_string())),
        // The host has checked what was given when it was declared.
        other => Err(unfit(format!("it cannot begin as {other:?}"))),
    }
}

/// The sizes that symbols of the base's inputs have in a batch.
pub(super) fn symbols<'a>(declared: impl Iterator<Item = (&'a [Dim], &'a Tensor)>) -> HashMap<String, i64> {
    let mut sizes = HashMap::new();
    for (dims, tensor) in declared {
        for (d, n) in dims.iter().zip(tensor.shape()) {
            if let Some(name) = d.as_symbol() {
                sizes.insert(name.to_string(), *n as i64);
            }
        }
    }
    sizes
}

/// Draws the noise `n` of a step.
pub(super) fn draw(
    n: &Noise,
    sizes: &HashMap<String, i64>,
    seed: u64,
    step: u64,
    micro: usize,
) -> Result<Tensor, EngineError> {
    let shape = n
        .shape
        .iter()
        .map(|d| d.evaluate(&|s| sizes.get(s).copied()).and_then(|v| usize::try_from(v).ok()))
        .collect::<Option<Vec<usize>>>()
        .ok_or_else(|| format!("the noise `{}` has a size that the batch does not tell", n.name))?;
    let mut values = vec![0f32; shape.iter().product()];
    let what = match n.distribution {
        api::Distribution::Uniform { low, high } => {
            Distribution::Uniform { low: low.into(), high: high.into() }
        }
        api::Distribution::Normal { mean, std } => {
            Distribution::Normal { mean: mean.into(), std: std.into() }
        }
        api::Distribution::Bernoulli { keep, .. } => Distribution::Bernoulli { p: keep.into() },
    };
    let stream = if micro == 0 { n.name.clone() } else { format!("{}#{micro}", n.name) };
    random::noise(seed, step, &stream, what, &mut values)?;
    if let api::Distribution::Bernoulli { value, .. } = n.distribution {
        values.iter_mut().for_each(|v| *v *= value);
    }
    Ok(Tensor::new(shape, &values)?)
}
