//! Gradients of normalisations. Half-width floats are normalised in float32, as the operators themselves do.

use super::reduce::{reduced_count, spread};
use super::{Grads, Row, Rule};
use crate::fused;
use crate::ir::{Attr, ValueId};

pub(super) const RULES: &[Row] = &[
    ("LayerNormalization", "", layer_norm),
    ("RMSNormalization", "", rms_norm),
    ("graft::RMSNorm", "what the pattern of an RMSNorm is raised to", rms_norm),
    ("InstanceNormalization", "", instance_norm),
    ("GroupNormalization", "", group_norm),
    ("BatchNormalization", "with frozen statistics, as exported for inference", batch_norm),
    (
        "LpNormalization",
        "zero where the norm is zero; at a zero element of an L1 norm, as the sign of zero",
        lp_norm,
    ),
];

/// What normalising over some axes gives.
struct Normalised {
    /// `(x − mean)/√(var + ε)`; without a centre `x/√(mean x² + ε)`.
    hat: ValueId,
    /// `1/√(…)`, with the axes as ones.
    inv: ValueId,
    axes: ValueId,
    centred: bool,
}

impl Normalised {
    fn over(r: &mut Rule<'_, '_>, x: ValueId, axes: Vec<i64>, centred: bool) -> Normalised {
        let axes = r.b.ints(&axes);
        let eps = f64::from(r.node.float("epsilon", 1e-5));
        let eps = r.c(eps, x);
        let x = if centred {
            let mean = r.op("ReduceMean", &[x, axes]);
            r.op("Sub", &[x, mean])
        } else {
            x
        };
        let square = r.op("Mul", &[x, x]);
        let var = r.op("ReduceMean", &[square, axes]);
        let var = r.op("Add", &[var, eps]);
        let std = r.op("Sqrt", &[var]);
        let inv = r.op("Reciprocal", &[std]);
        Normalised { hat: r.op("Mul", &[x, inv]), inv, axes, centred }
    }

    /// From the gradient of `hat` to that of the input: `inv·(g − mean(g) − hat·mean(g·hat))`.
    fn back(&self, r: &mut Rule<'_, '_>, g: ValueId) -> ValueId {
        let along = r.op("Mul", &[g, self.hat]);
        let along = r.op("ReduceMean", &[along, self.axes]);
        let along = r.op("Mul", &[self.hat, along]);
        let mut d = g;
        if self.centred {
            let mean = r.op("ReduceMean", &[g, self.axes]);
            d = r.op("Sub", &[d, mean]);
        }
        let d = r.op("Sub", &[d, along]);
        r.op("Mul", &[d, self.inv])
    }
}

fn layer_norm(r: &mut Rule<'_, '_>) -> Grads {
    let (x, scale) = (r.x(0)?, r.x(1)?);
    let rank = r.rank(x)?;
    let axis = r.axis(r.node.int("axis", -1), rank)?;
    let dy = r.dy_of(0).map(|dy| r.wide(dy));
    let (x, scale) = (r.wide(x), r.wide(scale));
    let of_statistics = r.dy_of(1).is_some() || r.dy_of(2).is_some();
    let (fusible, wants_x, wants_scale) = (axis + 1 == rank, r.wants(0), r.wants(1));
    let n = if wants_scale || wants_x && (of_statistics || !fusible) {
        Some(Normalised::over(r, x, (axis as i64..rank as i64).collect(), true))
    } else {
        None
    };
    let mut dx = match (dy.filter(|_| wants_x), &n) {
        (Some(dy), _) if fusible => {
            let eps = Attr::Float(r.node.float("epsilon", 1e-5));
            Some(fused::emit(r.b, "LayerNormGrad", &[dy, x, scale], &[("epsilon", eps)]))
        }
        (Some(dy), Some(n)) => {
            let g = r.op("Mul", &[dy, scale]);
            Some(n.back(r, g))
        }
        _ => None,
    };
    if let (Some(n), true) = (&n, wants_x && of_statistics) {
        let part = through_statistics(r, n, x)?;
        dx = Some(match dx {
            Some(dx) => r.op("Add", &[dx, part]),
            None => part,
        });
    }
    let dscale = match (dy.filter(|_| wants_scale), &n) {
        (Some(dy), Some(n)) => Some(r.op("Mul", &[dy, n.hat])),
        _ => None,
    };
    Ok(vec![dx, dscale, dy])
}

