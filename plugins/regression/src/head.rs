//! Head and loss in the graph.

use graft_plugin_api::*;

use crate::{Loss, Regression};

/// `values` `[batch, targets]` f32 in the data's units, and in training the loss, a scalar over the standardised targets
/// that the input `targets` `[batch, targets]` f32 holds.
pub fn build(c: &Regression, g: &Graph<'_>) -> Result<Built> {
    let standard = if c.pooling == Pooling::Logits {
        g.own_logits(c.targets.len() as u64, "targets")?
    } else {
        let pooled = g.dropout(g.pool(c.pooling)?, c.dropout, "head_dropout")?;
        g.linear_head(pooled, c.targets.len() as u64, false)?.logits
    };
    let loss = if g.training()? { Some(loss(c, g, standard)?) } else { None };
    // As settings, so that adapters of other data can share the graph.
    let (mut means, mut deviations) = (Vec::new(), Vec::new());
    for (i, (mean, deviation)) in c.scales()?.into_iter().enumerate() {
        means.push(g.setting(&format!("mean.{i}"), mean as f32)?);
        deviations.push(g.setting(&format!("deviation.{i}"), deviation as f32)?);
    }
    let values = g.add(g.mul(standard, vector(g, &deviations)?)?, vector(g, &means)?)?;
    Ok(Built { loss, outputs: vec![("values".to_owned(), values)] })
}

/// Scalars as `[count]`.
fn vector(g: &Graph<'_>, scalars: &[Value]) -> Result<Value> {
    let each = scalars.iter().map(|s| g.unsqueeze(*s, &[0])).collect::<Result<Vec<_>>>()?;
    g.emit("Concat", &each, &[attr("axis", 0i64)])
}

/// The mean over rows and targets.
fn loss(c: &Regression, g: &Graph<'_>, standard: Value) -> Result<Value> {
    let batch = g.fact(standard)?.shape.and_then(|s| s.first().cloned()).unwrap_or(Dim::Unknown);
    let targets = g.input("targets", DType::F32, &[batch, Dim::Known(c.targets.len() as u64)])?;
    let error = g.sub(standard, targets)?;
    let each = match c.loss {
        Loss::Mse => g.mul(error, error)?,
        Loss::Huber => {
            // With q = min(|e|, δ) both branches are q·(|e| − q/2).
            let size = g.emit("Abs", &[error], &[])?;
            let capped = g.emit("Min", &[size, g.scalar(c.huber_delta)?], &[])?;
            g.mul(capped, g.sub(size, g.mul(capped, g.scalar(0.5)?)?)?)?
        }
    };
    g.reduce_mean(each, &[], false)
}
