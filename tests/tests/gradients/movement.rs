//! Cases of operators that move elements.

use graft_graph::{Attr, Tensor};
use graft_tests::Draw;
use graft_tests::differences::Tolerance::Exact;
use graft_tests::differences::{Arg, Case};

use crate::{Row, case};

pub const CASES: &[Row] = &[
    ("Reshape", Exact, reshape),
    ("Flatten", Exact, flatten),
    ("Squeeze", Exact, squeeze),
    ("Unsqueeze", Exact, unsqueeze),
    ("Expand", Exact, expand),
    ("Dropout", Exact, dropout),
    ("Transpose", Exact, transpose),
    ("Concat", Exact, concat),
    ("Split", Exact, split),
    ("Slice", Exact, slice),
    ("Gather", Exact, gather),
    ("Tile", Exact, tile),
    ("Trilu", Exact, trilu),
    ("ReverseSequence", Exact, reverse_sequence),
];

fn float(d: &mut Draw<'_>, shape: &[usize]) -> Arg {
    Arg::Float(d.reals(shape, (-2.0, 2.0), &[]))
}

fn ints(values: &[i64]) -> Arg {
    Arg::Constant(Tensor::vector(values))
}

/// To a shape that is written out, has a free axis, copies an axis by 0, or is known at run time only.
fn reshape(op: &'static str, d: &mut Draw<'_>) -> Case {
    let shape = d.shape(1..=3);
    let all: usize = shape.iter().product();
    let (all, backwards) = (all as i64, shape.iter().rev().map(|n| *n as i64).collect::<Vec<_>>());
    let to = d.pick(&[vec![-1], vec![all], vec![1, all], vec![all, 1, 1], vec![0, -1], backwards]);
    let target = if d.below(3) == 2 { Arg::Held(Tensor::vector(&to)) } else { ints(&to) };
    case(op, vec![float(d, &shape), target], &[])
}

fn flatten(op: &'static str, d: &mut Draw<'_>) -> Case {
    let shape = d.shape(1..=3);
    let mut c = case(op, vec![float(d, &shape)], &[]);
    if d.flag() {
        let rank = shape.len() as i64;
        let axis = d.below(2 * shape.len() + 1) as i64 - rank;
        c.attrs.insert("axis".into(), Attr::Int(axis));
    }
    c
}

/// Which axes are ones can be left to the operator where sizes are known.
fn squeeze(op: &'static str, d: &mut Draw<'_>) -> Case {
    let mut shape = d.shape(1..=3);
    let mut axes = d.axes(shape.len());
    if axes.is_empty() {
        axes.push(0);
    }
    axes.iter().for_each(|a| shape[*a] = 1);
    let named = d.flag();
    let mut args = vec![float(d, &shape)];
    if named {
        let written: Vec<i64> = axes.iter().map(|a| d.written(*a, shape.len())).collect();
        args.push(ints(&written));
    }
    Case { needs_sizes: !named, ..case(op, args, &[]) }
}

fn unsqueeze(op: &'static str, d: &mut Draw<'_>) -> Case {
    let shape = d.shape(0..=2);
    let rank = shape.len() + d.size(1..=2);
    let count = rank - shape.len();
    let first = d.below(shape.len() + 1);
    let axes: Vec<i64> = (first..first + count).map(|a| d.written(a, rank)).collect();
    case(op, vec![float(d, &shape), ints(&axes)], &[])
}

/// The target may be of lower rank than the input, and have ones where the input is larger.
fn expand(op: &'static str, d: &mut Draw<'_>) -> Case {
    let full = d.shape(1..=3);
    let (x, to) = (d.narrowed(&full), d.narrowed(&full));
    let to: Vec<i64> = to.iter().map(|n| *n as i64).collect();
    let target = if d.below(3) == 2 { Arg::Held(Tensor::vector(&to)) } else { ints(&to) };
    case(op, vec![float(d, &x), target], &[])
}

fn dropout(op: &'static str, d: &mut Draw<'_>) -> Case {
    let shape = d.shape(0..=3);
    let mut args = vec![float(d, &shape)];
    if d.flag() {
        args.push(Arg::Constant(Tensor::scalar(0.25f32)));
    }
    case(op, args, &[])
}

fn transpose(op: &'static str, d: &mut Draw<'_>) -> Case {
    let shape = d.shape(1..=4);
    let mut left: Vec<i64> = (0..shape.len() as i64).collect();
    let perm: Vec<i64> = (0..shape.len()).map(|_| left.remove(d.below(left.len()))).collect();
    let mut c = case(op, vec![float(d, &shape)], &[]);
    if d.below(4) != 3 {
        c.attrs.insert("perm".into(), Attr::Ints(perm));
    }
    c
}

fn concat(op: &'static str, d: &mut Draw<'_>) -> Case {
    let shape = d.shape(1..=3);
    let (at, axis) = d.axis(shape.len());
    let count = d.size(1..=3);
    let mut args = Vec::new();
    for _ in 0..count {
        let mut part = shape.clone();
        part[at] = d.size(1..=3);
        args.push(float(d, &part));
    }
    case(op, args, &[("axis", Attr::Int(axis))])
}

