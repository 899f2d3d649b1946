//! Sums, means, norms and softmax: what works along axes.

use super::level::Level;
use super::sizes::indexed;
use super::state::{Axis, State, Tag};
use super::{Rule, Step};
use crate::dim::Dim;

pub(super) const RULES: &[(&str, Rule)] = &[
    ("ReduceSum", reduce),
    ("ReduceMean", reduce),
    ("ReduceMax", reduce),
    ("ReduceMin", reduce),
    ("ReduceProd", reduce),
    ("ReduceL1", reduce),
    ("ReduceL2", reduce),
    ("ReduceSumSquare", reduce),
    ("ReduceLogSum", reduce),
    ("ReduceLogSumExp", reduce),
    ("ArgMax", arg),
    ("ArgMin", arg),
    ("Softmax", softmax),
    ("LogSoftmax", softmax),
    ("Hardmax", softmax),
    ("CumSum", cumulative),
    ("TopK", top),
    ("LayerNormalization", |s| norm(s, s.node.int("axis", -1), &[0, 1, 2])),
    ("graft::RMSNorm", |s| norm(s, -1, &[0, 1])),
    ("RMSNormalization", |s| norm(s, s.node.int("axis", -1), &[0, 1])),
    ("SimplifiedLayerNormalization", |s| norm(s, s.node.int("axis", -1), &[0, 1])),
    ("InstanceNormalization", |s| norm(s, 2, &[0, 1, 2])),
    ("GroupNormalization", |s| norm(s, 1, &[0, 1, 2])),
    ("MeanVarianceNormalization", |_| None),
    ("LpNormalization", |s| {
        let mut out = s.state(0)?.clone();
        let k = s.axis(s.node.int("axis", -1), s.axes(0)?.len())?;
        s.consume(&mut out, s.axes(0)?.get(k)?);
        Some(vec![plain(out, Level::Tame)])
    }),
];

fn plain(mut s: State, level: Level) -> State {
    s.affine = None;
    s.relevel(&|_| level);
    s
}

/// The axes that a reduction goes over.
fn reduced(step: &Step<'_>, rank: usize) -> Option<Vec<usize>> {
    let listed = match step.node.ints("axes") {
        Some(a) => a.to_vec(),
        None if step.has(1) => step.numbers(1)?,
        None => Vec::new(),
    };
    if listed.is_empty() {
        return Some(if step.node.int("noop_with_empty_axes", 0) != 0 {
            Vec::new()
        } else {
            (0..rank).collect()
        });
    }
    listed.iter().map(|a| step.axis(*a, rank)).collect()
}

/// True where what is padded along `axis` does not count in `op`.
fn left_out(op: &str, x: &State, axis: &Axis) -> bool {
    let Tag::Seq(_, pad) = axis.tag else { return false };
    match op {
        "ReduceSum" | "ReduceL1" | "ReduceL2" | "ReduceSumSquare" => pad == Level::Number(0.0),
        "ReduceMax" | "ReduceLogSumExp" | "Softmax" => pad.is_low() && x.diagonal.is_tame(),
        "ReduceProd" => pad == Level::Number(1.0),
        _ => false,
    }
}

fn reduce(step: &Step<'_>) -> Option<Vec<State>> {
    let x = step.state(0)?;
    let axes = x.axes.as_deref()?;
    let over = reduced(step, axes.len())?;
    let op = step.node.op.as_str();
    let mut out = plain(x.clone(), x.all.tamed());
    for k in &over {
        let steady =
            matches!(axes[*k].tag, Tag::Same) && matches!(op, "ReduceMean" | "ReduceMax" | "ReduceMin");
        if !steady && !left_out(op, x, &axes[*k]) {
            step.consume(&mut out, &axes[*k]);
        }
    }
    let kept = step.node.int("keepdims", 1) != 0;
    let left = out.axes.take()?.into_iter().enumerate();
    let one = |(k, a): (usize, Axis)| match (over.contains(&k), kept) {
        (false, _) => Some(a),
        (true, true) => Some(Axis::same(&Dim::from(1))),
        (true, false) => None,
    };
    out.axes = Some(left.filter_map(one).collect());
    Some(vec![out])
}

