//! Cases of operators that take and place elements by index.

use graft_graph::grad::grad;
use graft_graph::{Attr, DType, Tensor, ValueId};
use graft_tests::differences::Tolerance::Exact;
use graft_tests::differences::{Arg, Case, Derived, Sizes};
use graft_tests::{Array, Draw, runtime};

use crate::{Row, case};

pub const CASES: &[Row] = &[
    ("GatherElements", Exact, gather_elements),
    ("GatherND", Exact, gather_nd),
    ("ScatterElements", Exact, scatter_elements),
    ("ScatterND", Exact, scatter_nd),
    ("TopK", Exact, top_k),
    ("Compress", Exact, compress),
];

fn float(d: &mut Draw<'_>, shape: &[usize]) -> Arg {
    Arg::Float(d.reals(shape, (-2.0, 2.0), &[]))
}

fn index(d: &mut Draw<'_>, shape: &[usize], values: &[i64]) -> Arg {
    let t = Tensor::new(shape.to_vec(), values).expect("as many as the shape asks for");
    if d.flag() { Arg::Held(t) } else { Arg::Constant(t) }
}

/// A shape that fits into `full` on every axis but `at`.
fn within(d: &mut Draw<'_>, full: &[usize], at: usize, size: usize) -> Vec<usize> {
    full.iter().enumerate().map(|(a, n)| if a == at { size } else { d.size(1..=*n) }).collect()
}

/// Any number of indices along the axis, duplicates among them; the others may stop early. Of either integer type.
fn gather_elements(op: &'static str, d: &mut Draw<'_>) -> Case {
    let shape = d.shape(1..=3);
    let (at, axis) = d.axis(shape.len());
    let size = d.size(1..=4);
    let to = within(d, &shape, at, size);
    let rows: Vec<i64> = (0..to.iter().product()).map(|_| d.axis(shape[at]).1).collect();
    let rows = match d.below(4) {
        3 => {
            let short: Vec<i32> = rows.iter().map(|r| *r as i32).collect();
            Arg::Held(Tensor::new(to, &short).expect("as many as the shape asks for"))
        }
        _ => index(d, &to, &rows),
    };
    case(op, vec![float(d, &shape), rows], &[("axis", Attr::Int(axis))])
}

fn gather_nd(op: &'static str, d: &mut Draw<'_>) -> Case {
    let shape = d.shape(1..=4);
    let batch = d.below(shape.len());
    let depth = d.size(1..=shape.len() - batch);
    let mut at = shape[..batch].to_vec();
    at.extend(d.shape(0..=2));
    let places: usize = at.iter().product();
    at.push(depth);
    let mut values = Vec::new();
    for _ in 0..places {
        (0..depth).for_each(|k| values.push(d.axis(shape[batch + k]).1));
    }
    let rows = index(d, &at, &values);
    // How many axes are indexed has to be known.
    let needs_sizes = matches!(rows, Arg::Held(_));
    let mut c = case(op, vec![float(d, &shape), rows], &[]);
    if batch > 0 || d.flag() {
        c.attrs.insert("batch_dims".into(), Attr::Int(batch as i64));
    }
    Case { needs_sizes, ..c }
}

fn reduction(d: &mut Draw<'_>, c: &mut Case) -> bool {
    let kind = d.pick(&[None, Some("none"), Some("add")]);
    if let Some(kind) = kind {
        c.attrs.insert("reduction".into(), Attr::from(kind));
    }
    kind == Some("add")
}

/// Without a reduction every index occurs once, else any number of times.
fn scatter_elements(op: &'static str, d: &mut Draw<'_>) -> Case {
    let shape = d.shape(1..=3);
    let (at, axis) = d.axis(shape.len());
    let mut c = case(op, vec![float(d, &shape)], &[("axis", Attr::Int(axis))]);
    let adds = reduction(d, &mut c);
    let size = d.size(1..=shape[at]);
    let to = within(d, &shape, at, size);
    let (inner, n, shift) = (to[at + 1..].iter().product::<usize>(), shape[at], d.below(3));
    let rows: Vec<i64> = (0..to.iter().product())
        .map(|k| {
            let row = if adds { d.below(n) } else { (k / inner % size + shift) % n };
            d.written(row, n)
        })
        .collect();
    c.args.push(index(d, &to, &rows));
    c.args.push(float(d, &to));
    c
}