/// By a list of sizes, or into equal parts of which the last may be smaller.
fn split(op: &'static str, d: &mut Draw<'_>) -> Case {
    let mut shape = d.shape(1..=3);
    let (at, axis) = d.axis(shape.len());
    let sizes: Vec<i64> = (0..d.size(1..=3)).map(|_| d.size(1..=3) as i64).collect();
    shape[at] = sizes.iter().sum::<i64>() as usize;
    let parts = sizes.len();
    let mut c = case(op, vec![float(d, &shape)], &[("axis", Attr::Int(axis))]);
    match d.below(3) {
        0 => c.args.push(ints(&sizes)),
        1 => c.args.push(Arg::Held(Tensor::vector(&sizes))),
        _ => {
            let each = shape[at].div_ceil(parts);
            // ONNX Runtime wants every part but the last to be whole.
            let whole = (parts - 1) * each < shape[at];
            let n = if whole { parts } else { 1 };
            c.attrs.insert("num_outputs".into(), Attr::Int(n as i64));
            c.outputs = n;
            c.needs_sizes = true;
            return c;
        }
    }
    c.outputs = parts;
    c
}

/// Bounds from the front and from the back; past the ends where sizes are known. Steps of any size and direction;
/// all of it known at run time only.
fn slice(op: &'static str, d: &mut Draw<'_>) -> Case {
    let shape = d.shape(1..=3).into_iter().map(|n| if n == 3 { 5 } else { n }).collect::<Vec<_>>();
    let mut axes = d.axes(shape.len());
    if axes.is_empty() {
        axes.push(0);
    }
    let stepped = d.flag();
    let (mut starts, mut ends, mut steps, mut past) = (Vec::new(), Vec::new(), Vec::new(), false);
    for a in &axes {
        let n = shape[*a];
        let start = d.below(n);
        let step = if stepped { d.pick(&[1, 2, -1, -2, 3]) } else { 1 };
        steps.push(step);
        if step < 0 {
            // Backwards from the start, to the front or to somewhere before.
            starts.push(if start + 1 == n && d.flag() { i64::MAX } else { d.written(start, n) });
            let end = d.below(start + 1);
            ends.push(if end == 0 { i64::MIN } else { d.written(end - 1, n) });
            continue;
        }
        let end = start + 1 + d.below(n - start);
        starts.push(d.written(start, n));
        ends.push(match d.below(4) {
            0 if end < n => end as i64 - n as i64,
            1 if end == n => i64::MAX,
            _ => end as i64,
        });
        if start == 0 && d.below(4) == 3 {
            // Shapes of slices with known bounds of an unknown size are taken as if it were large enough.
            past |= end == n;
            *starts.last_mut().expect("just pushed") = -(n as i64) - 2;
        }
    }
    let written: Vec<i64> = axes.iter().map(|a| d.written(*a, shape.len())).collect();
    let held = d.below(3) == 2;
    let bound = |v: &[i64]| if held { Arg::Held(Tensor::vector(v)) } else { ints(v) };
    let mut args = vec![float(d, &shape), bound(&starts), bound(&ends)];
    let leading = axes.iter().enumerate().all(|(i, a)| i == *a);
    if !leading || stepped || d.flag() {
        // Axes that are known at run time only, too.
        args.push(if d.below(4) == 3 { Arg::Held(Tensor::vector(&written)) } else { ints(&written) });
        if stepped || d.flag() {
            args.push(if d.below(4) == 3 { Arg::Held(Tensor::vector(&steps)) } else { ints(&steps) });
        }
    }
    Case { needs_sizes: past, ..case(op, args, &[]) }
}

fn tile(op: &'static str, d: &mut Draw<'_>) -> Case {
    let shape = d.shape(1..=3);
    let repeats: Vec<i64> = shape.iter().map(|_| d.size(1..=3) as i64).collect();
    let repeats = if d.flag() { Arg::Held(Tensor::vector(&repeats)) } else { ints(&repeats) };
    case(op, vec![float(d, &shape), repeats], &[])
}

/// Above or below any diagonal, of one matrix or of many.
fn trilu(op: &'static str, d: &mut Draw<'_>) -> Case {
    let shape = d.shape(2..=4);
    let mut args = vec![float(d, &shape)];
    let diagonal = Tensor::scalar(d.pick(&[0i64, 1, -1, 2, -2, 5]));
    match d.below(3) {
        0 => {}
        1 => args.push(Arg::Constant(diagonal)),
        _ => args.push(Arg::Held(diagonal)),
    }
    let mut c = case(op, args, &[]);
    if let Some(upper) = d.pick(&[None, Some(0), Some(1)]) {
        c.attrs.insert("upper".into(), Attr::Int(upper));
    }
    c
}

fn reverse_sequence(op: &'static str, d: &mut Draw<'_>) -> Case {
    let shape = d.shape(2..=3);
    let batch = d.below(2);
    let lengths: Vec<i64> = (0..shape[batch]).map(|_| d.size(1..=shape[1 - batch]) as i64).collect();
    let lengths = if d.flag() { Arg::Held(Tensor::vector(&lengths)) } else { ints(&lengths) };
    let axes = [("batch_axis", Attr::Int(batch as i64)), ("time_axis", Attr::Int(1 - batch as i64))];
    case(op, vec![float(d, &shape), lengths], &axes)
}

/// Indices of any rank, from the front and from the back, with duplicates, of either integer type.
fn gather(op: &'static str, d: &mut Draw<'_>) -> Case {
    let shape = d.shape(1..=3);
    let (at, axis) = d.axis(shape.len());
    let index = d.shape(0..=2);
    let count = index.iter().product();
    let rows: Vec<i64> = (0..count).map(|_| d.axis(shape[at]).1).collect();
    let rows = match d.flag() {
        true => Tensor::new(index, &rows.iter().map(|r| *r as i32).collect::<Vec<_>>()),
        false => Tensor::new(index, &rows),
    };
    let rows = rows.expect("as many as the shape asks for");
    let rows = if d.flag() { Arg::Constant(rows) } else { Arg::Held(rows) };
    case(op, vec![float(d, &shape), rows], &[("axis", Attr::Int(axis))])
}