fn arg(step: &Step<'_>) -> Option<Vec<State>> {
    let x = step.state(0)?;
    let mut axes = x.axes.clone()?;
    let k = step.axis(step.node.int("axis", 0), axes.len())?;
    let mut out = plain(x.clone(), Level::Tame);
    step.consume(&mut out, &axes[k]);
    axes = out.axes.take()?;
    match step.node.int("keepdims", 1) {
        0 => {
            axes.remove(k);
        }
        _ => axes[k] = Axis::same(&Dim::from(1)),
    }
    out.axes = Some(axes);
    Some(vec![out])
}

fn softmax(step: &Step<'_>) -> Option<Vec<State>> {
    let x = step.state(0)?;
    let axes = x.axes.as_deref()?;
    let k = step.axis(step.node.int("axis", -1), axes.len())?;
    let op = step.node.op.as_str();
    let hidden = op == "Softmax" && left_out("Softmax", x, &axes[k]);
    let mut out = plain(x.clone(), if op == "LogSoftmax" { Level::Any } else { Level::Tame });
    if hidden {
        // Weights at padded positions are exactly zero: some position in the row has an ordinary score.
        let own = out.axes.as_mut()?.get_mut(k)?;
        *own = own.with_pads(&|_, _| Level::Number(0.0));
    } else {
        step.consume(&mut out, &axes[k]);
    }
    Some(vec![out])
}

/// Running sums: forwards they take in nothing of the padding behind.
fn cumulative(step: &Step<'_>) -> Option<Vec<State>> {
    let x = step.state(0)?;
    let axes = x.axes.as_deref()?;
    let k = step.axis(*step.numbers(1)?.first()?, axes.len())?;
    let mut out = plain(x.clone(), x.all.tamed());
    let forwards = step.node.int("reverse", 0) == 0;
    match axes[k].tag {
        Tag::Seq(..) if forwards => {}
        Tag::Own if forwards => {}
        Tag::Same if forwards => *out.axes.as_mut()?.get_mut(k)? = indexed(step, &axes[k].dim),
        _ => step.consume(&mut out, &axes[k]),
    }
    Some(vec![out])
}

fn top(step: &Step<'_>) -> Option<Vec<State>> {
    let x = step.state(0)?;
    let axes = x.axes.as_deref()?;
    let k = step.axis(step.node.int("axis", -1), axes.len())?;
    let mut out = plain(x.clone(), x.all.tamed());
    step.consume(&mut out, &axes[k]);
    step.shaped_by(&mut out, &[1])?;
    *out.axes.as_mut()?.get_mut(k)? = Axis::own(step.out_shape(0)?.get(k)?);
    Some(vec![out.clone(), out])
}

/// Normalises over `from` and everything behind it, then scales.
fn norm(step: &Step<'_>, from: i64, inputs: &[usize]) -> Option<Vec<State>> {
    let x = step.state(0)?;
    let axes = x.axes.as_deref()?;
    let from = step.axis(from, axes.len())?;
    if inputs[1..]
        .iter()
        .any(|i| step.state(*i).is_some_and(|s| !s.is_free() || s.axes.iter().flatten().any(Axis::has_seq)))
    {
        return None;
    }
    let mut out = plain(State { axes: x.axes.clone(), ..step.join(inputs)? }, Level::Tame);
    out = out.level(Level::Tame);
    axes[from..].iter().for_each(|a| step.consume(&mut out, a));
    // Scale and bias differ from place to place along the axes that they have.
    let lead = match step.node.op.as_str() {
        "InstanceNormalization" | "GroupNormalization" => 1,
        _ => from,
    };
    for (k, axis) in axes.iter().enumerate().skip(lead) {
        let tag = if k < from { step.lose(&mut out, axis) } else { Tag::Own };
        out.axes.as_mut()?.get_mut(k)?.tag = tag;
    }
    let mut all = vec![out.clone()];
    if step.node.outputs.len() > 1 {
        let mut stat = out;
        stat.axes.as_mut()?.iter_mut().skip(from).for_each(|a| *a = Axis::same(&Dim::from(1)));
        all.extend(std::iter::repeat_n(stat, step.node.outputs.len() - 1));
    }
    Some(all)
}
