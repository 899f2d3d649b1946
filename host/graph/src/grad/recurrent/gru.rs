//! GRU (Cho et al. 2014): `h = (1 − z)·n + z·h₋`, gates in the order z, r, n. The reset gate works on the state before
//! its product with weights, or with `linear_before_reset` on the product.

use super::super::Rule;
use super::steps::{Mask, Over, Step, scan, split};
use super::{Cell, Direction, Flow, affine, complement, joined, sigmoid_slope, tanh_slope, weight_gradient};
use crate::ir::{Attr, ValueId};

pub(super) const GRU: Cell = Cell { gates: 3, activations: &["Sigmoid", "Tanh"], backwards };

fn backwards(r: &mut Rule<'_, '_>, d: &Direction) -> Flow {
    match r.node.int("linear_before_reset", 0) {
        0 => reset_before_product(r, d),
        _ => reset_behind_product(r, d),
    }
}

/// By what the gradient of a step's state is multiplied, `[T, N, H]` each.
struct Slopes {
    /// To that of what comes to the update gate.
    update: ValueId,
    /// To that of what comes to the new values.
    new: ValueId,
    /// To that of the state before, past the gates.
    keep: ValueId,
}

/// Of update gate `z` and new values `n`.
fn slopes(r: &mut Rule<'_, '_>, d: &Direction, z: ValueId, n: ValueId) -> Slopes {
    let mask = d.mask.as_ref();
    let (between, slope) = (r.op("Sub", &[d.before, n]), sigmoid_slope(r, z));
    let update = r.op("Mul", &[between, slope]);
    let (rest, slope) = (complement(r, z), tanh_slope(r, n));
    let new = r.op("Mul", &[rest, slope]);
    Slopes { update: Mask::cut(mask, r, update), new: Mask::cut(mask, r, new), keep: Mask::keep(mask, r, z) }
}

fn sigmoid_of_sum(r: &mut Rule<'_, '_>, a: ValueId, b: ValueId) -> ValueId {
    let sum = r.op("Add", &[a, b]);
    r.op("Sigmoid", &[sum])
}

/// The gradient of the state: what came back to it, and that of the step's output, which is the part behind the others.
fn of_state(s: &mut Step<'_, '_>, others: usize) -> ValueId {
    match s.parts.get(others) {
        Some(dy) => s.b.op("Add", &[s.states[0], *dy]),
        None => s.states[0],
    }
}

/// `n = tanh(W·x + b + r·(R·h₋ + b))`.
fn reset_behind_product(r: &mut Rule<'_, '_>, d: &Direction) -> Flow {
    let sizes = [d.hidden; 3];
    let by_input = affine(r, d.x, d.w, d.bias.map(|b| b[0]));
    let by_state = affine(r, d.before, d.r, d.bias.map(|b| b[1]));
    let ([xz, xr, xn], [hz, hr, hn]) = (split(r, by_input, -1, sizes), split(r, by_state, -1, sizes));
    let (z, reset) = (sigmoid_of_sum(r, xz, hz), sigmoid_of_sum(r, xr, hr));
    let through = r.op("Mul", &[reset, hn]);
    let n = r.op("Add", &[xn, through]);
    let n = r.op("Tanh", &[n]);
    let slopes = slopes(r, d, z, n);
    let (to_reset, slope) = (r.op("Mul", &[slopes.new, hn]), sigmoid_slope(r, reset));
    let to_reset = r.op("Mul", &[to_reset, slope]);
    let to_product = r.op("Mul", &[slopes.new, reset]);
    let gates = joined(r, &[slopes.update, to_reset, to_product]);
    let sequences: Vec<ValueId> = [gates, slopes.keep].into_iter().chain(d.dy).collect();
    let over = Over { states: &[d.last.0], sequences: &sequences, fixed: &[d.r], reverse: !d.reverse };
    let (first, made) = scan(r, &over, |s| {
        let dh = of_state(s, 2);
        let lead = s.b.op_with("Concat", &[dh, dh, dh], &[("axis", Attr::Int(-1))]);
        let dgates = s.b.op("Mul", &[lead, s.parts[0]]);
        let (back, kept) = (s.b.op("MatMul", &[dgates, s.fixed[0]]), s.b.op("Mul", &[dh, s.parts[1]]));
        (vec![s.b.op("Add", &[back, kept])], vec![dgates, s.b.op("Identity", &[dh])])
    });
    let [update, reset, _] = split(r, made[0], -1, sizes);
    let new = r.op("Mul", &[made[1], slopes.new]);
    let input = joined(r, &[update, reset, new]);
    let dr = weight_gradient(r, made[0], d.before);
    Flow { input, state: made[0], dr, first: (first[0], None), peephole: None }
}

/// `n = tanh(W·x + b + R·(r·h₋) + b)`.
fn reset_before_product(r: &mut Rule<'_, '_>, d: &Direction) -> Flow {
    let (sizes, parts) = ([d.hidden; 3], [2 * d.hidden, d.hidden]);
    let bias = d.bias.map(|[w, b]| r.op("Add", &[w, b]));
    let by_input = affine(r, d.x, d.w, bias);
    let [xz, xr, xn] = split(r, by_input, -1, sizes);
    let [of_gates, of_new] = split(r, d.r, 0, parts);
    let by_state = affine(r, d.before, of_gates, None);
    let [hz, hr] = split(r, by_state, -1, [d.hidden; 2]);
    let (z, reset) = (sigmoid_of_sum(r, xz, hz), sigmoid_of_sum(r, xr, hr));
    let left = r.op("Mul", &[reset, d.before]);
    let by_left = affine(r, left, of_new, None);
    let n = r.op("Add", &[xn, by_left]);
    let n = r.op("Tanh", &[n]);
    let slopes = slopes(r, d, z, n);
    let slope = sigmoid_slope(r, reset);
    let to_reset = r.op("Mul", &[d.before, slope]);
    let sequences = [slopes.update, slopes.new, to_reset, reset, slopes.keep];
    let sequences: Vec<ValueId> = sequences.into_iter().chain(d.dy).collect();
    let fixed = [of_gates, of_new];
    let over = Over { states: &[d.last.0], sequences: &sequences, fixed: &fixed, reverse: !d.reverse };
    let (first, made) = scan(r, &over, |s| {
        let dh = of_state(s, 5);
        let (update, new) = (s.b.op("Mul", &[dh, s.parts[0]]), s.b.op("Mul", &[dh, s.parts[1]]));
        let dleft = s.b.op("MatMul", &[new, s.fixed[1]]);
        let dreset = s.b.op("Mul", &[dleft, s.parts[2]]);
        let gates = s.b.op_with("Concat", &[update, dreset], &[("axis", Attr::Int(-1))]);
        let back = s.b.op("MatMul", &[gates, s.fixed[0]]);
        let (left, kept) = (s.b.op("Mul", &[dleft, s.parts[3]]), s.b.op("Mul", &[dh, s.parts[4]]));
        let back = s.b.op("Add", &[back, left]);
        (vec![s.b.op("Add", &[back, kept])], vec![gates, new])
    });
    let dgates = joined(r, &made);
    let parts = [weight_gradient(r, made[0], d.before), weight_gradient(r, made[1], left)];
    let dr = r.op_with("Concat", &parts, &[("axis", Attr::Int(0))]);
    Flow { input: dgates, state: dgates, dr, first: (first[0], None), peephole: None }
}
