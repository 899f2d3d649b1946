//! LSTM (Hochreiter & Schmidhuber 1997) with forget gates (Gers et al. 2000) and peepholes (Gers & Schmidhuber 2000):
//! `c = f·c₋ + i·g`, `h = o·tanh(c)`. The gates stand in the order i, o, f, g in weights, i, o, f in peepholes.

use super::super::Rule;
use super::super::movement::zeros_like;
use super::steps::{Mask, Over, blank, scan, split};
use super::{
    Cell, Direction, Flow, affine, joined, sigmoid_slope, sum_of_steps, tanh_slope, weight_gradient,
};
use crate::builder::Builder;
use crate::ir::{Attr, ValueId};
use crate::tensor::DType;

pub(super) const LSTM: Cell = Cell { gates: 4, activations: &["Sigmoid", "Tanh", "Tanh"], backwards };

/// Gates and cell states of all steps, `[T, N, H]` each.
struct Gates {
    i: ValueId,
    o: ValueId,
    f: ValueId,
    g: ValueId,
    /// Cell state before the step.
    before: ValueId,
    /// Cell state behind it.
    behind: ValueId,
}

/// Peephole weights of the input, output and forget gate, `[H]` each.
type Peepholes = Option<[ValueId; 3]>;

/// True where the forget gate is what the input gate leaves, `f = 1 − i`.
fn is_coupled(r: &Rule<'_, '_>) -> bool {
    r.node.int("input_forget", 0) != 0
}

fn backwards(r: &mut Rule<'_, '_>, d: &Direction) -> Flow {
    let peepholes = d.peephole.map(|p| split(r, p, 0, [d.hidden; 3]));
    let g = gates(r, d, peepholes);
    let (dgates, first) = through_steps(r, d, &g, peepholes);
    let peephole = peepholes.map(|_| {
        let [di, d_o, df, _] = split(r, dgates, -1, [d.hidden; 4]);
        let seen = [(di, g.before), (d_o, g.behind), (df, g.before)].map(|(d, c)| {
            let along = r.op("Mul", &[d, c]);
            sum_of_steps(r, along)
        });
        joined(r, &seen)
    });
    let dr = weight_gradient(r, dgates, d.before);
    Flow { input: dgates, state: dgates, dr, first: (first[0], Some(first[1])), peephole }
}

fn gates(r: &mut Rule<'_, '_>, d: &Direction, peepholes: Peepholes) -> Gates {
    let bias = d.bias.map(|[w, b]| r.op("Add", &[w, b]));
    let (by_input, by_state) = (affine(r, d.x, d.w, bias), affine(r, d.before, d.r, None));
    let sum = r.op("Add", &[by_input, by_state]);
    let [i, o, f, g] = split(r, sum, -1, [d.hidden; 4]);
    let g = r.op("Tanh", &[g]);
    let coupled = is_coupled(r);
    let first = d.cell.unwrap_or_else(|| blank(r, d.before));
    let (i, f, before) = match peepholes {
        None => {
            let (i, f) = input_and_forget(r.b, (i, f), None, coupled);
            let before = cell_states(r, d, (f, i, g), first);
            (i, f, before)
        }
        Some([p, _, q]) => {
            let before = seen_cell_states(r, d, (i, f, g), first, (p, q));
            let (i, f) = input_and_forget(r.b, (i, f), Some((before, p, q)), coupled);
            (i, f, before)
        }
    };
    let (kept, new) = (r.op("Mul", &[f, before]), r.op("Mul", &[i, g]));
    let behind = r.op("Add", &[kept, new]);
    let o = match peepholes {
        Some([_, p, _]) => seen(r.b, o, behind, p),
        None => o,
    };
    Gates { i, o: r.op("Sigmoid", &[o]), f, g, before, behind }
}

/// What comes to a gate, with what it sees of the cell state `c`.
fn seen(b: &mut Builder<'_>, gate: ValueId, c: ValueId, peephole: ValueId) -> ValueId {
    let seen = b.op("Mul", &[c, peephole]);
    b.op("Add", &[gate, seen])
}

/// Input and forget gate from what comes to them, and from the cell state before with its peephole weights.
fn input_and_forget(
    b: &mut Builder<'_>,
    (i, f): (ValueId, ValueId),
    cell: Option<(ValueId, ValueId, ValueId)>,
    coupled: bool,
) -> (ValueId, ValueId) {
    let i = cell.map_or(i, |(c, p, _)| seen(b, i, c, p));
    let i = b.op("Sigmoid", &[i]);
    if coupled {
        let dtype = b.graph.dtype(i).unwrap_or(DType::F32);
        let one = b.float(dtype, 1.0);
        return (i, b.op("Sub", &[one, i]));
    }
    let f = cell.map_or(f, |(c, _, q)| seen(b, f, c, q));
    (i, b.op("Sigmoid", &[f]))
}

/// The cell state before each step `[T, N, H]`, of gates that do not see it.
fn cell_states(
    r: &mut Rule<'_, '_>,
    d: &Direction,
    (f, i, g): (ValueId, ValueId, ValueId),
    first: ValueId,
) -> ValueId {
    let new = r.op("Mul", &[i, g]);
    let (f, new) = (Mask::keep(d.mask.as_ref(), r, f), Mask::cut(d.mask.as_ref(), r, new));
    let over = Over { states: &[first], sequences: &[f, new], fixed: &[], reverse: d.reverse };
    let (_, before) = scan(r, &over, |s| {
        let kept = s.b.op("Mul", &[s.states[0], s.parts[0]]);
        let next = s.b.op("Add", &[kept, s.parts[1]]);
        (vec![next], vec![s.b.op("Identity", &[s.states[0]])])
    });
    before[0]
}

