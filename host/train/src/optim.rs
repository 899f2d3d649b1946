//! Optimisers over named f32 parameters, with the arithmetic of torch's.

mod adamw;
mod sgd;
#[cfg(test)]
mod tests;

pub use adamw::AdamW;
pub use sgd::Sgd;

use graft_graph::Tensor;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::error::TrainError;
use crate::params::{Parameter, Parameters};

/// Which optimiser a recipe names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// Adam with decoupled weight decay.
    #[default]
    AdamW,
    /// Stochastic gradient descent.
    Sgd,
}

/// An optimiser with its settings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum OptimizerConfig {
    /// AdamW (Loshchilov and Hutter 2019).
    AdamW {
        /// Decay rates of the first and second moment.
        betas: (f64, f64),
        /// Added to the root of the second moment.
        eps: f64,
        /// Decoupled weight decay.
        weight_decay: f64,
    },
    /// SGD with momentum and weight decay as part of the gradient.
    Sgd {
        /// Momentum; 0 for none.
        momentum: f64,
        /// Looks ahead along the momentum.
        nesterov: bool,
        /// Weight decay.
        weight_decay: f64,
    },
}

impl OptimizerConfig {
    /// The optimiser with empty state for these parameters.
    pub fn build(&self, params: &Parameters) -> Box<dyn Optimizer> {
        match *self {
            OptimizerConfig::AdamW { betas, eps, weight_decay } => {
                Box::new(AdamW::new(params, betas, eps, weight_decay))
            }
            OptimizerConfig::Sgd { momentum, nesterov, weight_decay } => {
                Box::new(Sgd::new(params, momentum, nesterov, weight_decay))
            }
        }
    }
}

/// Turns gradients into new values of the parameters. State and arithmetic are f32, as torch's are for f32
/// parameters; the same inputs give the same bits.
pub trait Optimizer: Send {
    /// Updates `params` in place. `grads` has one buffer for each parameter, in order and as long as it; `lr` is
    /// multiplied by each parameter's own `lr_scale`.
    fn step(&mut self, params: &mut Parameters, grads: &[Vec<f32>], lr: f64);

    /// The state as named f32 tensors: `step` (shape `[]`, i64) and, for each parameter, one or two tensors
    /// `NAME.exp_avg`, `NAME.exp_avg_sq` or `NAME.momentum_buffer` of its shape.
    fn export(&self, params: &Parameters) -> IndexMap<String, Tensor>;

    /// Takes over what [`Optimizer::export`] gave for the same parameters.
    ///
    /// # Errors
    /// [`TrainError::State`] when a tensor is missing or has another shape or type; nothing is changed then.
    fn import(&mut self, params: &Parameters, state: &IndexMap<String, Tensor>) -> Result<(), TrainError>;
}

fn missing(name: &str) -> TrainError {
    TrainError::State(format!("the tensor `{name}` is missing"))
}

/// The tensor `NAME.part`, which must be f32 of the parameter's shape.
fn read(state: &IndexMap<String, Tensor>, p: &Parameter, part: &str) -> Result<Vec<f32>, TrainError> {
    let name = format!("{}.{part}", p.name);
    let t = state.get(&name).ok_or_else(|| missing(&name))?;
    if t.shape() != p.shape {
        return Err(TrainError::State(format!("`{name}` has shape {:?}, not {:?}", t.shape(), p.shape)));
    }
    let values = t.values::<f32>().map_err(|e| TrainError::State(format!("`{name}`: {e}")))?;
    Ok(values.into_owned())
}

/// One part of the state of all parameters.
fn read_all(
    state: &IndexMap<String, Tensor>,
    params: &Parameters,
    part: &str,
) -> Result<Vec<Vec<f32>>, TrainError> {
    params.iter().map(|p| read(state, p, part)).collect()
}

/// The number of steps done.
fn read_step(state: &IndexMap<String, Tensor>) -> Result<u64, TrainError> {
    let t = state.get("step").ok_or_else(|| missing("step"))?;
    match t.to_i64s().as_deref() {
        Some([n]) if *n >= 0 => Ok(*n as u64),
        _ => Err(TrainError::State("`step` is not one number that counts steps".into())),
    }
}
