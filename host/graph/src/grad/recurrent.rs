//! Gradients of recurrent operators.
//!
//! Nothing is unrolled: the number of steps need not be known. The states that the operator gave tell what each step
//! began with, so gates are computed anew for all steps in one product. What hangs from step to step runs in a `Scan`:
//! forwards only the cell states, which the operator does not give, and backwards the gradients of the states (Werbos
//! 1990, backpropagation through time). Products with inputs and for weights stand outside, over all steps at once.

mod gru;
mod lstm;
mod steps;

use self::steps::Mask;
use super::conv::of_shape;
use super::{Grads, Row, Rule};
use crate::ir::{Attr, ValueId};

pub(super) const RULES: &[Row] = &[
    ("GRU", "With the default activations, without `clip`.", |r| recurrent(r, &gru::GRU)),
    ("LSTM", "With the default activations, without `clip`.", |r| recurrent(r, &lstm::LSTM)),
];

/// What tells one recurrent operator from the other.
struct Cell {
    /// Gates, each of which has its rows in the weights.
    gates: i64,
    /// Names of the activations of one direction.
    activations: &'static [&'static str],
    /// The gradients through one direction.
    backwards: fn(&mut Rule<'_, '_>, &Direction) -> Flow,
}

/// One direction of a recurrent operator. T steps, N rows, I inputs, H values of state, G gates. Half-width floats are
/// widened.
struct Direction {
    /// The last step comes first.
    reverse: bool,
    /// Size of the state.
    hidden: i64,
    /// Input `[T, N, I]`.
    x: ValueId,
    /// Input weights `[G·H, I]`.
    w: ValueId,
    /// Recurrent weights `[G·H, H]`.
    r: ValueId,
    /// Biases of the input weights and of the recurrent ones, `[G·H]` each.
    bias: Option<[ValueId; 2]>,
    /// Weights `[3·H]` by which gates see the cell state.
    peephole: Option<ValueId>,
    /// State before each step `[T, N, H]`.
    before: ValueId,
    /// Cell state before the first step `[N, H]`.
    cell: Option<ValueId>,
    /// Where rows end before the last step.
    mask: Option<Mask>,
    /// Gradient of each step's output `[T, N, H]`, zero behind a row's end.
    dy: Option<ValueId>,
    /// Gradients of the last state and of the last cell state `[N, H]`.
    last: (ValueId, ValueId),
}

/// Gradients through one direction.
struct Flow {
    /// Of what input weights and their bias give to the gates `[T, N, G·H]`.
    input: ValueId,
    /// Of what the recurrent weights' bias is added to `[T, N, G·H]`.
    state: ValueId,
    /// Of the recurrent weights `[G·H, H]`.
    dr: ValueId,
    /// Of the state and of the cell state before the first step `[N, H]`.
    first: (ValueId, Option<ValueId>),
    /// Of the peephole weights `[3·H]`.
    peephole: Option<ValueId>,
}

fn recurrent(r: &mut Rule<'_, '_>, cell: &Cell) -> Grads {
    check(r, cell)?;
    let directions = directions(r, cell)?;
    let flows: Vec<Flow> = directions.iter().map(|d| (cell.backwards)(r, d)).collect();
    let pairs = || directions.iter().zip(&flows);
    let mut grads = vec![None; r.node.inputs.len()];
    if r.wants(0) {
        let parts: Vec<ValueId> = pairs().map(|(d, f)| r.op("MatMul", &[f.input, d.w])).collect();
        let sum = parts.iter().copied().reduce(|a, b| r.op("Add", &[a, b]));
        grads[0] = sum;
    }
    if r.wants(1) {
        let parts = pairs().map(|(d, f)| weight_gradient(r, f.input, d.x)).collect();
        grads[1] = Some(stacked(r, parts));
    }
    if r.wants(2) {
        grads[2] = Some(stacked(r, flows.iter().map(|f| f.dr).collect()));
    }
    if r.wants(3) {
        let parts = flows.iter().map(|f| bias_gradient(r, f)).collect();
        grads[3] = Some(stacked(r, parts));
    }
    if r.wants(5) {
        grads[5] = Some(stacked(r, flows.iter().map(|f| f.first.0).collect()));
    }
    if r.wants(6) {
        grads[6] = Some(stacked(r, flows.iter().filter_map(|f| f.first.1).collect()));
    }
    if r.wants(7) {
        grads[7] = Some(stacked(r, flows.iter().filter_map(|f| f.peephole).collect()));
    }
    for (k, g) in grads.iter().enumerate() {
        if let Some(g) = g {
            let x = r.x(k)?;
            of_shape(r, *g, x)?;
        }
    }
    Ok(grads)
}

/// Refuses what is not derived.
fn check(r: &Rule<'_, '_>, cell: &Cell) -> Result<(), String> {
    if r.node.int("layout", 0) != 0 {
        return Err("rows before steps (layout 1) are not derived; export the model with steps first".into());
    }
    if r.node.attrs.contains_key("clip") {
        return Err(
            "values that are clipped before the activations are not derived; export without `clip`".into()
        );
    }
    if let Some(Attr::Strings(names)) = r.node.attrs.get("activations") {
        for (name, usual) in names.iter().zip(cell.activations.iter().cycle()) {
            let name = String::from_utf8_lossy(name);
            if !name.eq_ignore_ascii_case(usual) {
                let usual = cell.activations.join(", ");
                return Err(format!("the activation {name} is not derived; the defaults ({usual}) are"));
            }
        }
    }
    Ok(())
}

