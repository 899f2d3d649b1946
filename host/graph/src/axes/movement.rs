//! Operators that move elements: reshaping, joining, cutting.

use super::elementwise::broadcast;
use super::level::Level;
use super::regroup::regroup;
use super::sizes::indexed;
use super::state::{Affine, Axis, State, Tag};
use super::{Rule, Step};
use crate::dim::Dim;

pub(super) const RULES: &[(&str, Rule)] = &[
    ("Reshape", reshaped),
    ("Flatten", reshaped),
    ("Squeeze", reshaped),
    ("Unsqueeze", reshaped),
    ("Transpose", transpose),
    ("Expand", expand),
    ("Concat", concat),
    ("Split", split),
    ("Slice", slice),
    ("Pad", pad),
    ("Tile", tile),
    ("Trilu", trilu),
    ("graft::PutVirtual", put_virtual),
    ("graft::DropVirtual", drop_virtual),
];

/// The same at some positions of each row.
fn put_virtual(step: &Step<'_>) -> Option<Vec<State>> {
    let axes = step.state(0)?.axes.clone();
    let mut out = step.join(&[0, 1, 2])?.level(Level::Any);
    out.axes = axes;
    out.relevel(&|_| Level::Any);
    Some(vec![out])
}

/// Positions of each row move within it.
fn drop_virtual(step: &Step<'_>) -> Option<Vec<State>> {
    let mut axes = step.state(0)?.axes.clone()?;
    let mut out = step.join(&[0, 1])?.level(Level::Any);
    let tokens = axes.get_mut(1)?;
    let tag = step.lose(&mut out, tokens);
    tokens.tag = tag;
    out.axes = Some(axes);
    out.relevel(&|_| Level::Any);
    Some(vec![out])
}

fn reshaped(step: &Step<'_>) -> Option<Vec<State>> {
    let mut out = step.join(&[0])?;
    step.shaped_by(&mut out, &[1])?;
    regroup(step, step.state(0)?, step.out_shape(0)?, &mut out)?;
    Some(vec![out])
}

fn transpose(step: &Step<'_>) -> Option<Vec<State>> {
    let x = step.state(0)?;
    let axes = x.axes.as_deref()?;
    let order: Vec<usize> = match step.node.ints("perm") {
        Some(p) => p.iter().map(|a| step.axis(*a, axes.len())).collect::<Option<_>>()?,
        None => (0..axes.len()).rev().collect(),
    };
    let mut out = x.clone();
    out.axes = Some(order.iter().map(|k| axes[*k].clone()).collect());
    out.affine = match &x.affine {
        Some(a) => Some(Affine {
            of: order.iter().map(|k| a.of.get(*k).cloned()).collect::<Option<_>>()?,
            plus: a.plus.clone(),
        }),
        None => None,
    };
    Some(vec![out])
}

fn expand(step: &Step<'_>) -> Option<Vec<State>> {
    let x = step.state(0)?;
    let axes = x.axes.as_deref()?;
    let shape = step.out_shape(0)?;
    let mut out = x.clone();
    step.shaped_by(&mut out, &[1])?;
    let added = shape.len().checked_sub(axes.len())?;
    let mut new: Vec<Axis> = shape.iter().map(Axis::same).collect();
    for (k, a) in axes.iter().enumerate().filter(|(_, a)| !a.dim.is(1)) {
        let to = &shape[k + added];
        let tag = if a.dim == *to { a.tag.clone() } else { step.lose(&mut out, a) };
        new[k + added] = Axis::new(tag, to.clone());
    }
    out.axes = Some(new);
    out.affine = x.affine.as_ref().map(|a| {
        let mut of = vec![Dim::from(0); added];
        of.extend(a.of.iter().zip(axes).map(|(d, a)| if a.dim.is(1) { Dim::from(0) } else { d.clone() }));
        Affine { of, plus: a.plus.clone() }
    });
    Some(vec![out])
}

