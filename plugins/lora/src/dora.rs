//! DoRA: a weight is taken apart into its direction, which LoRA updates, and a learned magnitude for each output (Liu et
//! al. 2024, "DoRA: Weight-Decomposed Low-Rank Adaptation"): `W x` becomes `m / ‖W + s·BA‖ · (W + s·BA) x`, where the
//! norms are those of the rows. As in section 4.3 there and in PEFT, no gradient flows through the norm.

use graft_plugin_api::*;

use crate::{Update, conv};

/// What stands for the output of a site: update and base, scaled to the learned magnitudes.
pub(crate) fn apply(g: &Graph<'_>, site: &Site, update: &Update, scaling: Value) -> Result<Value> {
    let weight = weight(g, site)?;
    let factor = factor(g, site, weight, update, scaling)?;
    let output = site.output()?;
    let bias = site.bias.as_deref().map(|b| bias(g, site, b)).transpose()?;
    let Some(dropped) = update.dropped else {
        // The bias is no part of the weight and keeps its size.
        let plain = bias.map_or(Ok(output), |b| g.sub(output, b))?;
        let scaled = g.mul(g.add(plain, update.added)?, factor)?;
        return bias.map_or(Ok(scaled), |b| g.add(scaled, b));
    };
    // With dropout, what the new magnitudes change of the base's part sees the same input as the update.
    let again = match site.kind {
        SiteKind::CONV => {
            let c = site.conv()?;
            let mut attrs = conv::movement(c);
            attrs.extend([attr("dilations", &c.dilations[..]), attr("group", c.group)]);
            g.emit("Conv", &[dropped, weight], &attrs)?
        }
        _ => g.linear(dropped, weight, None)?,
    };
    let more = g.mul(g.sub(factor, g.scalar(1.0)?)?, again)?;
    g.add(output, g.add(more, g.mul(factor, update.added)?)?)
}

/// `m / ‖W + s·BA‖` for each output.
fn factor(g: &Graph<'_>, site: &Site, weight: Value, update: &Update, scaling: Value) -> Result<Value> {
    let shape = magnitudes(site);
    let delta = match site.kind {
        SiteKind::CONV => {
            // PEFT multiplies the matrices as they lie, whatever the groups are.
            let rank = g.fact(update.a)?.shape.and_then(|s| s.first().and_then(Dim::known)).unwrap_or(0);
            let rank = i64::try_from(rank).unwrap_or(0);
            let product = g.matmul(g.reshape(update.b, &[-1, rank])?, g.reshape(update.a, &[rank, -1])?)?;
            g.emit("Reshape", &[product, g.emit("Shape", &[weight], &[])?], &[])?
        }
        // The base's table lies the other way round: its columns are the outputs.
        _ => g.matmul(update.b, update.a)?,
    };
    let start = norms(g, weight, &shape)?;
    let spec = ParamSpec::new("lora_magnitude_vector", &shape)
        .init(Init::Computed(start))
        .neutral(Init::Computed(start))
        .no_decay()
        .site(&site.path);
    let now = norms(g, g.add(weight, g.mul(delta, scaling)?)?, &shape)?;
    // A row of zeros has no direction; its magnitude is 0 and stays it.
    let now = g.max(g.stop_gradient(now)?, g.scalar(f32::MIN_POSITIVE)?)?;
    g.div(g.param(spec)?, now)
}

/// The shape of the magnitudes, as PEFT has them: they broadcast to the output.
fn magnitudes(site: &Site) -> Vec<u64> {
    match &site.conv {
        Some(c) => [1, site.out_features].into_iter().chain(c.kernel.iter().map(|_| 1)).collect(),
        None => vec![site.out_features],
    }
}

/// The norms of the rows of a weight `[out, …]`.
fn norms(g: &Graph<'_>, weight: Value, shape: &[u64]) -> Result<Value> {
    let rank = g.fact(weight)?.shape.map_or(2, |s| s.len());
    let axes: Vec<i64> = (1..i64::try_from(rank).unwrap_or(2)).collect();
    let sums = g.reduce_sum(g.mul(weight, weight)?, &axes, false)?;
    let shape: Vec<i64> = shape.iter().map(|d| i64::try_from(*d).unwrap_or(-1)).collect();
    g.reshape(g.emit("Sqrt", &[sums], &[])?, &shape)
}

/// The base's weight as `[out, …]`.
fn weight(g: &Graph<'_>, site: &Site) -> Result<Value> {
    let Some(name) = &site.weight else {
        return fail!(REFUSED, "the {} site has no weight to take apart", site.kind.name());
    };
    let weight = g.initializer(name)?;
    let turned = site.transposed || site.kind == SiteKind::EMBEDDING;
    if turned { g.transpose(weight, &[1, 0]) } else { Ok(weight) }
}

/// The base's bias as it broadcasts to the output.
fn bias(g: &Graph<'_>, site: &Site, name: &str) -> Result<Value> {
    let bias = g.initializer(name)?;
    match &site.conv {
        Some(_) => {
            let shape: Vec<i64> = magnitudes(site).iter().map(|d| i64::try_from(*d).unwrap_or(-1)).collect();
            g.reshape(bias, &shape)
        }
        None => Ok(bias),
    }
}
