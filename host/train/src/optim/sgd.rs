//! SGD as `torch.optim.SGD` computes it (no dampening).

use graft_graph::Tensor;
use indexmap::IndexMap;

use super::{Optimizer, read_all, read_step};
use crate::error::TrainError;
use crate::params::{Parameters, tensor};

/// Stochastic gradient descent; weight decay is part of the gradient, and the first step sets the momentum buffer to
/// the gradient itself.
pub struct Sgd {
    momentum: f64,
    nesterov: bool,
    weight_decay: f64,
    step: u64,
    /// Empty without momentum.
    buffer: Vec<Vec<f32>>,
}

impl Sgd {
    /// Empty state for these parameters.
    pub fn new(params: &Parameters, momentum: f64, nesterov: bool, weight_decay: f64) -> Self {
        let buffer = if momentum == 0.0 { Vec::new() } else { params.zeros() };
        Sgd { momentum, nesterov, weight_decay, step: 0, buffer }
    }
}

impl Optimizer for Sgd {
    fn step(&mut self, params: &mut Parameters, grads: &[Vec<f32>], lr: f64) {
        let (first, mu) = (self.step == 0, self.momentum as f32);
        self.step += 1;
        for (i, (p, g)) in params.iter_mut().zip(grads).enumerate() {
            let rate = (-lr * p.lr_scale) as f32;
            let decay = if p.decay { self.weight_decay as f32 } else { 0.0 };
            let Some(buffer) = self.buffer.get_mut(i) else {
                p.values.iter_mut().zip(g).for_each(|(v, g)| *v += rate * (g + decay * *v));
                continue;
            };
            for ((v, g), b) in p.values.iter_mut().zip(g).zip(buffer) {
                let g = g + decay * *v;
                *b = if first { g } else { *b * mu + g };
                *v += rate * if self.nesterov { g + mu * *b } else { *b };
            }
        }
    }

    fn export(&self, params: &Parameters) -> IndexMap<String, Tensor> {
        let mut out = IndexMap::from([("step".to_string(), Tensor::scalar(self.step as i64))]);
        for (p, b) in params.iter().zip(&self.buffer) {
            out.insert(format!("{}.momentum_buffer", p.name), tensor(&p.shape, b));
        }
        out
    }

    fn import(&mut self, params: &Parameters, state: &IndexMap<String, Tensor>) -> Result<(), TrainError> {
        let step = read_step(state)?;
        if self.momentum != 0.0 {
            self.buffer = read_all(state, params, "momentum_buffer")?;
        }
        self.step = step;
        Ok(())
    }
}