fn scatter_nd(op: &'static str, d: &mut Draw<'_>) -> Case {
    let shape = d.shape(1..=3);
    let depth = d.size(1..=shape.len());
    let mut c = case(op, vec![float(d, &shape)], &[]);
    let adds = reduction(d, &mut c);
    let all: usize = shape[..depth].iter().product();
    let (count, shift) = (d.size(1..=all), d.below(all));
    let mut values = Vec::new();
    for k in 0..count {
        let mut place = if adds { d.below(all) } else { (k + shift) % all };
        let mut written = vec![0; depth];
        for a in (0..depth).rev() {
            written[a] = d.written(place % shape[a], shape[a]);
            place /= shape[a];
        }
        values.extend(written);
    }
    c.args.push(index(d, &[count, depth], &values));
    c.needs_sizes = matches!(c.args[1], Arg::Held(_));
    let updates: Vec<usize> = std::iter::once(count).chain(shape[depth..].iter().copied()).collect();
    c.args.push(float(d, &updates));
    c
}

/// Numbers of which no two are close.
fn top_k(op: &'static str, d: &mut Draw<'_>) -> Case {
    let shape = d.shape(1..=3);
    let (at, axis) = d.axis(shape.len());
    let shift = d.below(29);
    let values = (0..shape.iter().product()).map(|i: usize| 0.1 * ((i * 7 + shift) % 29) as f64).collect();
    let k = Tensor::vector(&[d.size(1..=shape[at]) as i64]);
    let k = if d.flag() { Arg::Held(k) } else { Arg::Constant(k) };
    let mut c = case(op, vec![Arg::Float(Array { shape, values }), k], &[("axis", Attr::Int(axis))]);
    for name in ["largest", "sorted"] {
        if d.flag() {
            c.attrs.insert(name.into(), Attr::Int(0));
        }
    }
    Case { outputs: 2, ..c }
}

/// Along an axis or of all elements; the list may be shorter than what it chooses from.
fn compress(op: &'static str, d: &mut Draw<'_>) -> Case {
    let shape = d.shape(1..=3);
    let axis = d.flag().then(|| d.axis(shape.len()));
    let n = axis.map_or(shape.iter().product(), |(at, _)| shape[at]);
    let mut chosen: Vec<bool> = (0..d.size(1..=n)).map(|_| d.flag()).collect();
    chosen[0] = true;
    let chosen = Tensor::vector(&chosen);
    let chosen = if d.flag() { Arg::Held(chosen) } else { Arg::Constant(chosen) };
    let mut c = case(op, vec![float(d, &shape), chosen], &[]);
    c.attrs.extend(axis.map(|(_, written)| ("axis".into(), Attr::Int(written))));
    c
}

fn row(values: &[f64]) -> Arg {
    Arg::Float(Array { shape: vec![values.len()], values: values.to_vec() })
}

#[test]
fn of_equal_elements_those_that_were_picked_have_the_gradient() {
    let Some(runtime) = runtime() else { return };
    let args = vec![row(&[1.0, 2.0, 2.0, 2.0]), Arg::Constant(Tensor::vector(&[2i64]))];
    let case = Case { outputs: 2, ..case("TopK", args, &[]) };
    let (graph, floats, fed) = case.graph(Sizes::Own, DType::F64);
    let mut derived = Derived::new(runtime, &graph, &floats, true).unwrap();
    // ONNX Runtime picks the first ones, as the standard wants it.
    assert_eq!(derived.gradients(&fed, &mut || 1.0).unwrap().0, [[0.0, 1.0, 1.0, 0.0]]);
}

#[test]
fn reductions_other_than_a_sum_are_refused_with_a_reason() {
    for (op, at) in [
        ("ScatterElements", Tensor::vector(&[0i64])),
        ("ScatterND", Tensor::new(vec![1, 1], &[0i64]).unwrap()),
    ] {
        let args = vec![row(&[1.0, 2.0]), Arg::Constant(at), row(&[3.0])];
        let case = case(op, args, &[("reduction", Attr::from("mul"))]);
        let (mut graph, floats, _) = case.graph(Sizes::Known, DType::F64);
        let y: ValueId = graph.outputs[0];
        let why = grad(&mut graph, &[(y, y)], &floats, &[]).unwrap_err().to_string();
        assert!(why.contains(op) && why.contains("reduction 'mul' is not derived"), "{why}");
    }
}