/// The cell state before each step `[T, N, H]`, of gates that see it.
fn seen_cell_states(
    r: &mut Rule<'_, '_>,
    d: &Direction,
    (i, f, g): (ValueId, ValueId, ValueId),
    first: ValueId,
    (p, q): (ValueId, ValueId),
) -> ValueId {
    let coupled = is_coupled(r);
    let mut sequences = vec![i, f, g];
    sequences.extend(d.mask.iter().flat_map(|m| [m.real, m.padded]));
    let over = Over { states: &[first], sequences: &sequences, fixed: &[p, q], reverse: d.reverse };
    let (_, before) = scan(r, &over, |s| {
        let c = s.states[0];
        let (i, f) = (s.parts[0], s.parts[1]);
        let (i, f) = input_and_forget(s.b, (i, f), Some((c, s.fixed[0], s.fixed[1])), coupled);
        let (kept, new) = (s.b.op("Mul", &[f, c]), s.b.op("Mul", &[i, s.parts[2]]));
        let mut next = s.b.op("Add", &[kept, new]);
        if let [real, padded] = s.parts[3..] {
            let (new, old) = (s.b.op("Mul", &[next, real]), s.b.op("Mul", &[c, padded]));
            next = s.b.op("Add", &[new, old]);
        }
        (vec![next], vec![s.b.op("Identity", &[c])])
    });
    before[0]
}

/// By what the gradients of a step's state and cell state are multiplied. All that needs no other step is computed
/// for all steps at once.
struct Slopes {
    /// Of the state, to that of the cell state `[T, N, H]`.
    cell: ValueId,
    /// Of the cell state, that of the state, and twice the former, to that of what comes to the gates `[T, N, 4·H]`.
    gates: ValueId,
    /// Of the cell state, to that of the one before `[T, N, H]`.
    keep: ValueId,
}

fn slopes(r: &mut Rule<'_, '_>, d: &Direction, g: &Gates, peepholes: Peepholes) -> Slopes {
    let squashed = r.op("Tanh", &[g.behind]);
    let (bend, slope) = (tanh_slope(r, squashed), sigmoid_slope(r, g.o));
    let mut cell = r.op("Mul", &[g.o, bend]);
    let o = r.op("Mul", &[squashed, slope]);
    let slope = sigmoid_slope(r, g.i);
    let coupled = is_coupled(r);
    let i = if coupled { r.op("Sub", &[g.g, g.before]) } else { g.g };
    let i = r.op("Mul", &[i, slope]);
    let f = if coupled {
        zeros_like(r, i)
    } else {
        let slope = sigmoid_slope(r, g.f);
        r.op("Mul", &[g.before, slope])
    };
    let slope = tanh_slope(r, g.g);
    let new = r.op("Mul", &[g.i, slope]);
    let mut keep = g.f;
    if let Some([p, q, s]) = peepholes {
        cell = seen(r.b, cell, o, q);
        for (gate, peephole) in [(i, p), (f, s)] {
            keep = seen(r.b, keep, gate, peephole);
        }
    }
    let gates = joined(r, &[i, o, f, new]);
    let mask = d.mask.as_ref();
    Slopes {
        cell: Mask::cut(mask, r, cell),
        gates: Mask::cut(mask, r, gates),
        keep: Mask::keep(mask, r, keep),
    }
}

/// The gradients of what comes to the gates `[T, N, 4·H]`, and of state and cell state before the first step.
fn through_steps(
    r: &mut Rule<'_, '_>,
    d: &Direction,
    g: &Gates,
    peepholes: Peepholes,
) -> (ValueId, Vec<ValueId>) {
    let slopes = slopes(r, d, g, peepholes);
    let mut sequences = vec![slopes.cell, slopes.gates, slopes.keep];
    let (dy, padded) = (d.dy, d.mask.as_ref().map(|m| m.padded));
    sequences.extend(dy.into_iter().chain(padded));
    let over =
        Over { states: &[d.last.0, d.last.1], sequences: &sequences, fixed: &[d.r], reverse: !d.reverse };
    let (first, dgates) = scan(r, &over, |s| {
        let mut more = s.parts[3..].iter().copied();
        let (dy, padded) = (dy.and_then(|_| more.next()), padded.and_then(|_| more.next()));
        let dh = dy.map_or(s.states[0], |dy| s.b.op("Add", &[s.states[0], dy]));
        let to_cell = s.b.op("Mul", &[dh, s.parts[0]]);
        let dc = s.b.op("Add", &[s.states[1], to_cell]);
        let lead = s.b.op_with("Concat", &[dc, dh, dc, dc], &[("axis", Attr::Int(-1))]);
        let dgates = s.b.op("Mul", &[lead, s.parts[1]]);
        let mut next = s.b.op("MatMul", &[dgates, s.fixed[0]]);
        if let Some(padded) = padded {
            let kept = s.b.op("Mul", &[dh, padded]);
            next = s.b.op("Add", &[next, kept]);
        }
        (vec![next, s.b.op("Mul", &[dc, s.parts[2]])], vec![dgates])
    });
    (dgates[0], first)
}
