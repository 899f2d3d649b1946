//! Gradients of operators that move elements.

use super::scatter::copied_with;
use super::{Grads, Row, Rule};
use crate::dim::{Dim, Shape};
use crate::ir::{Attr, ValueId};
use crate::tensor::{DType, Tensor};

pub(super) const RULES: &[Row] = &[
    ("Reshape", "", reshaped),
    ("Flatten", "", reshaped),
    ("Squeeze", "", reshaped),
    ("Unsqueeze", "", reshaped),
    ("Expand", "", |r| Ok(vec![Some(r.dy()?)])),
    ("Dropout", "", |r| {
        // Only inference mode is met: training dropout is built from noise inputs, and `raise` drops this one.
        if r.node.output(1).is_some() || r.node.input(2).is_some() {
            return Err("dropout in training mode is not derived; export the model in evaluation mode".into());
        }
        Ok(vec![Some(r.dy()?)])
    }),
    ("Transpose", "", transpose),
    ("Concat", "", concat),
    ("Split", "", split),
    ("Slice", "", slice),
    ("Gather", "", gather),
    ("Tile", "", tile),
    ("Trilu", "", |r| {
        let mut inputs = r.node.inputs.clone();
        *inputs.first_mut().ok_or("input 0 is missing")? = Some(r.dy()?);
        Ok(vec![Some(r.b.emit("Trilu", "", &inputs, r.node.attrs.clone(), 1)[0])])
    }),
    ("ReverseSequence", "", |r| {
        // Reversed again, each element is back in its place.
        let (dy, lengths) = (r.dy()?, r.x(1)?);
        Ok(vec![Some(
            r.b.emit("ReverseSequence", "", &[Some(dy), Some(lengths)], r.node.attrs.clone(), 1)[0],
        )])
    }),
];

fn reshaped(r: &mut Rule<'_, '_>) -> Grads {
    let (dy, x) = (r.dy()?, r.x(0)?);
    Ok(vec![Some(r.b.reshape_like(dy, x))])
}

fn transpose(r: &mut Rule<'_, '_>) -> Grads {
    let (dy, x) = (r.dy()?, r.x(0)?);
    let n = r.rank(x)?;
    let perm: Vec<i64> = match r.node.ints("perm") {
        Some(p) => p.to_vec(),
        None => (0..n as i64).rev().collect(),
    };
    let mut back = vec![0i64; n];
    for (to, from) in perm.iter().enumerate() {
        back[r.axis(*from, n)?] = to as i64;
    }
    Ok(vec![Some(r.op_with("Transpose", &[dy], &[("perm", Attr::Ints(back))]))])
}

fn concat(r: &mut Rule<'_, '_>) -> Grads {
    let dy = r.dy()?;
    let axis = r.node.int("axis", 0);
    let inputs: Vec<ValueId> = r.node.inputs.iter().flatten().copied().collect();
    let mut sizes = Vec::with_capacity(inputs.len());
    for x in &inputs {
        let shape = r.shape(*x)?;
        let at = r.axis(axis, shape.len())?;
        sizes.push(match shape[at].known() {
            Some(n) => r.b.ints(&[n]),
            None => {
                let s = r.op("Shape", &[*x]);
                let k = r.b.ints(&[at as i64]);
                r.op("Gather", &[s, k])
            }
        });
    }
    let sizes = r.op_with("Concat", &sizes, &[("axis", Attr::Int(0))]);
    let attrs = [("axis".to_string(), Attr::Int(axis))].into();
    let parts = r.b.emit("Split", "", &[Some(dy), Some(sizes)], attrs, inputs.len());
    for (p, x) in parts.iter().zip(&inputs) {
        r.b.graph.fact_mut(*p).shape = r.b.graph.shape(*x).cloned();
    }
    Ok(parts.into_iter().map(Some).collect())
}

fn split(r: &mut Rule<'_, '_>) -> Grads {
    let axis = r.node.int("axis", 0);
    let n = r.node.outputs.len();
    let mut parts = Vec::with_capacity(n);
    for k in 0..n {
        parts.push(match r.dy_of(k) {
            Some(g) => g,
            None => {
                let y = r.y(k)?;
                zeros_like(r, y)
            }
        });
    }
    Ok(vec![Some(r.op_with("Concat", &parts, &[("axis", Attr::Int(axis))]))])
}

/// Zeros of the shape and type of `x`.
pub(super) fn zeros_like(r: &mut Rule<'_, '_>, x: ValueId) -> ValueId {
    let known = r.b.graph.shape(x).cloned();
    let shape = r.b.shape_of(x, known.as_ref());
    let zero = r.c(0.0, x);
    let y = r.op("Expand", &[zero, shape]);
    r.b.graph.fact_mut(y).shape = known;
    y
}

