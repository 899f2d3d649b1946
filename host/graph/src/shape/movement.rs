//! Operators that move elements: reshaping, joining, cutting, gathering.

use super::{Infer, Rule, one};
use crate::dim::{Dim, Shape, broadcast, product};
use crate::ir::Fact;

pub(super) const RULES: &[(&str, Rule)] = &[
    ("Reshape", reshape),
    ("Transpose", transpose),
    ("Flatten", flatten),
    ("Squeeze", squeeze),
    ("Unsqueeze", unsqueeze),
    ("Expand", expand),
    ("Concat", concat),
    ("Split", split),
    ("Slice", slice),
    ("Gather", gather),
    ("GatherElements", |i| one(i.dtype(0), i.shape(1).cloned())),
    ("GatherND", gather_nd),
    ("ScatterElements", |i| one(i.dtype(0), i.shape(0).cloned())),
    ("ScatterND", |i| one(i.dtype(0), i.shape(0).cloned())),
    ("Pad", pad),
    ("Tile", tile),
];

fn reshape(i: &Infer<'_>) -> Option<Vec<Fact>> {
    let dtype = i.dtype(0);
    // A reshaped shape vector keeps its elements.
    let kept = i.all_elements(0).map(<[Dim]>::to_vec);
    let Some(target) = i.elements(1) else {
        let rank = i.shape(1).and_then(|s| s.first()?.known()).filter(|r| (0..=16).contains(r))?;
        return one(dtype, Some((0..rank as usize).map(|k| i.unknown(k)).collect()));
    };
    let x = i.shape(0);
    let mut out: Shape = Vec::with_capacity(target.len());
    let mut free = None;
    for (k, d) in target.iter().enumerate() {
        out.push(match d.known() {
            Some(0) if i.node.int("allowzero", 0) == 0 => {
                x.and_then(|x| x.get(k).cloned()).unwrap_or_else(|| i.unknown(k))
            }
            Some(-1) => {
                free = Some(k);
                Dim::from(1)
            }
            _ => d.clone(),
        });
    }
    if let Some(k) = free {
        out[k] = x.and_then(|x| product(x).divided_exactly(&product(&out))).unwrap_or_else(|| i.unknown(k));
    }
    let elements = kept.filter(|_| out.len() <= 2);
    Some(vec![Fact { dtype, shape: Some(out), elements }])
}

fn transpose(i: &Infer<'_>) -> Option<Vec<Fact>> {
    let x = i.shape(0)?;
    let out = match i.node.ints("perm") {
        Some(p) => p.iter().map(|a| i.axis(*a, x.len()).map(|a| x[a].clone())).collect::<Option<Shape>>()?,
        None => x.iter().rev().cloned().collect(),
    };
    let elements = (|| {
        let (e, [rows, columns]) = (i.all_elements(0)?, x.as_slice()) else { return None };
        let (rows, columns) = (usize::try_from(rows.known()?).ok()?, usize::try_from(columns.known()?).ok()?);
        let turned = i.node.ints("perm").is_none_or(|p| p == [1, 0]);
        if rows.checked_mul(columns)? != e.len() {
            return None;
        }
        let at = |k: usize| if turned { (k % rows) * columns + k / rows } else { k };
        (0..e.len()).map(|k| e.get(at(k)).cloned()).collect::<Option<Vec<Dim>>>()
    })();
    Some(vec![Fact { dtype: i.dtype(0), shape: Some(out), elements }])
}

fn flatten(i: &Infer<'_>) -> Option<Vec<Fact>> {
    let x = i.shape(0)?;
    let axis = i.node.int("axis", 1);
    let axis = if axis == x.len() as i64 { x.len() } else { i.axis(axis, x.len())? };
    one(i.dtype(0), Some(vec![product(&x[..axis]), product(&x[axis..])]))
}

fn squeeze(i: &Infer<'_>) -> Option<Vec<Fact>> {
    let x = i.shape(0)?;
    let drop: Vec<usize> = if i.has(1) {
        i.numbers(1)?.iter().map(|a| i.axis(*a, x.len())).collect::<Option<_>>()?
    } else {
        (0..x.len()).filter(|k| x[*k].is(1)).collect()
    };
    let out: Shape =
        x.iter().enumerate().filter(|(k, _)| !drop.contains(k)).map(|(_, d)| d.clone()).collect();
    let elements = i.elements(0).map(<[Dim]>::to_vec);
    Some(vec![Fact { dtype: i.dtype(0), shape: Some(out), elements }])
}

