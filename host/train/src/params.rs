//! Trainable parameters: named, flat f32 buffers that the loop owns and the engine reads.

use std::collections::HashSet;

use graft_graph::Tensor;

use crate::bulk::{self, PIECE};
use crate::error::TrainError;

/// One trainable tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// Unique name, also that of its optimiser state.
    pub name: String,
    /// Dimensions; their product is the length of `values`.
    pub shape: Vec<usize>,
    /// Elements in row-major order.
    pub values: Vec<f32>,
    /// Whether weight decay applies. [`Parameter::new`] sets it for tensors of rank 2 or more: biases and norms
    /// are not decayed.
    pub decay: bool,
    /// Multiplies the learning rate of this tensor alone.
    pub lr_scale: f64,
}

impl Parameter {
    /// A parameter with the usual decay rule and a learning rate multiplier of 1.
    ///
    /// # Errors
    /// [`TrainError::Plan`] when `values` are not as many as the shape asks for.
    pub fn new(
        name: impl Into<String>,
        shape: impl Into<Vec<usize>>,
        values: Vec<f32>,
    ) -> Result<Self, TrainError> {
        let (name, shape) = (name.into(), shape.into());
        let count = shape.iter().try_fold(1usize, |a, d| a.checked_mul(*d));
        if count != Some(values.len()) {
            let n = values.len();
            return Err(TrainError::Plan(format!(
                "the parameter `{name}` of shape {shape:?} cannot hold {n} values"
            )));
        }
        let decay = shape.len() >= 2;
        Ok(Parameter { name, shape, values, decay, lr_scale: 1.0 })
    }
}

/// All trainable parameters in a fixed order; gradients come as one buffer each in the same order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Parameters {
    list: Vec<Parameter>,
}

impl Parameters {
    /// Takes the parameters in the order in which they are updated and their norm is summed.
    ///
    /// # Errors
    /// [`TrainError::Plan`] when two have the same name.
    pub fn new(list: Vec<Parameter>) -> Result<Self, TrainError> {
        let mut seen = HashSet::new();
        match list.iter().find(|p| !seen.insert(p.name.as_str())) {
            Some(p) => Err(TrainError::Plan(format!("two trainable parameters are called `{}`", p.name))),
            None => Ok(Parameters { list }),
        }
    }

    /// The parameters in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Parameter> {
        self.list.iter()
    }

    /// The parameters in order, to be changed; shapes and names must stay.
    pub fn iter_mut(&mut self) -> std::slice::IterMut<'_, Parameter> {
        self.list.iter_mut()
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// True when nothing is trained.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Number of elements of all tensors: "trainable parameters" as people count them.
    pub fn elements(&self) -> usize {
        self.list.iter().map(|p| p.values.len()).sum()
    }

    /// The parameter of that name.
    pub fn get(&self, name: &str) -> Option<&Parameter> {
        self.list.iter().find(|p| p.name == name)
    }

    /// The parameter of that name, to be changed.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Parameter> {
        self.list.iter_mut().find(|p| p.name == name)
    }

    /// Buffers of zeros, one for each parameter, as long as it.
    pub fn zeros(&self) -> Vec<Vec<f32>> {
        self.list.iter().map(|p| vec![0.0; p.values.len()]).collect()
    }

    /// Copies of all values, in order.
    pub fn snapshot(&self) -> Vec<Vec<f32>> {
        self.list.iter().map(|p| p.values.clone()).collect()
    }

    /// Copies the values into buffers that [`Parameters::zeros`] or [`Parameters::snapshot`] made.
    pub fn save_to(&self, buffers: &mut [Vec<f32>]) {
        let pieces = self.list.iter().zip(buffers);
        let pieces = pieces.flat_map(|(p, b)| p.values.chunks(PIECE).zip(b.chunks_mut(PIECE))).collect();
        bulk::each(self.elements(), pieces, |(from, to): (&[f32], &mut [f32])| to.copy_from_slice(from));
    }

    /// Puts back what [`Parameters::save_to`] copied.
    pub fn restore_from(&mut self, buffers: &[Vec<f32>]) {
        self.list.iter_mut().zip(buffers).for_each(|(p, b)| p.values.copy_from_slice(b));
    }

    /// Name and tensor (f32) of each parameter, in order.
    pub fn tensors(&self) -> Vec<(String, Tensor)> {
        self.list.iter().map(|p| (p.name.clone(), tensor(&p.shape, &p.values))).collect()
    }
}

/// A tensor of `values` whose number is known to fit the shape.
pub(crate) fn tensor(shape: &[usize], values: &[f32]) -> Tensor {
    Tensor::new(shape, values).expect("a parameter's shape fits its values, which its constructor checks")
}