/// The gradient that comes in through the mean, `dm/n`, and through the inverse deviation, `−ds·inv²·hat/n`.
fn through_statistics(r: &mut Rule<'_, '_>, n: &Normalised, x: ValueId) -> Result<ValueId, String> {
    let count = reduced_count(r, x, n.inv, x)?;
    let dtype = r.dtype(x);
    let mut sum = None;
    if let Some(dm) = r.dy_of(1) {
        let dm = r.b.cast(dm, dtype);
        sum = Some(r.op("Div", &[dm, count]));
    }
    if let Some(ds) = r.dy_of(2) {
        let ds = r.b.cast(ds, dtype);
        let square = r.op("Mul", &[n.inv, n.inv]);
        let d = r.op("Mul", &[ds, square]);
        let d = r.op("Div", &[d, count]);
        let d = r.op("Mul", &[n.hat, d]);
        sum = Some(match sum {
            Some(s) => r.op("Sub", &[s, d]),
            None => r.op("Neg", &[d]),
        });
    }
    let sum = sum.ok_or("no gradient reaches the statistics")?;
    Ok(spread(r, sum, x))
}

fn rms_norm(r: &mut Rule<'_, '_>) -> Grads {
    let (dy, x, scale) = (r.dy()?, r.x(0)?, r.x(1)?);
    let rank = r.rank(x)?;
    let axis = r.axis(r.node.int("axis", -1), rank)?;
    let (dy, x, scale) = (r.wide(dy), r.wide(x), r.wide(scale));
    let n = Normalised::over(r, x, (axis as i64..rank as i64).collect(), false);
    let dx = if r.wants(0) {
        let g = r.op("Mul", &[dy, scale]);
        Some(n.back(r, g))
    } else {
        None
    };
    let dscale = if r.wants(1) { Some(r.op("Mul", &[dy, n.hat])) } else { None };
    Ok(vec![dx, dscale])
}

/// A vector of one number a channel, so that it meets axis 1 of a value of that rank: `[C, 1, …]`.
fn of_channels(r: &mut Rule<'_, '_>, v: ValueId, rank: usize) -> ValueId {
    let v = r.wide(v);
    if rank <= 2 {
        return v;
    }
    let axes: Vec<i64> = (1..rank as i64 - 1).collect();
    let axes = r.b.ints(&axes);
    r.op("Unsqueeze", &[v, axes])
}

/// The sum over every axis but 1, of the shape of `like`, a vector of one number a channel.
fn by_channel(r: &mut Rule<'_, '_>, v: ValueId, rank: usize, like: ValueId) -> ValueId {
    let axes: Vec<i64> = (0..rank as i64).filter(|a| *a != 1).collect();
    let axes = r.b.ints(&axes);
    let sum = r.op_with("ReduceSum", &[v, axes], &[("keepdims", Attr::Int(0))]);
    r.b.graph.fact_mut(sum).shape = r.b.graph.shape(like).cloned();
    sum
}

/// The gradients of a scale and a shift of one number a channel, inputs 1 and 2 of the node.
fn of_affine(
    r: &mut Rule<'_, '_>,
    dy: ValueId,
    hat: ValueId,
    rank: usize,
) -> Result<(Option<ValueId>, Option<ValueId>), String> {
    let (scale, shift) = (r.x(1)?, r.x(2)?);
    let dscale = if r.wants(1) {
        let d = r.op("Mul", &[dy, hat]);
        Some(by_channel(r, d, rank, scale))
    } else {
        None
    };
    let dshift = if r.wants(2) { Some(by_channel(r, dy, rank, shift)) } else { None };
    Ok((dscale, dshift))
}

fn instance_norm(r: &mut Rule<'_, '_>) -> Grads {
    let (dy, x, scale) = (r.dy()?, r.x(0)?, r.x(1)?);
    let rank = r.rank(x)?;
    if rank < 3 {
        return Err("an instance needs axes behind the channels".into());
    }
    let (dy, x) = (r.wide(dy), r.wide(x));
    let n = Normalised::over(r, x, (2..rank as i64).collect(), true);
    let dx = if r.wants(0) {
        let scale = of_channels(r, scale, rank);
        let g = r.op("Mul", &[dy, scale]);
        Some(n.back(r, g))
    } else {
        None
    };
    let (dscale, dshift) = of_affine(r, dy, n.hat, rank)?;
    Ok(vec![dx, dscale, dshift])
}