fn unsqueeze(i: &Infer<'_>) -> Option<Vec<Fact>> {
    let x = i.shape(0)?;
    let axes = i.numbers(1)?;
    let rank = x.len() + axes.len();
    let mut new: Vec<usize> = axes.iter().map(|a| i.axis(*a, rank)).collect::<Option<_>>()?;
    new.sort_unstable();
    let mut out = x.clone();
    for a in new {
        if a > out.len() {
            return None;
        }
        out.insert(a, Dim::from(1));
    }
    let elements = i.elements(0).map(<[Dim]>::to_vec).filter(|_| out.len() <= 1);
    Some(vec![Fact { dtype: i.dtype(0), shape: Some(out), elements }])
}

fn expand(i: &Infer<'_>) -> Option<Vec<Fact>> {
    let x = i.shape(0)?;
    let shape = match i.elements(1) {
        Some(target) => broadcast(x, target),
        None => {
            let rank = i.shape(1)?.first()?.known().filter(|r| (0..=16).contains(r))? as usize;
            Some((0..rank.max(x.len())).map(|k| i.unknown(k)).collect())
        }
    };
    let elements = match (&shape, i.elements(0)) {
        (Some(s), Some([e])) if s.len() == 1 => {
            s[0].known().filter(|n| (0..=256).contains(n)).map(|n| vec![e.clone(); n as usize])
        }
        _ => None,
    };
    Some(vec![Fact { dtype: i.dtype(0), shape, elements }])
}

fn concat(i: &Infer<'_>) -> Option<Vec<Fact>> {
    let n = i.node.inputs.len();
    let shapes: Vec<&Shape> = (0..n).map(|k| i.shape(k)).collect::<Option<_>>()?;
    let mut out = (*shapes.first()?).clone();
    let axis = i.axis(i.node.int("axis", 0), out.len())?;
    for s in &shapes[1..] {
        out[axis] = out[axis].plus(s.get(axis)?);
    }
    let elements =
        (0..n).map(|k| i.elements(k).map(<[Dim]>::to_vec)).collect::<Option<Vec<_>>>().map(|e| e.concat());
    Some(vec![Fact { dtype: i.dtype(0), shape: Some(out), elements }])
}

fn split(i: &Infer<'_>) -> Option<Vec<Fact>> {
    let x = i.shape(0)?;
    let axis = i.axis(i.node.int("axis", 0), x.len())?;
    let n = i.node.outputs.len();
    let sizes: Vec<Dim> = match i.elements(1) {
        Some(s) => s.to_vec(),
        None if i.has(1) => (0..n).map(|k| i.unknown(k)).collect(),
        None => {
            let parts = Dim::from(n);
            match (x[axis].divided_exactly(&parts), x[axis].known()) {
                (Some(d), _) => vec![d; n],
                // The last part is smaller where the axis does not divide.
                (None, Some(all)) => {
                    let each = all.checked_add(n as i64 - 1)?.checked_div(n as i64)?;
                    let left = |k: i64| all.saturating_sub(k.saturating_mul(each)).clamp(0, each.max(0));
                    (0..n as i64).map(|k| Dim::from(left(k))).collect()
                }
                (None, None) => (0..n).map(|k| i.unknown(k)).collect(),
            }
        }
    };
    let part = |d: &Dim| {
        let mut s = x.clone();
        s[axis] = d.clone();
        Fact { dtype: i.dtype(0), shape: Some(s), elements: None }
    };
    Some(sizes.iter().map(part).collect())
}

/// The size that a slice leaves of `size`; `None` when it depends on what the symbols are.
fn sliced(size: &Dim, start: &Dim, end: &Dim, step: i64) -> Option<Dim> {
    if let (Some(n), Some(s), Some(e)) = (size.known().filter(|n| *n >= 0), start.known(), end.known()) {
        if n == 0 {
            return Some(Dim::from(0));
        }
        let clamp =
            |v: i64, low: i64, high: i64| (if v < 0 { v.saturating_add(n) } else { v }).clamp(low, high);
        let count = if step > 0 {
            let (s, e) = (clamp(s, 0, n), clamp(e, 0, n));
            (e - s).max(0).checked_add(step - 1)? / step
        } else {
            let (s, e) = (clamp(s, 0, (n - 1).max(0)), clamp(e, -1, n - 1));
            let back = step.checked_neg()?;
            (s - e).max(0).checked_add(back - 1)? / back
        };
        return Some(Dim::from(count));
    }
    if step != 1 {
        return None;
    }
    let whole_end = end.known().is_some_and(|e| e >= i64::from(i32::MAX)) || end == size;
    match (start.known(), end.known()) {
        (Some(0), _) if whole_end => Some(size.clone()),
        // Negative bounds count from the end of an axis that is assumed to be long enough, as exporters assume.
        (Some(s), _) if whole_end && s < 0 => s.checked_neg().map(Dim::from),
        (Some(s), _) if whole_end => Some(size.minus(&Dim::from(s))),
        (Some(0), Some(e)) if e < 0 => Some(size.plus(&Dim::from(e))),
        // A fixed table cut to a symbolic length: positions up to the sequence's own.
        (Some(0), None) if size.known().is_some() => Some(end.clone()),
        _ => None,
    }
}

