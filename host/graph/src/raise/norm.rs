//! Normalisations as exporters write them out.

use super::{Found, Match, replaced};
use crate::ir::{Attr, Attrs, GRAFT_DOMAIN, Node, ValueId};

/// `(x − mean)/√(mean((x − mean)²) + ε)·scale + bias` over the last axis.
pub(super) fn layer_norm(m: &Match<'_>, n: &Node) -> Found {
    let is_vector = |v: ValueId| {
        let t = m.graph.constant(v)?;
        (t.shape().len() == 1).then_some(v)
    };
    let (bias, scaled) = m.either(n, is_vector)?;
    let (scale, normal) = m.either(m.maker_of(scaled, "Mul")?, is_vector)?;
    let div = m.maker_of(normal, "Div")?;
    let (centred, deviation) = (div.input(0)?, div.input(1)?);
    let sub = m.maker_of(centred, "Sub")?;
    let x = sub.input(0)?;
    let over_last = |mean: &Node| {
        let axes = mean.input(1).and_then(|v| m.graph.constant(v)?.to_i64s())?;
        let rank = m.graph.shape(x)?.len() as i64;
        (axes == [-1] || axes == [rank - 1]).then_some(()).filter(|()| mean.int("keepdims", 1) != 0)
    };
    let mean = m.maker_of(sub.input(1)?, "ReduceMean")?;
    over_last(mean)?;
    if mean.input(0)? != x {
        return None;
    }
    let add = m.maker_of(m.maker_of(deviation, "Sqrt")?.input(0)?, "Add")?;
    let (var, eps) = m.either(add, |v| m.maker_of(v, "ReduceMean").cloned())?;
    over_last(&var)?;
    let square = m.maker(var.input(0)?)?;
    let squared = match square.op.as_str() {
        "Pow" if m.is_number(square.input(1)?, 2.0) => square.input(0)?,
        "Mul" if square.input(0) == square.input(1) => square.input(0)?,
        _ => return None,
    };
    // Old exporters subtract the mean twice, once for each use.
    let same = squared == centred
        || m.maker_of(squared, "Sub").is_some_and(|s| s.input(0) == Some(x) && s.input(1) == sub.input(1));
    let eps = m.number(eps).filter(|_| same)?;
    let attrs = Attrs::from([("axis".into(), Attr::Int(-1)), ("epsilon".into(), Attr::Float(eps as f32))]);
    replaced(n, "LayerNormalization", &[x, scale, bias], attrs)
}

/// `x·(1/√(mean(x²) + ε))·scale` over the last axis (Zhang & Sennrich 2019). The scale is any vector: Gemma adds one to
/// its weight.
pub(super) fn rms_norm(m: &Match<'_>, n: &Node) -> Found {
    let (a, b) = (n.input(0)?, n.input(1)?);
    [(a, b), (b, a)].into_iter().find_map(|(normal, scale)| {
        let vector = m.graph.shape(scale)?.len() == 1;
        let product = m.maker(normal).filter(|_| vector)?;
        let (x, eps) = match product.op.as_str() {
            "Mul" => {
                let (x, inverse) = (product.input(0)?, product.input(1)?);
                [(x, inverse), (inverse, x)]
                    .into_iter()
                    .find_map(|(x, i)| Some((x, inverse_root(m, i, x)?)))?
            }
            "Div" => (product.input(0)?, root_of_mean_square(m, product.input(1)?, product.input(0)?)?),
            _ => return None,
        };
        let width = m.graph.shape(x)?.last()?;
        if m.graph.shape(scale)?.first() != Some(width) || m.graph.dtype(x) != m.graph.dtype(scale) {
            return None;
        }
        let attrs = Attrs::from([("epsilon".into(), Attr::Float(eps as f32))]);
        let node = replaced(n, "RMSNorm", &[x, scale], attrs)?;
        Some(Node { domain: GRAFT_DOMAIN.into(), ..node })
    })
}

/// The ε of `1/√(mean(x²) + ε)`.
fn inverse_root(m: &Match<'_>, v: ValueId, x: ValueId) -> Option<f64> {
    let n = m.maker(v)?;
    let root = match n.op.as_str() {
        "Reciprocal" => n.input(0)?,
        "Div" if m.is_number(n.input(0)?, 1.0) => n.input(1)?,
        "Pow" if m.number(n.input(1)?) == Some(-0.5) => return mean_square(m, n.input(0)?, x),
        _ => return None,
    };
    root_of_mean_square(m, root, x)
}

/// The ε of `√(mean(x²) + ε)`.
fn root_of_mean_square(m: &Match<'_>, v: ValueId, x: ValueId) -> Option<f64> {
    mean_square(m, m.maker_of(v, "Sqrt")?.input(0)?, x)
}

/// The ε of `mean(x²) + ε`, the mean over the last axis.
fn mean_square(m: &Match<'_>, v: ValueId, x: ValueId) -> Option<f64> {
    let add = m.maker_of(v, "Add")?;
    let (mean, eps) = m.either(add, |v| m.maker_of(v, "ReduceMean").cloned())?;
    let square = m.maker(mean.input(0)?)?;
    let squared = match square.op.as_str() {
        "Pow" => m.number(square.input(1)?) == Some(2.0) && square.input(0) == Some(x),
        "Mul" => square.input(0) == Some(x) && square.input(1) == Some(x),
        _ => false,
    };
    let rank = m.graph.shape(x)?.len() as i64;
    let axes = mean.input(1).and_then(|v| m.graph.constant(v)?.to_i64s())?;
    let last = axes == [-1] || axes == [rank - 1];
    m.number(eps).filter(|_| squared && last && mean.int("keepdims", 1) != 0)
}
