//! Picking elements by number.

use super::elementwise::broadcast;
use super::level::Level;
use super::state::{Axis, State, Tag};
use super::{Rule, Step};
use crate::dim::Dim;

pub(super) const RULES: &[(&str, Rule)] =
    &[("Gather", gather), ("GatherND", gather_nd), ("GatherElements", gather_elements), ("OneHot", one_hot)];

fn gather(step: &Step<'_>) -> Option<Vec<State>> {
    let (x, indices) = (step.state(0)?, step.state(1)?);
    let (data, places) = (x.axes.as_deref()?, indices.axes.as_deref()?);
    let axis = step.axis(step.node.int("axis", 0), data.len())?;
    let (before, picked, after) = (&data[..axis], &data[axis], &data[axis + 1..]);
    let around =
        |middle: Vec<Axis>| before.iter().cloned().chain(middle).chain(after.iter().cloned()).collect();
    if let Some(tags) = in_order(picked, indices) {
        let mut out = step.join(&[0])?;
        out.axes = Some(around(tags));
        (out.all, out.kept, out.diagonal) = (x.all, x.kept, x.diagonal);
        return Some(vec![out]);
    }
    let mut out = step.join(&[0, 1])?.level(x.all);
    let first = matches!(indices.all, Level::Number(0.0)) && matches!(picked.tag, Tag::Seq(..));
    match picked.tag {
        // The first position of a row is never padded.
        _ if first => {
            out = if before.iter().chain(after).any(Axis::has_seq) { out } else { out.level(x.kept) }
        }
        Tag::Same => {}
        Tag::Own => {
            // A number counted from the end, or one that is looked up, hangs on the length where that is no number.
            if picked.dim.known().is_none() {
                step.consume(&mut out, picked);
            }
        }
        _ => step.consume(&mut out, picked),
    }
    out.axes = Some(around(places.iter().map(|a| a.with_pads(&|_, _| x.all)).collect()));
    Some(vec![out])
}

/// Where `indices` are the numbers of `picked` in their order, spread over axes: those axes, with what runs along them.
fn in_order(picked: &Axis, indices: &State) -> Option<Vec<Axis>> {
    let (affine, axes) = (indices.affine.as_ref()?, indices.axes.as_deref()?);
    if !affine.plus.is(0) || !(picked.has_batch() || picked.has_seq()) {
        return None;
    }
    let mut tags: Vec<Axis> = axes.iter().map(|a| Axis::same(&a.dim)).collect();
    let mut taken = vec![false; axes.len()];
    let mut stride = Dim::from(1);
    for part in picked.parts().iter().rev() {
        let fits = |k: &usize| !taken[*k] && affine.of[*k] == stride && axes[*k].dim == part.dim;
        let k = (0..axes.len()).find(fits)?;
        taken[k] = true;
        tags[k] = Axis::new(part.tag.clone(), part.dim.clone());
        stride = stride.times(&part.dim);
    }
    let rest = (0..axes.len()).filter(|k| !taken[*k]).all(|k| affine.of[k].is(0) || axes[k].dim.is(1));
    rest.then_some(tags)
}

/// Whole numbers of several axes at once, where each component follows an axis of the indices in order.
fn gather_nd(step: &Step<'_>) -> Option<Vec<State>> {
    let (x, indices) = (step.state(0)?, step.state(1)?);
    let (data, places) = (x.axes.as_deref()?, indices.axes.as_deref()?);
    if step.node.int("batch_dims", 0) != 0 {
        return None;
    }
    let (last, outer) = places.split_last()?;
    let depth = usize::try_from(last.dim.known()?).ok().filter(|d| *d <= data.len())?;
    if x.is_free() && !data.iter().any(Axis::has_seq) {
        let mut out = step.join(&[0, 1])?.level(x.all);
        let places = outer.iter().map(|a| a.with_pads(&|_, _| x.all));
        out.axes = Some(places.chain(data[depth..].iter().cloned()).collect());
        return Some(vec![out]);
    }
    if let Some(tags) = components_in_order(step, &data[..depth], outer) {
        let mut out = step.join(&[0])?;
        (out.all, out.kept, out.diagonal) = (x.all, x.kept, x.diagonal);
        out.axes = Some(tags.into_iter().chain(data[depth..].iter().cloned()).collect());
        return Some(vec![out]);
    }
    let numbers = step.graph.constant(step.node.input(1)?)?.to_i64s()?;
    if numbers.is_empty() {
        return None;
    }
    let shape: Vec<usize> =
        outer.iter().map(|a| usize::try_from(a.dim.known()?).ok()).collect::<Option<_>>()?;
    let mut tags: Vec<Axis> = outer.iter().map(|a| Axis::same(&a.dim)).collect();
    for (c, picked) in data[..depth].iter().enumerate() {
        let place = |i: usize, k: usize| {
            let inner: usize = shape[k + 1..].iter().product();
            i.checked_div(inner)?.checked_rem(shape[k])
        };
        let follows = |k: usize| {
            shape[k] > 1
                && picked.dim == outer[k].dim
                && numbers
                    .iter()
                    .skip(c)
                    .step_by(depth)
                    .enumerate()
                    .all(|(i, n)| place(i, k).is_some_and(|p| i64::try_from(p) == Ok(*n)))
        };
        let all_zero = numbers.iter().skip(c).step_by(depth).all(|n| *n == 0);
        match (0..outer.len()).find(|k| follows(*k)) {
            Some(k) => tags[k] = picked.clone(),
            None if picked.dim.is(1) && all_zero => {}
            None => return None,
        }
    }
    let mut out = step.join(&[0])?;
    (out.all, out.kept, out.diagonal) = (x.all, x.kept, x.diagonal);
    out.axes = Some(tags.into_iter().chain(data[depth..].iter().cloned()).collect());
    Some(vec![out])
}