/// A slice of step 1: the gradient is padded with zeros to the input's size. The amounts come from sizes at run time
/// where they are not constant. Steps of another size leave gaps: each element goes to where it was taken from.
fn slice(r: &mut Rule<'_, '_>) -> Grads {
    let (dy, x) = (r.dy()?, r.x(0)?);
    let shape = r.shape(x)?;
    let ones = match r.node.input(4) {
        Some(_) => r.numbers(4).is_ok_and(|steps| steps.iter().all(|s| *s == 1)),
        None => true,
    };
    let axes = match r.node.input(3) {
        Some(_) => r.numbers(3).ok(),
        None => {
            r.shape(r.x(1)?)?.first().and_then(Dim::known).map(|n| (0..n.min(shape.len() as i64)).collect())
        }
    };
    let Some(axes) = axes.filter(|_| ones) else {
        let rest: Vec<_> = r.node.inputs.get(1..).unwrap_or_default().to_vec();
        return copied_with(r, &rest);
    };
    let axes: Vec<usize> = axes.iter().map(|a| r.axis(*a, shape.len())).collect::<Result<_, _>>()?;
    let pads = match r.numbers(1) {
        Ok(starts) => known_pads(r, &starts, &axes, &shape)?,
        Err(_) => None,
    };
    let pads = match pads {
        Some(n) => r.b.ints(&n),
        None => pads_at_run_time(r, dy, x, &axes, shape.len())?,
    };
    let zero = r.c(0.0, x);
    let g = r.op("Pad", &[dy, pads, zero]);
    r.b.graph.fact_mut(g).shape = Some(shape);
    Ok(vec![Some(g)])
}

/// How much a slice from `starts` on leaves away before and after, if that is known.
fn known_pads(
    r: &Rule<'_, '_>,
    starts: &[i64],
    axes: &[usize],
    shape: &Shape,
) -> Result<Option<Vec<i64>>, String> {
    let out = r.shape(r.y(0)?)?;
    let mut before = vec![Dim::from(0); shape.len()];
    let mut after = vec![Dim::from(0); shape.len()];
    for (start, a) in starts.iter().zip(axes) {
        let from = if *start < 0 { shape[*a].plus(&Dim::from(*start)) } else { Dim::from(*start) };
        // A start past an end means that end.
        let from = match (from.known(), shape[*a].known()) {
            (Some(from), Some(size)) => Dim::from(from.clamp(0, size.max(0))),
            _ => from,
        };
        let cut = out.get(*a).ok_or("the slice has fewer axes than its input")?;
        after[*a] = shape[*a].minus(&from).minus(cut);
        before[*a] = from;
    }
    Ok(before.iter().chain(&after).map(Dim::known).collect())
}

fn pads_at_run_time(
    r: &mut Rule<'_, '_>,
    dy: ValueId,
    x: ValueId,
    axes: &[usize],
    rank: usize,
) -> Result<ValueId, String> {
    let (size, cut, starts) = (r.op("Shape", &[x]), r.op("Shape", &[dy]), r.x(1)?);
    let starts = r.b.cast(starts, DType::I64);
    // The start on each axis of the input: the one that is given, or zero.
    let none = r.b.ints(&[0]);
    let starts = r.op_with("Concat", &[starts, none], &[("axis", Attr::Int(0))]);
    let which: Vec<i64> = (0..rank)
        .map(|a| axes.iter().position(|b| *b == a).map_or(axes.len() as i64, |k| k as i64))
        .collect();
    let which = r.b.ints(&which);
    let from = r.op("Gather", &[starts, which]);
    let before = wrap_negative(r, from, size);
    let before = r.op("Max", &[before, none]);
    let before = r.op("Min", &[before, size]);
    let rest = r.op("Sub", &[size, cut]);
    let after = r.op("Sub", &[rest, before]);
    Ok(r.op_with("Concat", &[before, after], &[("axis", Attr::Int(0))]))
}

/// Each axis is split into its repetitions and its own elements, and the repetitions are summed.
fn tile(r: &mut Rule<'_, '_>) -> Grads {
    let (dy, x, repeats) = (r.dy()?, r.x(0)?, r.x(1)?);
    let shape = r.shape(x)?;
    let one = r.b.ints(&[1]);
    let own = r.b.shape_of(x, Some(&shape));
    let (times, own) = (r.op("Unsqueeze", &[repeats, one]), r.op("Unsqueeze", &[own, one]));
    let pairs = r.op_with("Concat", &[times, own], &[("axis", Attr::Int(1))]);
    let flat = r.b.ints(&[-1]);
    let split = r.op("Reshape", &[pairs, flat]);
    let parts = r.op_with("Reshape", &[dy, split], &[("allowzero", Attr::Int(1))]);
    let axes: Vec<i64> = (0..shape.len() as i64).map(|a| 2 * a).collect();
    let axes = r.b.ints(&axes);
    let attrs = [("keepdims", Attr::Int(0)), ("noop_with_empty_axes", Attr::Int(1))];
    let g = r.op_with("ReduceSum", &[parts, axes], &attrs);
    r.b.graph.fact_mut(g).shape = Some(shape);
    Ok(vec![Some(g), None])
}