fn concat(step: &Step<'_>) -> Option<Vec<State>> {
    let inputs: Vec<usize> = (0..step.node.inputs.len()).collect();
    let states: Vec<&State> = inputs.iter().map(|i| step.state(*i)).collect::<Option<_>>()?;
    let rank = states.first()?.axes.as_ref()?.len();
    let k = step.axis(step.node.int("axis", 0), rank)?;
    let mut out = step.join(&inputs)?;
    let mut tag = Tag::Own;
    let mut cut = Vec::new();
    for s in &states {
        let mut one = (*s).clone();
        let axes = one.axes.as_mut().filter(|a| a.len() == rank)?;
        tag = step.lose(&mut out, &axes[k]);
        if step.out_shape(0)?.get(k)?.known().is_none() && states.len() > 1 {
            // Where the second part begins hangs on how long the first one is.
            let own = Axis::own(&axes[k].dim);
            step.consume(&mut out, &own);
        }
        axes[k] = Axis::same(&Dim::from(1));
        cut.push(one);
    }
    let mut axes = broadcast_any(step, &cut.iter().collect::<Vec<_>>(), &mut out)?;
    axes[k].tag = tag;
    out.axes = Some(axes);
    let over = |f: fn(&State) -> Level| states.iter().map(|s| f(s)).reduce(Level::or).unwrap_or(Level::Any);
    (out.all, out.kept, out.diagonal) = (over(|s| s.all), over(|s| s.kept), over(|s| s.diagonal));
    Some(vec![out])
}

/// Broadcasts where an element comes from one of the states, not from all.
fn broadcast_any(step: &Step<'_>, states: &[&State], out: &mut State) -> Option<Vec<Axis>> {
    let mut axes = broadcast(step, states, out)?;
    for (k, axis) in axes.iter_mut().enumerate() {
        *axis = axis.with_pads(&|part, _| {
            let of = |s: &&State| match s.axes.as_ref().and_then(|a| a.get(k)?.parts().get(part)) {
                Some(Axis { tag: Tag::Seq(_, pad), .. }) => *pad,
                _ => s.all,
            };
            states.iter().map(of).reduce(Level::or).unwrap_or(Level::Any)
        });
    }
    Some(axes)
}

fn split(step: &Step<'_>) -> Option<Vec<State>> {
    let x = step.state(0)?;
    let axes = x.axes.as_deref()?;
    let k = step.axis(step.node.int("axis", 0), axes.len())?;
    let mut out = State { affine: None, ..x.clone() };
    let tag = match axes[k].tag {
        Tag::Same => Tag::Same,
        _ => step.lose(&mut out, &axes[k]),
    };
    if axes[k].dim.known().is_none() {
        step.consume(&mut out, &axes[k]);
    }
    step.shaped_by(&mut out, &[1])?;
    out.axes.as_mut()?.get_mut(k)?.tag = tag;
    Some(vec![out; step.node.outputs.len()])
}

fn slice(step: &Step<'_>) -> Option<Vec<State>> {
    let x = step.state(0)?;
    let mut axes = x.axes.clone()?;
    let shape = step.out_shape(0)?;
    let (starts, ends) = (step.elements(1)?, step.elements(2)?);
    let over: Vec<i64> = if step.has(3) { step.numbers(3)? } else { (0..).take(starts.len()).collect() };
    let steps: Vec<i64> = if step.has(4) { step.numbers(4)? } else { vec![1; starts.len()] };
    let mut out = State { affine: None, ..x.clone() };
    for (i, a) in over.iter().enumerate() {
        let k = step.axis(*a, axes.len())?;
        let (start, end, stride) = (starts.get(i)?, ends.get(i)?, *steps.get(i)?);
        let axis = axes[k].clone();
        let prefix = start.is(0) && stride == 1;
        if prefix && (*end == axis.dim || end.is(i64::MAX) || end.is(i64::from(i32::MAX))) {
            continue;
        }
        let size = shape.get(k)?;
        let first = start.is(0) && size.is(1) && matches!(axis.tag, Tag::Seq(..));
        let tag = match axis.tag {
            _ if first => Tag::Same,
            Tag::Same => Tag::Same,
            // The first so many of a table: what is at a place does not hang on how many are taken.
            Tag::Own if prefix && axis.dim.known().is_some() => indexed(step, size).tag,
            Tag::Own if axis.dim.known().is_some() && start.known().is_some() && end.known().is_some() => {
                Tag::Own
            }
            Tag::Own => {
                step.consume(&mut out, &Axis::own(&axis.dim.plus(start).plus(end)));
                Tag::Own
            }
            _ => step.lose(&mut out, &axis),
        };
        axes[k] = Axis::new(tag, size.clone());
    }
    let fresh = |a: &Axis| matches!(a.tag, Tag::Seq(_, Level::Tame));
    let all = x.all;
    let old = x.axes.as_deref()?;
    for (k, a) in axes.iter_mut().enumerate() {
        if fresh(a) && !old[k].has_seq() {
            *a = a.with_pads(&|_, _| all);
        }
    }
    out.axes = Some(axes);
    if step.node.inputs.len() > 1 {
        // What was known of elements at the same position of two axes need not hold of others.
        let moved = out.axes.iter().flatten().filter(|a| a.has_seq()).count()
            != old.iter().filter(|a| a.has_seq()).count();
        if moved {
            out = out.level_kept();
        }
    }
    Some(vec![out])
}

