//! The gradient of a whole model as a model of its own.

use std::collections::HashMap;

use super::{GradError, grad, trainable_constants};
use crate::builder::Builder;
use crate::cse::join_equal;
use crate::ir::{Graph, ValueId};
use crate::raise::raise;
use crate::shape;
use crate::tensor::Tensor;

/// A model that computes gradients: inputs are those of the forward model and one cotangent `ct:OUTPUT` for each float
/// output; outputs are those of the forward model and one `grad:VALUE` for each wanted value.
pub struct GradientModel {
    /// The model.
    pub graph: Graph,
    /// Names of the values that gradients are given of; the outputs are called `grad:` and that name.
    pub wrt: Vec<String>,
}

/// Derives the gradient model of `Σ ct·output` with respect to the values named in `wrt`, or to every float constant
/// on a path to an output. A matrix that is in the file more than once, or transposed, is one parameter: each copy is
/// given the gradient of all its uses, as PyTorch does for tied weights.
///
/// # Errors
/// [`GradError`].
pub fn gradient_model(forward: &Graph, wrt: Option<&[String]>) -> Result<GradientModel, GradError> {
    let mut graph = forward.clone();
    raise(&mut graph);
    let outputs: Vec<ValueId> =
        graph.outputs.iter().copied().filter(|o| graph.dtype(*o).is_none_or(|d| d.is_float())).collect();
    let wanted: Vec<ValueId> = match wrt {
        None => trainable_constants(&graph, &outputs),
        Some(names) => names
            .iter()
            .map(|n| graph.find(n).ok_or_else(|| GradError::UnknownValue { value: n.clone() }))
            .collect::<Result<_, _>>()?,
    };
    let mut seeds = Vec::with_capacity(outputs.len());
    for o in outputs {
        let (name, fact) = (format!("ct:{}", graph.name_of(o)), graph.fact(o).clone());
        let unknown = || GradError::UnknownShape {
            value: graph.name_of(o).into(),
            since: shape::unknown_since(&graph, o),
        };
        let shape = fact.shape.ok_or_else(unknown)?;
        let dtype = fact.dtype.unwrap_or(crate::DType::F32);
        seeds.push((o, graph.add_input(&name, dtype, shape)));
    }
    let trainable = trainable_constants(&graph, &seeds.iter().map(|s| s.0).collect::<Vec<_>>());
    let partners: Vec<Vec<(ValueId, bool)>> =
        wanted.iter().map(|v| tied_to(&graph, *v, &trainable)).collect();
    let mut all = wanted.clone();
    all.extend(partners.iter().flatten().map(|p| p.0));
    all.sort_unstable();
    all.dedup();
    let own: HashMap<ValueId, ValueId> =
        all.iter().copied().zip(grad(&mut graph, &seeds, &all, &[])?).collect();
    let grads = sum_tied(&mut graph, &wanted, &partners, &own);
    let wrt: Vec<String> = wanted.iter().map(|v| graph.name_of(*v).to_string()).collect();
    expose(&mut graph, &grads, &wrt);
    join_equal(&mut graph);
    Ok(GradientModel { graph, wrt })
}

/// The constants among `trainable` that are the same parameter as `v`, and whether they are its transpose: exporters
/// write a matrix that has two uses (input and output embedding) a second time, often transposed. A matrix of one
/// number throughout is tied to none.
fn tied_to(graph: &Graph, v: ValueId, trainable: &[ValueId]) -> Vec<(ValueId, bool)> {
    let matrix = |v: ValueId| graph.constant(v).filter(|t| t.shape().len() == 2);
    let Some(t) = matrix(v).filter(|t| trainable.contains(&v) && !is_uniform(t)) else { return Vec::new() };
    let tie = |other: &ValueId| {
        let o = matrix(*other).filter(|o| *other != v && o.dtype() == t.dtype())?;
        if o.shape() == t.shape() && o.bytes() == t.bytes() {
            return Some((*other, false));
        }
        is_transpose(t, o).then_some((*other, true))
    };
    trainable.iter().filter_map(tie).collect()
}

fn is_uniform(t: &Tensor) -> bool {
    let size = t.dtype().bits() / 8;
    t.bytes().chunks(size.max(1)).all(|e| e == &t.bytes()[..size])
}

fn is_transpose(a: &Tensor, b: &Tensor) -> bool {
    let (rows, columns, size) = (a.shape()[0], a.shape()[1], a.dtype().bits() / 8);
    b.shape() == [columns, rows]
        && (0..rows).all(|i| {
            (0..columns).all(|j| {
                let (p, q) = ((i * columns + j) * size, (j * rows + i) * size);
                a.bytes()[p..p + size] == b.bytes()[q..q + size]
            })
        })
}

/// The gradient of each wanted value, with those of its partners added.
fn sum_tied(
    graph: &mut Graph,
    wanted: &[ValueId],
    partners: &[Vec<(ValueId, bool)>],
    own: &HashMap<ValueId, ValueId>,
) -> Vec<ValueId> {
    let mut b = Builder::new(graph, "grad/tied/");
    let mut sums = Vec::with_capacity(wanted.len());
    for (v, partners) in wanted.iter().zip(partners) {
        let mut sum = own[v];
        for (p, transposed) in partners {
            let g = if *transposed { b.op("Transpose", &[own[p]]) } else { own[p] };
            sum = b.op("Add", &[sum, g]);
        }
        sums.push(sum);
    }
    sums
}

/// Makes each gradient an output called `grad:NAME`. One value may be the gradient of several: copies get an
/// `Identity`.
pub fn expose(graph: &mut Graph, grads: &[ValueId], names: &[String]) {
    for (g, name) in grads.iter().zip(names) {
        let copy = Builder::new(graph, "grad/out/").op("Identity", &[*g]);
        graph.rename(copy, &format!("grad:{name}"));
        graph.outputs.push(copy);
    }
}