/// The gradient of a table of which rows were taken: each gradient row is added to its place. By one-hot product
/// where the table is small, else by a scatter whose duplicates add up (`ScatterElements`, which TensorRT takes).
fn gather(r: &mut Rule<'_, '_>) -> Grads {
    let (dy, x, at) = (r.dy()?, r.x(0)?, r.x(1)?);
    let shape = r.shape(x)?;
    let axis = r.axis(r.node.int("axis", 0), shape.len())?;
    let index_rank = r.rank(at)?;
    // Rows that were taken often add up.
    let dy = r.wide(dy);
    // Bring the index axes of dy to the front: [index.., outer.., inner..] → [n, outer·inner].
    let total = r.rank(dy)?;
    let mut perm: Vec<i64> = (axis as i64..(axis + index_rank) as i64).collect();
    perm.extend((0..total as i64).filter(|k| !(axis as i64..(axis + index_rank) as i64).contains(k)));
    let in_order = perm.iter().enumerate().all(|(i, p)| i as i64 == *p);
    let front = if in_order { dy } else { r.op_with("Transpose", &[dy], &[("perm", Attr::Ints(perm))]) };
    let flat_index = r.b.ints(&[-1]);
    let index = r.op("Reshape", &[at, flat_index]);
    let index = r.b.cast(index, DType::I64);
    let rows = match index_rank {
        0 => {
            let zero = r.b.ints(&[0]);
            let one = r.op("Unsqueeze", &[front, zero]);
            r.op_with("Flatten", &[one], &[("axis", Attr::Int(1))])
        }
        n => r.op_with("Flatten", &[front], &[("axis", Attr::Int(n as i64))]),
    };
    // Zeros [n_rows, width], width read from the gradient itself.
    let size =
        r.b.op_with("Shape", &[x], &[("start", Attr::Int(axis as i64)), ("end", Attr::Int(axis as i64 + 1))]);
    let width = r.op_with("Shape", &[rows], &[("start", Attr::Int(1)), ("end", Attr::Int(2))]);
    let table = r.op_with("Concat", &[size, width], &[("axis", Attr::Int(0))]);
    let zero = r.c(0.0, dy);
    let zeros = r.op("Expand", &[zero, table]);
    let index = wrap_negative(r, index, size);
    let one = r.b.ints(&[1]);
    let column = r.op("Unsqueeze", &[index, one]);
    let rows_shape = r.op("Shape", &[rows]);
    let where_to = r.op("Expand", &[column, rows_shape]);
    let attrs = [("axis", Attr::Int(0)), ("reduction", Attr::from("add"))];
    let summed = r.op_with("ScatterElements", &[zeros, where_to, rows], &attrs);
    if axis == 0 && shape.len() == 2 {
        // A table as most are: the sum lies as it does, and what is not reshaped is not copied either.
        r.b.graph.fact_mut(summed).shape = Some(shape);
        return Ok(vec![Some(summed), None]);
    }
    // Back to the table's own shape: [axis, others..] → axis moved to its place.
    let others: Vec<usize> = (0..shape.len()).filter(|k| *k != axis).collect();
    let full = r.op("Shape", &[x]);
    let order: Vec<i64> = std::iter::once(axis as i64).chain(others.iter().map(|k| *k as i64)).collect();
    let order_c = r.b.ints(&order);
    let moved = r.op("Gather", &[full, order_c]);
    let g = r.op("Reshape", &[summed, moved]);
    let mut back = vec![0i64; shape.len()];
    for (to, from) in order.iter().enumerate() {
        back[*from as usize] = to as i64;
    }
    let in_order = back.iter().enumerate().all(|(i, p)| i as i64 == *p);
    let g = if in_order { g } else { r.op_with("Transpose", &[g], &[("perm", Attr::Ints(back))]) };
    r.b.graph.fact_mut(g).shape = Some(shape);
    Ok(vec![Some(g), None])
}

/// Indices may count from the end; the scatter of an execution provider need not understand that.
pub(super) fn wrap_negative(r: &mut Rule<'_, '_>, index: ValueId, size: ValueId) -> ValueId {
    let zero = r.b.constant(Tensor::scalar(0i64));
    let negative = r.op("Less", &[index, zero]);
    let wrapped = r.op("Add", &[index, size]);
    r.op("Where", &[negative, wrapped, index])
}