/// The axes of what is picked where the indices are components, joined along their last axis, of which each counts along
/// an axis of its own: exporters write `x[rows, positions]` so, with ranges for both.
fn components_in_order(step: &Step<'_>, data: &[Axis], outer: &[Axis]) -> Option<Vec<Axis>> {
    let indices = step.node.input(1)?;
    let joined = step.graph.nodes.iter().find(|n| n.is("Concat") && n.output(0) == Some(indices))?;
    let rank = i64::try_from(outer.len()).ok()?;
    if ![-1, rank].contains(&joined.int("axis", 0)) || joined.inputs.len() != data.len() {
        return None;
    }
    let mut tags: Vec<Axis> = outer.iter().map(|a| Axis::same(&a.dim)).collect();
    let mut taken = vec![false; outer.len()];
    for (part, picked) in joined.inputs.iter().zip(data) {
        let state = step.states.get((*part)?.index())?.as_ref()?;
        let (affine, axes) = (state.affine.as_ref()?, state.axes.as_deref()?);
        if axes.len() != outer.len() + 1 || !affine.plus.is(0) {
            return None;
        }
        let counts = |k: &usize| affine.of[*k].is(1) && outer[*k].dim == picked.dim && !taken[*k];
        let k = (0..outer.len()).find(counts)?;
        if (0..outer.len()).any(|j| j != k && !affine.of[j].is(0) && !axes[j].dim.is(1)) {
            return None;
        }
        (taken[k], tags[k]) = (true, picked.clone());
    }
    Some(tags)
}

fn gather_elements(step: &Step<'_>) -> Option<Vec<State>> {
    let (x, indices) = (step.state(0)?, step.state(1)?);
    let (data, places) = (x.axes.as_deref()?, indices.axes.as_deref()?);
    let axis = step.axis(step.node.int("axis", 0), data.len()).filter(|_| data.len() == places.len())?;
    let mut out = step.join(&[0, 1])?.level(x.all);
    if !matches!(data[axis].tag, Tag::Own) || data[axis].dim.known().is_none() {
        step.consume(&mut out, &data[axis]);
    }
    // Along the other axes an element stays where it is; a longer `data` is cut off behind.
    let mut lined = x.clone();
    let axes = data.iter().zip(places).enumerate().map(|(k, (d, p))| match k == axis {
        true => Axis::same(&Dim::from(1)),
        false if p.dim.is(1) => Axis::same(&Dim::from(1)),
        false => d.clone(),
    });
    lined.axes = Some(axes.collect());
    let mut axes = broadcast(step, &[&lined, indices], &mut out)?;
    axes.iter_mut().for_each(|a| *a = a.with_pads(&|_, _| x.all));
    for (k, (d, p)) in data.iter().zip(places).enumerate() {
        if k != axis && p.dim.is(1) && !d.dim.is(1) {
            step.lose(&mut out, d);
        }
    }
    out.axes = Some(axes);
    Some(vec![out])
}

fn one_hot(step: &Step<'_>) -> Option<Vec<State>> {
    let mut out = step.join(&[0, 1, 2])?.level(Level::Tame);
    let mut axes: Vec<Axis> = step.axes(0)?.iter().map(|a| a.with_pads(&|_, _| Level::Tame)).collect();
    let at = step.axis(step.node.int("axis", -1), axes.len() + 1)?;
    axes.insert(at, Axis::own(step.out_shape(0)?.get(at)?));
    out.axes = Some(axes);
    Some(vec![out])
}