/// Up to operator set 20 scale and shift are one number a group, from 21 on one a channel.
fn group_norm(r: &mut Rule<'_, '_>) -> Grads {
    let (dy, x, scale) = (r.dy()?, r.x(0)?, r.x(1)?);
    let rank = r.rank(x)?;
    let groups = r.node.int("num_groups", 0);
    if rank < 3 || groups < 1 {
        return Err("groups need channels, axes behind them and a positive num_groups".into());
    }
    let (dy, x) = (r.wide(dy), r.wide(x));
    let grouped = r.b.ints(&[0, groups, -1]);
    let flat = r.op("Reshape", &[x, grouped]);
    let n = Normalised::over(r, flat, vec![2], true);
    let flat_dy = r.op("Reshape", &[dy, grouped]);
    let by_group = r.b.graph.opset() < 21;
    let dx = if r.wants(0) {
        let g = if by_group {
            let scale = of_channels(r, scale, 3);
            r.op("Mul", &[flat_dy, scale])
        } else {
            let scale = of_channels(r, scale, rank);
            let g = r.op("Mul", &[dy, scale]);
            r.op("Reshape", &[g, grouped])
        };
        let d = n.back(r, g);
        Some(r.b.reshape_like(d, x))
    } else {
        None
    };
    let (dscale, dshift) = if by_group {
        of_affine(r, flat_dy, n.hat, 3)?
    } else {
        let hat = r.b.reshape_like(n.hat, x);
        of_affine(r, dy, hat, rank)?
    };
    Ok(vec![dx, dscale, dshift])
}

fn batch_norm(r: &mut Rule<'_, '_>) -> Grads {
    if r.node.int("training_mode", 0) != 0 {
        return Err(
            "batch normalisation in training mode is not derived: its statistics would change while \
                    training. Export the model in evaluation mode, which freezes them"
                .into(),
        );
    }
    let (dy, x, scale, mean, var) = (r.dy()?, r.x(0)?, r.x(1)?, r.x(3)?, r.x(4)?);
    let rank = r.rank(x)?;
    if rank < 2 {
        return Err("batch normalisation needs a batch and channels".into());
    }
    let (dy, x) = (r.wide(dy), r.wide(x));
    let [channel_scale, channel_mean, channel_var] = [scale, mean, var].map(|v| of_channels(r, v, rank));
    let eps = f64::from(r.node.float("epsilon", 1e-5));
    let eps = r.c(eps, channel_var);
    let shifted = r.op("Add", &[channel_var, eps]);
    let std = r.op("Sqrt", &[shifted]);
    let inv = r.op("Reciprocal", &[std]);
    let factor = r.op("Mul", &[channel_scale, inv]);
    let dx = if r.wants(0) || r.wants(3) || r.wants(4) { Some(r.op("Mul", &[dy, factor])) } else { None };
    let centred = r.op("Sub", &[x, channel_mean]);
    let hat = r.op("Mul", &[centred, inv]);
    let (dscale, dshift) = of_affine(r, dy, hat, rank)?;
    let dmean = match dx.filter(|_| r.wants(3)) {
        Some(dx) => {
            let sum = by_channel(r, dx, rank, mean);
            Some(r.op("Neg", &[sum]))
        }
        None => None,
    };
    // −½·Σ dx·hat/√(var + ε)
    let dvar = match dx.filter(|_| r.wants(4)) {
        Some(dx) => {
            let d = r.op("Mul", &[dx, hat]);
            let half = r.c(-0.5, inv);
            let by = r.op("Mul", &[inv, half]);
            let d = r.op("Mul", &[d, by]);
            Some(by_channel(r, d, rank, var))
        }
        None => None,
    };
    Ok(vec![dx, dscale, dshift, dmean, dvar])
}

fn lp_norm(r: &mut Rule<'_, '_>) -> Grads {
    // (dy − u·Σ dy·x/n)/n, u = x/n with p = 2, sign x with p = 1.
    let (dy, x) = (r.dy()?, r.x(0)?);
    let (dy, x) = (r.wide(dy), r.wide(x));
    let axes = r.b.ints(&[r.node.int("axis", -1)]);
    let p = r.node.int("p", 2);
    let norm = match p {
        1 => r.op("ReduceL1", &[x, axes]),
        2 => r.op("ReduceL2", &[x, axes]),
        p => return Err(format!("norms are of order 1 or 2, not {p}")),
    };
    let zero = r.c(0.0, x);
    let flat = r.op("Equal", &[norm, zero]);
    let inv = r.op("Reciprocal", &[norm]);
    let inv = r.op("Where", &[flat, zero, inv]);
    let hat = r.op("Mul", &[x, inv]);
    let unit = if p == 2 { hat } else { r.op("Sign", &[x]) };
    let along = r.op("Mul", &[dy, hat]);
    let along = r.op("ReduceSum", &[along, axes]);
    let along = r.op("Mul", &[unit, along]);
    let d = r.op("Sub", &[dy, along]);
    Ok(vec![Some(r.op("Mul", &[d, inv]))])
}
