//! AdamW as `torch.optim.AdamW` computes it.

use graft_graph::Tensor;
use indexmap::IndexMap;

use super::{Optimizer, read_all, read_step};
use crate::bulk::{self, PIECE};
use crate::error::TrainError;
use crate::params::{Parameters, tensor};

/// Adam with decoupled weight decay (Loshchilov and Hutter 2019), bias-corrected, `eps` outside the root.
pub struct AdamW {
    betas: (f64, f64),
    eps: f64,
    weight_decay: f64,
    step: u64,
    first: Vec<Vec<f32>>,
    second: Vec<Vec<f32>>,
}

impl AdamW {
    /// Empty state for these parameters.
    pub fn new(params: &Parameters, betas: (f64, f64), eps: f64, weight_decay: f64) -> Self {
        AdamW { betas, eps, weight_decay, step: 0, first: params.zeros(), second: params.zeros() }
    }
}

/// `a + weight · (b − a)`, written around the nearer end as torch's `lerp` is.
fn lerp(a: f32, b: f32, weight: f32) -> f32 {
    if weight < 0.5 { a + weight * (b - a) } else { b - (b - a) * (1.0 - weight) }
}

impl Optimizer for AdamW {
    fn step(&mut self, params: &mut Parameters, grads: &[Vec<f32>], lr: f64) {
        self.step += 1;
        let (b1, b2) = self.betas;
        // Portable `pow`: the standard library's depends on the platform, and the result enters every bit.
        let correction1 = 1.0 - libm::pow(b1, self.step as f64);
        let correction2 = (1.0 - libm::pow(b2, self.step as f64)).sqrt() as f32;
        let (w1, b2, w2, eps) = ((1.0 - b1) as f32, b2 as f32, (1.0 - b2) as f32, self.eps as f32);
        let elements = params.elements();
        let moments = self.first.iter_mut().zip(&mut self.second);
        let mut pieces = Vec::new();
        for ((p, g), (first, second)) in params.iter_mut().zip(grads).zip(moments) {
            let lr = lr * p.lr_scale;
            let keep = if p.decay { (1.0 - lr * self.weight_decay) as f32 } else { 1.0 };
            let size = (-lr / correction1) as f32;
            let moments = first.chunks_mut(PIECE).zip(second.chunks_mut(PIECE));
            let values = p.values.chunks_mut(PIECE).zip(g.chunks(PIECE));
            pieces.extend(values.zip(moments).map(|(v, m)| (v, m, keep, size)));
        }
        bulk::each(elements, pieces, |((values, g), (first, second), keep, size)| {
            for ((value, g), (m, v)) in values.iter_mut().zip(g).zip(first.iter_mut().zip(second)) {
                *m = lerp(*m, *g, w1);
                *v = *v * b2 + w2 * g * g;
                let root = v.sqrt() / correction2 + eps;
                *value = *value * keep + size * *m / root;
            }
        });
    }

    fn export(&self, params: &Parameters) -> IndexMap<String, Tensor> {
        let mut out = IndexMap::from([("step".to_string(), Tensor::scalar(self.step as i64))]);
        for ((p, m), v) in params.iter().zip(&self.first).zip(&self.second) {
            out.insert(format!("{}.exp_avg", p.name), tensor(&p.shape, m));
            out.insert(format!("{}.exp_avg_sq", p.name), tensor(&p.shape, v));
        }
        out
    }

    fn import(&mut self, params: &Parameters, state: &IndexMap<String, Tensor>) -> Result<(), TrainError> {
        let step = read_step(state)?;
        let (first, second) = (read_all(state, params, "exp_avg")?, read_all(state, params, "exp_avg_sq")?);
        (self.step, self.first, self.second) = (step, first, second);
        Ok(())
    }
}
