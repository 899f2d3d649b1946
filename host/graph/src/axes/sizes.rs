//! Shapes as values, and what is made of sizes alone.

use super::level::Level;
use super::state::{Affine, Axis, State, Tag};
use super::{Rule, Step};
use crate::dim::Dim;
use crate::ir::Attr;
use crate::tensor::Tensor;

/// Elements up to which a constant is looked through for a regular order.
const MAX_REGULAR: usize = 4096;

pub(super) const RULES: &[(&str, Rule)] = &[
    ("Shape", size),
    ("Size", size),
    ("ConstantOfShape", constant_of_shape),
    ("Range", range),
    ("Constant", |_| None),
    ("EyeLike", |s| {
        let axes = s.out_shape(0)?.iter().map(|d| indexed(s, d)).collect();
        Some(vec![State::free(Some(axes)).level(Level::Tame)])
    }),
];

/// The state of a constant.
pub(super) fn constant(t: &Tensor) -> State {
    let dims: Vec<Dim> = t.shape().iter().map(|n| Dim::from(*n)).collect();
    let level = Level::of(t);
    let axis = |(k, d)| match matches!(level, Level::Number(_)) || repeats(t, k) {
        true => Axis::same(d),
        false => Axis::own(d),
    };
    let mut s = State::free(Some(dims.iter().enumerate().map(axis).collect())).level(level);
    s.affine = regular(t);
    s
}

/// True where a constant says the same again along axis `k`, as one that an exporter expanded does.
fn repeats(t: &Tensor, k: usize) -> bool {
    let (bits, n) = (t.dtype().bits(), t.shape()[k]);
    if t.is_empty() || n < 2 {
        return n == 1;
    }
    let inner: usize = t.shape()[k + 1..].iter().product();
    let width = bits / 8 * inner;
    if t.len() > MAX_REGULAR || !bits.is_multiple_of(8) || width == 0 {
        return false;
    }
    let bytes: &[u8] = t.bytes();
    bytes
        .chunks_exact(n * width)
        .all(|block| block.chunks_exact(width).all(|c| Some(c) == block.get(..width)))
}

/// The elements of a constant as a function of their place.
fn regular(t: &Tensor) -> Option<Affine> {
    if t.dtype().is_float() || t.is_empty() || t.len() > MAX_REGULAR {
        return None;
    }
    let numbers = t.to_i64s()?;
    let first = *numbers.first()?;
    let mut strides = vec![1usize; t.shape().len()];
    for k in (1..strides.len()).rev() {
        strides[k - 1] = strides[k].checked_mul(t.shape()[k])?;
    }
    let step = |k: usize| match t.shape()[k] {
        1 => Some(0),
        _ => numbers.get(strides[k])?.checked_sub(first),
    };
    let of: Vec<i64> = (0..strides.len()).map(step).collect::<Option<_>>()?;
    for (i, n) in numbers.iter().enumerate() {
        let mut want = first;
        for (k, s) in strides.iter().enumerate() {
            let place = i64::try_from(i / s % t.shape()[k]).ok()?;
            want = want.checked_add(of[k].checked_mul(place)?)?;
        }
        if want != *n {
            return None;
        }
    }
    Some(Affine { of: of.into_iter().map(Dim::from).collect(), plus: Dim::from(first) })
}

/// An axis along which elements differ by their place alone, the same however long the axis is.
pub(super) fn indexed(step: &Step<'_>, dim: &Dim) -> Axis {
    let tag = step.sequence(dim).map_or(Tag::Own, |n| Tag::Seq(n, Level::Tame));
    Axis::new(tag, dim.clone())
}

/// Sizes that are known are told by `finish`; others may hang on anything that the input hangs on.
fn size(step: &Step<'_>) -> Option<Vec<State>> {
    let mut out = step.join(&[0])?;
    out.rows = false;
    (out.batch_size, out.length) = (true, true);
    out.axes = step.out_shape(0).map(|s| s.iter().map(Axis::own).collect());
    Some(vec![out.level(Level::Tame)])
}

fn constant_of_shape(step: &Step<'_>) -> Option<Vec<State>> {
    let level = match step.node.attrs.get("value") {
        Some(Attr::Tensor(t)) => Level::of(t),
        _ => Level::Number(0.0),
    };
    let axes = step.out_shape(0)?.iter().map(Axis::same).collect();
    let mut out = State::free(Some(axes)).level(level);
    step.shaped_by(&mut out, &[0])?;
    Some(vec![out])
}

fn range(step: &Step<'_>) -> Option<Vec<State>> {
    let mut out = step.join(&[0, 2])?.level(Level::Tame);
    step.shaped_by(&mut out, &[1])?;
    let one = |i: usize| step.elements(i).and_then(|e| <[Dim; 1]>::try_from(e).ok()).map(|[d]| d);
    let dim = step.out_shape(0)?.first()?;
    let (start, delta) = (one(0), one(2));
    let plain = out.is_free() && start.is_some() && delta.is_some();
    out.axes = Some(vec![if plain { indexed(step, dim) } else { Axis::own(dim) }]);
    if let (Some(plus), Some(delta)) = (start, delta) {
        out.affine = Some(Affine { of: vec![delta], plus });
    }
    if !plain && step.sequence(dim).is_some() {
        out.length = true;
    }
    Some(vec![out])
}