impl State {
    /// Falls back to what holds of all elements.
    fn level_kept(mut self) -> State {
        (self.kept, self.diagonal) = (self.all, self.all);
        self
    }
}

fn pad(step: &Step<'_>) -> Option<Vec<State>> {
    let x = step.state(0)?;
    let axes = x.axes.as_deref()?;
    let pads = step.numbers(1)?;
    let over: Vec<usize> = match step.has(3) {
        true => step.numbers(3)?.iter().map(|a| step.axis(*a, axes.len())).collect::<Option<_>>()?,
        false => (0..axes.len()).collect(),
    };
    let level = step.state(2).map_or(Level::Number(0.0), |s| s.all);
    let mut out = State { affine: None, ..x.clone() };
    out.relevel(&|l| l.or(level).or(x.all));
    for (i, k) in over.iter().enumerate() {
        let (before, after) = (*pads.get(i)?, *pads.get(i.checked_add(over.len())?)?);
        if before == 0 && after == 0 {
            continue;
        }
        let tag = step.lose(&mut out, &axes[*k]);
        if axes[*k].dim.known().is_none() {
            step.consume(&mut out, &axes[*k]);
        }
        out.axes.as_mut()?.get_mut(*k)?.tag = tag;
    }
    Some(vec![out])
}

fn tile(step: &Step<'_>) -> Option<Vec<State>> {
    let x = step.state(0)?;
    let axes = x.axes.as_deref()?;
    let repeats = step.elements(1)?;
    let mut out = State { affine: None, ..x.clone() };
    for (k, (a, _)) in axes.iter().zip(&repeats).enumerate().filter(|(_, (_, n))| !n.is(1)) {
        let tag = match a.tag {
            Tag::Same => Tag::Same,
            _ if a.dim.is(1) => Tag::Same,
            _ => step.lose(&mut out, a),
        };
        if a.dim.known().is_none() {
            step.consume(&mut out, a);
        }
        out.axes.as_mut()?.get_mut(k)?.tag = tag;
    }
    Some(vec![out])
}

/// Keeps a triangle of the last two axes.
fn trilu(step: &Step<'_>) -> Option<Vec<State>> {
    let x = step.state(0)?;
    let mut axes = x.axes.clone()?;
    let rank = axes.len();
    let k = if step.has(1) { *step.numbers(1)?.first()? } else { 0 };
    let upper = step.node.int("upper", 1) != 0;
    let mut out = State { affine: None, ..x.clone() };
    out.relevel(&|l| l.or(Level::Number(0.0)));
    for a in axes.iter_mut().skip(rank.checked_sub(2)?) {
        match a.tag {
            Tag::Same => *a = indexed(step, &a.dim).with_pads(&|_, _| out.all),
            Tag::Seq(..) => *a = a.with_pads(&|_, l| l.or(Level::Number(0.0))),
            _ => a.tag = step.lose(&mut out, a),
        }
    }
    out.axes = Some(axes);
    out.diagonal = if if upper { k <= 0 } else { k >= 0 } { x.diagonal } else { Level::Number(0.0) };
    Some(vec![out])
}
