//! Normalisations with what optimisers join to them: residual sums, biases, embeddings.

use super::{Lower, MICROSOFT, Outputs, Row};
use crate::ir::{Attr, ValueId};
use crate::tensor::{DType, Tensor};

pub(super) const RULES: &[Row] = &[
    (MICROSOFT, "SkipLayerNormalization", |l| {
        let sum = residual(l, l.node.input(4))?;
        let (scale, bias) = (l.x(2)?, l.node.input(3));
        let y = layer_norm(l, sum, scale, bias, 1e-12)?;
        Ok(vec![Some(y), None, None, Some(sum)])
    }),
    (MICROSOFT, "SkipSimplifiedLayerNormalization", |l| {
        let sum = residual(l, l.node.input(3))?;
        let scale = l.x(2)?;
        let y = rms_norm(l, sum, scale, 1e-12);
        Ok(vec![Some(y), None, None, Some(sum)])
    }),
    // ONNX Runtime's optimiser writes it into ONNX's own domain, where no operator set has it.
    ("", "SimplifiedLayerNormalization", simplified),
    (MICROSOFT, "EmbedLayerNormalization", embed),
];

fn simplified(l: &mut Lower<'_, '_>) -> Outputs {
    let (x, scale) = (l.x(0)?, l.x(1)?);
    let (axis, rank) = (l.node.int("axis", -1), l.rank(x)? as i64);
    if axis != -1 && axis != rank - 1 {
        return Err("normalisation over more than the last axis is not derived".into());
    }
    Ok(vec![Some(rms_norm(l, x, scale, 1e-5))])
}

/// `input + skip`, with the bias of the product in front joined to that product, so that it is seen to be its bias.
fn residual(l: &mut Lower<'_, '_>, bias: Option<ValueId>) -> Result<ValueId, String> {
    let (mut x, mut skip) = (l.x(0)?, l.x(1)?);
    if let Some(bias) = bias {
        // Optimisers put a product's result directly in front.
        let recent = l.b.graph.nodes.iter().rev().take(64);
        let products: Vec<Option<ValueId>> =
            recent.filter(|n| n.op.contains("MatMul")).map(|n| n.output(0)).collect();
        let to =
            if !products.contains(&Some(x)) && products.contains(&Some(skip)) { &mut skip } else { &mut x };
        *to = l.b.op("Add", &[*to, bias]);
    }
    Ok(l.op("Add", &[x, skip]))
}

fn layer_norm(
    l: &mut Lower<'_, '_>,
    x: ValueId,
    scale: ValueId,
    bias: Option<ValueId>,
    epsilon: f32,
) -> Result<ValueId, String> {
    let epsilon = Attr::Float(l.node.float("epsilon", epsilon));
    let inputs: Vec<ValueId> = [x, scale].into_iter().chain(bias).collect();
    Ok(l.op_with("LayerNormalization", &inputs, &[("axis", Attr::Int(-1)), ("epsilon", epsilon)]))
}

/// `x/√(mean(x²) + ε)·scale` over the last axis, in the form that exporters write (Zhang & Sennrich 2019).
fn rms_norm(l: &mut Lower<'_, '_>, x: ValueId, scale: ValueId, epsilon: f32) -> ValueId {
    let (two, axes) = (l.c(2.0, x), l.b.ints(&[-1]));
    let epsilon = l.c(f64::from(l.node.float("epsilon", epsilon)), x);
    let square = l.op("Pow", &[x, two]);
    let mean = l.op("ReduceMean", &[square, axes]);
    let sum = l.op("Add", &[mean, epsilon]);
    let root = l.op("Sqrt", &[sum]);
    let inverse = l.op("Reciprocal", &[root]);
    let normal = l.op("Mul", &[x, inverse]);
    l.op("Mul", &[normal, scale])
}

/// The sum of word, position and segment embeddings, normalised. It is three modules and more in one node: paths come
/// from the tables' names.
fn embed(l: &mut Lower<'_, '_>) -> Outputs {
    l.b.set_metadata(Vec::new());
    l.b.set_scope(format!("{}.", l.node.name.replace('/', ".").trim_start_matches('.')));
    let (ids, words, places) = (l.x(0)?, l.x(2)?, l.x(3)?);
    if l.rank(ids)? != 2 {
        return Err("token ids must be [batch, sequence]".into());
    }
    let word = l.op("Gather", &[words, ids]);
    let positions = match l.node.input(8) {
        Some(p) => p,
        None => {
            let row = l.count(ids, 1);
            l.unsqueeze(row, &[0])
        }
    };
    let place = l.op("Gather", &[places, positions]);
    let mut sum = l.op("Add", &[word, place]);
    if let (Some(segments), Some(table)) = (l.node.input(1), l.node.input(4)) {
        let segment = l.op("Gather", &[table, segments]);
        sum = l.op("Add", &[sum, segment]);
    }
    let (scale, bias) = (l.x(5)?, l.node.input(6));
    let y = layer_norm(l, sum, scale, bias, 1e-12)?;
    let lengths = match l.node.input(7) {
        Some(mask) => {
            let axes = l.b.ints(&[1]);
            let lengths = l.op_with("ReduceSum", &[mask, axes], &[("keepdims", Attr::Int(0))]);
            l.b.cast(lengths, DType::I32)
        }
        None => {
            let rows = l.op_with("Shape", &[ids], &[("end", Attr::Int(1))]);
            let zero = Attr::Tensor(Tensor::vector(&[0i32]));
            l.op_with("ConstantOfShape", &[rows], &[("value", zero)])
        }
    };
    Ok(vec![Some(y), Some(lengths), Some(sum)])
}
