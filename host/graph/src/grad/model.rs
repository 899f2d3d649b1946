//! The gradient of a whole model as a model of its own.

use std::collections::HashMap;

use super::{GradError, grad, missing_rule, trainable_constants};
use crate::builder::Builder;
use crate::cse::join_equal;
use crate::ir::{Graph, ValueId};
use crate::raise::raise_around;
use crate::shape;
use crate::tied::{Copy, copies};

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
    let named = |names: &[String]| -> Result<Vec<ValueId>, GradError> {
        let find = |n: &String| graph.find(n).ok_or_else(|| GradError::UnknownValue { value: n.clone() });
        names.iter().map(find).collect()
    };
    let named = wrt.map(named).transpose()?;
    raise_around(&mut graph, named.as_deref().unwrap_or_default());
    let outputs: Vec<ValueId> =
        graph.outputs.iter().copied().filter(|o| graph.dtype(*o).is_none_or(|d| d.is_float())).collect();
    let wanted = named.unwrap_or_else(|| trainable_constants(&graph, &outputs));
    let seeds = cotangents(&mut graph, &outputs, &wanted)?;
    let trainable = trainable_constants(&graph, &outputs);
    let tied = |v: &ValueId| if trainable.contains(v) { copies(&graph, *v, &trainable) } else { Vec::new() };
    let partners: Vec<Vec<Copy>> = wanted.iter().map(tied).collect();
    let mut all = wanted.clone();
    all.extend(partners.iter().flatten().map(|p| p.value));
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

/// Adds an input `ct:OUTPUT` of the type and shape of each output, and gives the pairs of both.
///
/// # Errors
/// [`GradError`] where a shape is not known: the operator between `wrt` and the outputs that has no rule, if there is one,
/// else the one that hides the shape.
pub fn cotangents(
    graph: &mut Graph,
    outputs: &[ValueId],
    wrt: &[ValueId],
) -> Result<Vec<(ValueId, ValueId)>, GradError> {
    let mut pairs = Vec::with_capacity(outputs.len());
    for o in outputs {
        let (name, fact) = (format!("ct:{}", graph.name_of(*o)), graph.fact(*o).clone());
        let unknown = || GradError::UnknownShape {
            value: graph.name_of(*o).into(),
            since: shape::unknown_since(graph, *o),
        };
        let shape = fact.shape.ok_or_else(|| missing_rule(graph, outputs, wrt).unwrap_or_else(unknown))?;
        pairs.push((*o, graph.add_input(&name, fact.dtype.unwrap_or(crate::DType::F32), shape)));
    }
    Ok(pairs)
}

/// The gradient of each wanted value, with those of its partners added.
fn sum_tied(
    graph: &mut Graph,
    wanted: &[ValueId],
    partners: &[Vec<Copy>],
    own: &HashMap<ValueId, ValueId>,
) -> Vec<ValueId> {
    let mut b = Builder::new(graph, "grad/tied/");
    let mut sums = Vec::with_capacity(wanted.len());
    for (v, partners) in wanted.iter().zip(partners) {
        let mut sum = own[v];
        for p in partners {
            let g = own[&p.value];
            let g = if p.transposed { b.op("Transpose", &[g]) } else { g };
            sum = b.op("Add", &[sum, g]);
        }
        sums.push(sum);
    }
    sums
}

/// Makes each gradient an output called `grad:NAME`. One that is the gradient of several, or that no node computes, is
/// copied by an `Identity`.
pub fn expose(graph: &mut Graph, grads: &[ValueId], names: &[String]) {
    let producers = graph.producers();
    for (g, name) in grads.iter().zip(names) {
        let own = producers[g.index()].is_some() && !graph.outputs.contains(g);
        let out = if own { *g } else { Builder::new(graph, "grad/out/").op("Identity", &[*g]) };
        graph.rename(out, &format!("grad:{name}"));
        graph.outputs.push(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dim::Dim;
    use crate::ir::{Fact, Node};
    use crate::tensor::{DType, Tensor};

    /// Where an operator has neither a rule nor a known shape, the rule is what the user is told of.
    #[test]
    fn a_loop_is_refused_by_name_with_a_way_out() {
        let mut g = Graph::new("t", 20);
        let x = g.add_input("x", DType::F32, vec![Dim::from("n"), Dim::from(2)]);
        let w = g.add_constant("w", Tensor::new([2, 2], &[1f32, 2.0, 3.0, 4.0]).unwrap());
        let h = Builder::new(&mut g, "").op("MatMul", &[x, w]);
        let y = g.add_value("y", Fact::default());
        g.nodes.push(Node {
            op: "Loop".into(),
            name: "/encoder/Loop".into(),
            inputs: vec![None, None, Some(h)],
            outputs: vec![Some(y)],
            ..Node::default()
        });
        g.outputs = vec![y];
        shape::infer(&mut g);
        let Err(e) = gradient_model(&g, None) else { panic!("loops have no rule") };
        let words = e.to_string();
        assert!(words.contains("operator Loop") && words.contains("unrolls"), "{words}");
        assert!(words.contains("module 'encoder'"), "{words}");
    }
}