fn slice(i: &Infer<'_>) -> Option<Vec<Fact>> {
    let x = i.shape(0)?;
    let unknown = || one(i.dtype(0), Some((0..x.len()).map(|k| i.unknown(k)).collect()));
    let (Some(starts), Some(ends)) = (i.elements(1), i.elements(2)) else { return unknown() };
    let axes = if i.has(3) { i.numbers(3) } else { Some((0..starts.len() as i64).collect()) };
    let steps = if i.has(4) { i.numbers(4) } else { Some(vec![1; starts.len()]) };
    let (Some(axes), Some(steps)) = (axes, steps) else { return unknown() };
    let mut out = x.clone();
    for (k, axis) in axes.iter().enumerate() {
        let (a, step) = (i.axis(*axis, x.len())?, *steps.get(k)?);
        if step == 0 {
            return None;
        }
        out[a] = sliced(&x[a], starts.get(k)?, ends.get(k)?, step).unwrap_or_else(|| i.unknown(a));
    }
    // Of a matrix only whole rows are taken.
    let elements = (|| {
        let e = i.all_elements(0).filter(|_| x.len() == 1 || axes == [0])?;
        let (rows, n) = (x.first()?.known()?, out.first()?.known()?);
        let (s, step) = (starts.first()?.known()?, *steps.first()?);
        // The lowest number stands for the front, as exporters write it.
        let s = if s < 0 { s.saturating_add(rows).max(0) } else { s.min(rows - i64::from(step < 0)) };
        let row = e.len().checked_div(usize::try_from(rows).ok()?)?;
        let at = |k: i64| usize::try_from(k.checked_mul(step)?.checked_add(s)?).ok()?.checked_mul(row);
        let taken = (0..n).map(|k| e.get(at(k)?..at(k)?.checked_add(row)?)).collect::<Option<Vec<_>>>()?;
        Some(taken.concat())
    })();
    Some(vec![Fact { dtype: i.dtype(0), shape: Some(out), elements }])
}

fn gather(i: &Infer<'_>) -> Option<Vec<Fact>> {
    let (x, at) = (i.shape(0)?, i.shape(1)?);
    let axis = i.axis(i.node.int("axis", 0), x.len())?;
    let out: Shape = x[..axis].iter().chain(at).chain(&x[axis + 1..]).cloned().collect();
    let elements: Option<Vec<Dim>> = (|| {
        let (e, at) = (i.elements(0)?, i.numbers(1)?);
        at.iter().map(|k| e.get(i.axis(*k, e.len())?).cloned()).collect()
    })();
    let elements = elements.filter(|_| out.len() <= 1);
    Some(vec![Fact { dtype: i.dtype(0), shape: Some(out), elements }])
}

fn gather_nd(i: &Infer<'_>) -> Option<Vec<Fact>> {
    let (x, at) = (i.shape(0)?, i.shape(1)?);
    let batch = usize::try_from(i.node.int("batch_dims", 0)).ok()?;
    let depth = usize::try_from(at.last()?.known()?).ok()?;
    let rest = x.get(batch.checked_add(depth)?..)?;
    one(i.dtype(0), Some(at[..at.len() - 1].iter().chain(rest).cloned().collect()))
}

fn pad(i: &Infer<'_>) -> Option<Vec<Fact>> {
    let x = i.shape(0)?;
    let axes = if i.has(3) { i.numbers(3) } else { Some((0..x.len() as i64).collect()) };
    let (Some(pads), Some(axes)) = (i.elements(1), axes) else {
        return one(i.dtype(0), Some((0..x.len()).map(|k| i.unknown(k)).collect()));
    };
    let mut out = x.clone();
    for (k, axis) in axes.iter().enumerate() {
        let a = i.axis(*axis, x.len())?;
        out[a] = out[a].plus(pads.get(k)?).plus(pads.get(k + axes.len())?);
    }
    one(i.dtype(0), Some(out))
}

fn tile(i: &Infer<'_>) -> Option<Vec<Fact>> {
    let x = i.shape(0)?;
    let Some(repeats) = i.elements(1) else {
        return one(i.dtype(0), Some((0..x.len()).map(|k| i.unknown(k)).collect()));
    };
    one(i.dtype(0), Some(x.iter().zip(repeats).map(|(d, r)| d.times(r)).collect()))
}