/// The operator's inputs and the gradients of its outputs, by direction.
fn directions(r: &mut Rule<'_, '_>, cell: &Cell) -> Result<Vec<Direction>, String> {
    let count = match r.node.text("direction").unwrap_or("forward") {
        "forward" => [false].as_slice(),
        "reverse" => &[true],
        "bidirectional" => &[false, true],
        other => return Err(format!("there is no direction '{other}'")),
    };
    let hidden = match r.node.int("hidden_size", 0) {
        0 => r.shape(r.x(2)?)?.get(2).and_then(|d| d.known()).ok_or("the size of the state is not known")?,
        n => n,
    };
    let width =
        hidden.checked_mul(cell.gates).filter(|n| *n > 0).ok_or(format!("a state of {hidden} values"))?;
    let (x, w, weights) = (r.x(0)?, r.x(1)?, r.x(2)?);
    let x = r.wide(x);
    let y = match r.node.output(0) {
        Some(y) => y,
        None => r.b.emit(&r.node.op, "", &r.node.inputs, r.node.attrs.clone(), 1)[0],
    };
    let y = r.wide(y);
    let mask = r.node.input(4).map(|lengths| Mask::new(r, lengths, y));
    let mut all = Vec::with_capacity(count.len());
    for (k, reverse) in count.iter().copied().enumerate() {
        let part = |r: &mut Rule<'_, '_>, v: ValueId, axis: i64| {
            let v = r.wide(v);
            steps::direction(r, v, axis, k, count.len())
        };
        let given = |r: &mut Rule<'_, '_>, i: usize| r.node.input(i).map(|v| part(r, v, 0));
        let y = part(r, y, 1);
        let bias = given(r, 3).map(|b| steps::split(r, b, 0, [width, width]));
        let first = given(r, 5);
        let dy = r.dy_of(0).map(|dy| {
            let dy = part(r, dy, 1);
            Mask::cut(mask.as_ref(), r, dy)
        });
        let last = |r: &mut Rule<'_, '_>, i: usize| match r.dy_of(i) {
            Some(g) => {
                let g = part(r, g, 0);
                mask.as_ref().map_or(g, |m| r.op("Mul", &[g, m.begun]))
            }
            None => steps::blank(r, y),
        };
        let last = (last(r, 1), last(r, 2));
        all.push(Direction {
            reverse,
            hidden,
            x,
            w: part(r, w, 0),
            r: part(r, weights, 0),
            bias,
            peephole: given(r, 7),
            before: steps::before(r, y, first, reverse, mask.as_ref()),
            cell: given(r, 6),
            mask: mask.clone(),
            dy,
            last,
        });
    }
    Ok(all)
}

/// One value a direction, as one value whose first axis counts the directions.
fn stacked(r: &mut Rule<'_, '_>, parts: Vec<ValueId>) -> ValueId {
    let axes = r.b.ints(&[0]);
    let parts: Vec<ValueId> = parts.into_iter().map(|v| r.op("Unsqueeze", &[v, axes])).collect();
    match parts.as_slice() {
        [one] => *one,
        _ => r.op_with("Concat", &parts, &[("axis", Attr::Int(0))]),
    }
}

/// `Σ gᵀ·v` over steps and rows: `[T, N, G]` and `[T, N, V]` → `[G, V]`.
fn weight_gradient(r: &mut Rule<'_, '_>, g: ValueId, v: ValueId) -> ValueId {
    let (g, v) = (r.b.as_matrix(g), r.b.as_matrix(v));
    r.op_with("Gemm", &[g, v], &[("transA", Attr::Int(1))])
}

/// The gradient of both biases, one behind the other `[2·G·H]`.
fn bias_gradient(r: &mut Rule<'_, '_>, flow: &Flow) -> ValueId {
    let input = sum_of_steps(r, flow.input);
    let state = if flow.state == flow.input { input } else { sum_of_steps(r, flow.state) };
    r.op_with("Concat", &[input, state], &[("axis", Attr::Int(0))])
}

/// The sum over steps and rows: `[T, N, V]` → `[V]`.
fn sum_of_steps(r: &mut Rule<'_, '_>, v: ValueId) -> ValueId {
    let axes = r.b.ints(&[0, 1]);
    r.op_with("ReduceSum", &[v, axes], &[("keepdims", Attr::Int(0))])
}

/// `v·mᵀ + bias` for `v` `[T, N, V]` and `m` `[G, V]`.
fn affine(r: &mut Rule<'_, '_>, v: ValueId, m: ValueId, bias: Option<ValueId>) -> ValueId {
    let m = r.op_with("Transpose", &[m], &[("perm", Attr::Ints(vec![1, 0]))]);
    let y = r.op("MatMul", &[v, m]);
    bias.map_or(y, |b| r.op("Add", &[y, b]))
}

fn joined(r: &mut Rule<'_, '_>, parts: &[ValueId]) -> ValueId {
    r.op_with("Concat", parts, &[("axis", Attr::Int(-1))])
}

/// `1 − v`.
fn complement(r: &mut Rule<'_, '_>, v: ValueId) -> ValueId {
    let one = r.c(1.0, v);
    r.op("Sub", &[one, v])
}

/// The slope `y·(1 − y)` of a sigmoid that gave `y`.
fn sigmoid_slope(r: &mut Rule<'_, '_>, y: ValueId) -> ValueId {
    let rest = complement(r, y);
    r.op("Mul", &[y, rest])
}

/// The slope `1 − y²` of a tanh that gave `y`.
fn tanh_slope(r: &mut Rule<'_, '_>, y: ValueId) -> ValueId {
    let square = r.op("Mul", &[y, y]);
    complement(r, square)
}
