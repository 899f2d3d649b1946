//! Products of matrices.

use super::elementwise::broadcast;
use super::level::Level;
use super::state::{Axis, State, Tag};
use super::{Rule, Step};

pub(super) const RULES: &[(&str, Rule)] = &[("MatMul", matmul), ("Gemm", gemm), ("Einsum", einsum)];

/// What stays of the level of padded rows of an operand: zeros.
fn outer(axis: &Axis, zeros_stay: bool, level: Level) -> Axis {
    axis.with_pads(&|_, pad| match pad {
        Level::Number(0.0) if zeros_stay && level.is_tame() => Level::Number(0.0),
        _ => level,
    })
}

/// Sums over an axis of `a` against one of `b`. Padded positions that weigh exactly nothing do not come through.
fn contract(step: &Step<'_>, out: &mut State, a: (&State, &Axis), b: (&State, &Axis)) {
    let pad = |x: &Axis| match x.tag {
        Tag::Seq(n, pad) => Some((n, pad)),
        _ => None,
    };
    let (p, q) = (pad(a.1), pad(b.1));
    let fits = match (p, q) {
        (Some((n, _)), Some((m, _))) => n == m,
        (Some(_), None) => matches!(b.1.tag, Tag::Same),
        (None, Some(_)) => matches!(a.1.tag, Tag::Same),
        (None, None) => false,
    };
    let zero = |x: Option<(usize, Level)>| matches!(x, Some((_, Level::Number(0.0))));
    if fits && (zero(p) && b.0.all.is_tame() || zero(q) && a.0.all.is_tame()) {
        return;
    }
    step.consume(out, a.1);
    step.consume(out, b.1);
}

fn product(a: &State, b: &State) -> Level {
    if a.all.is_tame() && b.all.is_tame() { Level::Tame } else { Level::Any }
}

fn matmul(step: &Step<'_>) -> Option<Vec<State>> {
    let (a, b) = (step.state(0)?, step.state(1)?);
    let (x, y) = (a.axes.as_deref()?, b.axes.as_deref()?);
    let level = product(a, b);
    let mut out = step.join(&[0, 1])?.level(level);
    let (last, left) = x.split_last()?;
    let (inner, right, behind) = match y {
        [k] => (k, &y[..0], None),
        [right @ .., k, n] => (k, right, Some(n)),
        [] => return None,
    };
    let (middle, left) = match left.split_last() {
        Some((m, l)) => (Some(m), l),
        None => (None, left),
    };
    contract(step, &mut out, (a, last), (b, inner));
    let part = |s: &State, axes: &[Axis]| State { axes: Some(axes.to_vec()), ..s.clone() };
    let mut axes = match (left.is_empty(), right.is_empty()) {
        (true, true) => Vec::new(),
        _ => broadcast(step, &[&part(a, left), &part(b, right)], &mut out)?,
    };
    axes.iter_mut().for_each(|a| *a = outer(a, false, level));
    axes.extend(middle.into_iter().chain(behind).map(|a| outer(a, true, level)));
    out.axes = Some(axes);
    Some(vec![out])
}

fn gemm(step: &Step<'_>) -> Option<Vec<State>> {
    let (a, b) = (step.state(0)?, step.state(1)?);
    let (Some([a0, a1]), Some([b0, b1])) = (a.axes.as_deref(), b.axes.as_deref()) else { return None };
    let (m, k) = if step.node.int("transA", 0) == 0 { (a0, a1) } else { (a1, a0) };
    let (l, n) = if step.node.int("transB", 0) == 0 { (b0, b1) } else { (b1, b0) };
    let level = product(a, b);
    let mut out = step.join(&[0, 1, 2])?;
    contract(step, &mut out, (a, k), (b, l));
    let mut sum = State::free(Some(vec![outer(m, false, level), outer(n, false, level)])).level(level);
    if step.has(2) {
        let axes = broadcast(step, &[&sum, step.state(2)?], &mut out)?;
        let level = if step.state(2)?.all.is_tame() { level } else { Level::Any };
        sum = State::free(Some(axes)).level(level);
        sum.relevel(&|_| level);
    }
    out.axes = sum.axes;
    Some(vec![out.level(sum.all)])
}

/// Products written with letters: a letter of the result lines its axes up, any other is summed over.
fn einsum(step: &Step<'_>) -> Option<Vec<State>> {
    let text: String = step.node.text("equation")?.chars().filter(|c| !c.is_whitespace()).collect();
    let (left, right) = text.split_once("->").filter(|_| !text.contains('.'))?;
    let terms: Vec<Vec<char>> = left.split(',').map(|t| t.chars().collect()).collect();
    let n = step.node.inputs.len();
    let states: Vec<&State> = (0..n).map(|i| step.state(i)).collect::<Option<_>>()?;
    let axes: Vec<&[Axis]> = states.iter().map(|s| s.axes.as_deref()).collect::<Option<_>>()?;
    let fits = terms.len() == n && terms.iter().zip(&axes).all(|(t, a)| t.len() == a.len());
    let diagonal = terms.iter().any(|t| t.iter().enumerate().any(|(k, c)| t[..k].contains(c)));
    if !fits || diagonal {
        return None;
    }
    let level = if states.iter().all(|s| s.all.is_tame()) { Level::Tame } else { Level::Any };
    let mut out = step.join(&(0..n).collect::<Vec<_>>())?.level(level);
    let with = |c: char| {
        let of =
            |(k, t): (usize, &Vec<char>)| t.iter().position(|d| *d == c).map(|i| (states[k], &axes[k][i]));
        terms.iter().enumerate().filter_map(of).collect::<Vec<_>>()
    };
    let mut summed: Vec<char> = terms.concat();
    summed.sort_unstable();
    summed.dedup();
    for c in summed.into_iter().filter(|c| !right.contains(*c)) {
        match with(c).as_slice() {
            [a, b] if n == 2 => contract(step, &mut out, *a, *b),
            all => all.iter().for_each(|(_, a)| step.consume(&mut out, a)),
        }
    }
    let line = |c: char| {
        let single: Vec<State> =
            with(c).into_iter().map(|(s, a)| State { axes: Some(vec![a.clone()]), ..s.clone() }).collect();
        single
    };
    let mut new = Vec::new();
    for c in right.chars() {
        let single = line(c);
        let met = broadcast(step, &single.iter().collect::<Vec<_>>(), &mut out)?;
        new.extend(met.iter().map(|a| outer(a, false, level)));
    }
    out.axes = Some(new);
    Some(vec![out])
}
