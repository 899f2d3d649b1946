//! Operators that work element by element, broadcasting included.

use super::level::{Level, cast, evaluate};
use super::state::{Affine, Axis, State, Tag};
use super::{Rule, Step};
use crate::dim::Dim;
use crate::tensor::DType;

pub(super) const RULES: &[(&str, Rule)] = &[
    ("Add", each),
    ("Sub", each),
    ("Mul", each),
    ("Div", each),
    ("Mod", each),
    ("Max", each),
    ("Min", each),
    ("Pow", each),
    ("Sum", each),
    ("Mean", each),
    ("PRelu", each),
    ("BitShift", each),
    ("BitwiseAnd", each),
    ("BitwiseOr", each),
    ("BitwiseXor", each),
    ("BitwiseNot", each),
    ("Equal", each),
    ("Greater", each),
    ("GreaterOrEqual", each),
    ("Less", each),
    ("LessOrEqual", each),
    ("And", each),
    ("Or", each),
    ("Xor", each),
    ("Not", each),
    ("IsNaN", each),
    ("IsInf", each),
    ("Where", each),
    ("Clip", each),
    ("Cast", |s| along(s, &[0])),
    ("CastLike", |s| along(s, &[0])),
    ("Identity", |s| along(s, &[0])),
    ("Neg", each),
    ("Abs", each),
    ("Acos", each),
    ("Acosh", each),
    ("Asin", each),
    ("Asinh", each),
    ("Atan", each),
    ("Atanh", each),
    ("Ceil", each),
    ("Celu", each),
    ("Cos", each),
    ("Cosh", each),
    ("Elu", each),
    ("Erf", each),
    ("Exp", each),
    ("Floor", each),
    ("Gelu", each),
    ("HardSigmoid", each),
    ("HardSwish", each),
    ("LeakyRelu", each),
    ("Log", each),
    ("Mish", each),
    ("Reciprocal", each),
    ("Relu", each),
    ("Round", each),
    ("Selu", each),
    ("Shrink", each),
    ("Sigmoid", each),
    ("Sign", each),
    ("Sin", each),
    ("Sinh", each),
    ("Softplus", each),
    ("Softsign", each),
    ("Sqrt", each),
    ("Tan", each),
    ("Tanh", each),
    ("ThresholdedRelu", each),
];

fn each(step: &Step<'_>) -> Option<Vec<State>> {
    let inputs: Vec<usize> = (0..step.node.inputs.len()).filter(|i| step.has(*i)).collect();
    along(step, &inputs)
}

fn along(step: &Step<'_>, inputs: &[usize]) -> Option<Vec<State>> {
    let states: Vec<&State> = inputs.iter().map(|i| step.state(*i)).collect::<Option<_>>()?;
    let mut out = step.join(inputs)?;
    out.axes = Some(broadcast(step, &states, &mut out)?);
    let op = step.node.op.as_str();
    let of = |f: fn(&State) -> Level| evaluate(op, &states.iter().map(|s| f(s)).collect::<Vec<_>>());
    (out.all, out.kept, out.diagonal) = (of(|s| s.all), of(|s| s.kept), of(|s| s.diagonal));
    if op == "Cast" {
        let to = step.graph.dtype(step.node.output(0)?)?;
        out.relevel(&|l| cast(l, to));
    }
    compare(op, &states, &mut out);
    out.affine = affine(
        op,
        &states,
        out.axes.as_ref().map_or(0, Vec::len),
        step.node.output(0).and_then(|v| step.graph.dtype(v)),
    );
    Some(vec![out])
}

/// The axes of what `states` broadcast to. Where axes that do not fit together meet, `out` tells.
pub(super) fn broadcast(step: &Step<'_>, states: &[&State], out: &mut State) -> Option<Vec<Axis>> {
    let all: Vec<&[Axis]> = states.iter().map(|s| s.axes.as_deref()).collect::<Option<_>>()?;
    let rank = all.iter().map(|a| a.len()).max()?;
    (0..rank).map(|k| Some(meet(step, states, &all, k, rank, out))).collect()
}

fn meet(step: &Step<'_>, states: &[&State], all: &[&[Axis]], k: usize, rank: usize, out: &mut State) -> Axis {
    let at = |a: &'_ [Axis]| (k + a.len()).checked_sub(rank).and_then(|i| a.get(i).cloned());
    let axes: Vec<Option<Axis>> = all.iter().map(|a| at(a)).collect();
    let wide: Vec<&Axis> = axes.iter().flatten().filter(|a| !a.dim.is(1)).collect();
    let Some(first) = wide.iter().find(|a| a.has_batch() || a.has_seq()).or(wide.first()) else {
        return Axis::same(&Dim::from(1));
    };
    let plain = |a: &Axis| !a.has_batch() && !a.has_seq();
    if wide.iter().all(|a| plain(a)) {
        let same = wide.iter().all(|a| matches!(a.tag, Tag::Same));
        return if same { Axis::same(&first.dim) } else { Axis::own(&first.dim) };
    }
    // Where the length is fixed, what is at a place cannot hang on it.
    let fixed = matches!(first.tag, Tag::Seq(..)) && first.dim.known().is_some();
    let fits = |a: &Axis| match a.tag {
        Tag::Same => a.dim == first.dim,
        Tag::Own if fixed && a.dim == first.dim => true,
        _ => a.is_like(first),
    };
    if !wide.iter().all(|a| fits(a)) {
        let tag = wide.iter().fold(Tag::Own, |_, a| step.lose(out, a));
        return Axis::new(tag, first.dim.clone());
    }
    first.with_pads(&|part, _| {
        let of = |(axis, s): (&Option<Axis>, &&State)| match axis.as_ref().and_then(|a| a.parts().get(part)) {
            Some(Axis { tag: Tag::Seq(_, pad), .. }) => *pad,
            _ => s.all,
        };
        let levels: Vec<Level> = axes.iter().zip(states).map(of).collect();
        evaluate(&step.node.op, &levels)
    })
}

/// Comparisons of places: `0 <= j` holds everywhere, `j <= i` wherever both are the same position.
fn compare(op: &str, states: &[&State], out: &mut State) {
    let [a, b] = states else { return };
    let Some(axes) = &out.axes else { return };
    let (Some(x), Some(y)) = (spread(a, axes.len()), spread(b, axes.len())) else { return };
    let plus = x.plus.minus(&y.plus);
    let of: Vec<Dim> = x.of.iter().zip(&y.of).map(|(p, q)| p.minus(q)).collect();
    let holds = |least: bool, sign: Option<i64>| match (op, sign, least) {
        ("GreaterOrEqual", Some(s), true) if s >= 0 => Some(1.0),
        ("Greater", Some(s), true) if s > 0 => Some(1.0),
        ("Less", Some(s), true) if s >= 0 => Some(0.0),
        ("LessOrEqual", Some(s), true) if s > 0 => Some(0.0),
        ("GreaterOrEqual", Some(s), false) => Some(f64::from(s >= 0)),
        ("Greater", Some(s), false) => Some(f64::from(s > 0)),
        ("LessOrEqual", Some(s), false) => Some(f64::from(s <= 0)),
        ("Less", Some(s), false) => Some(f64::from(s < 0)),
        ("Equal", Some(s), false) => Some(f64::from(s == 0)),
        _ => None,
    };
    if of.iter().all(|d| d.known().is_some_and(|n| n >= 0))
        && let Some(n) = holds(true, plus.known())
    {
        let level = Level::Number(n);
        (out.all, out.kept, out.diagonal) = (level, level, level);
    }
    // Along axes of one sequence the place is the same, and along any other it must not matter.
    let mut sums: Vec<(usize, Dim)> = Vec::new();
    for (a, d) in axes.iter().zip(&of) {
        match a.tag {
            Tag::Seq(n, _) => match sums.iter_mut().find(|(m, _)| *m == n) {
                Some((_, sum)) => *sum = sum.plus(d),
                None => sums.push((n, d.clone())),
            },
            _ if d.is(0) => {}
            _ => return,
        }
    }
    if sums.iter().all(|(_, d)| d.is(0))
        && let Some(n) = holds(false, plus.known())
    {
        out.diagonal = Level::Number(n);
    }
}

/// The affine form of a state as an operand of `rank` axes.
fn spread(s: &State, rank: usize) -> Option<Affine> {
    let (a, axes) = (s.affine.as_ref()?, s.axes.as_deref()?);
    let mut of = vec![Dim::from(0); rank.checked_sub(axes.len())?];
    of.extend(a.of.iter().zip(axes).map(|(d, axis)| if axis.dim.is(1) { Dim::from(0) } else { d.clone() }));
    Some(Affine { of, plus: a.plus.clone() })
}

fn affine(op: &str, states: &[&State], rank: usize, to: Option<DType>) -> Option<Affine> {
    let first = spread(states.first()?, rank)?;
    let second = || spread(states.get(1)?, rank);
    let zip = |b: &Affine, f: fn(&Dim, &Dim) -> Dim| Affine {
        of: first.of.iter().zip(&b.of).map(|(x, y)| f(x, y)).collect(),
        plus: f(&first.plus, &b.plus),
    };
    let fixed = |a: &Affine| a.of.iter().all(|d| d.is(0));
    let scale = |a: &Affine, by: &Dim| Affine {
        of: a.of.iter().map(|d| d.times(by)).collect(),
        plus: a.plus.times(by),
    };
    match op {
        "Identity" => Some(first),
        "Cast" => {
            to.filter(|t| matches!(t, DType::I64 | DType::I32 | DType::F32 | DType::F64)).map(|_| first)
        }
        "Add" => Some(zip(&second()?, Dim::plus)),
        "Sub" => Some(zip(&second()?, Dim::minus)),
        "Mul" => match second()? {
            b if fixed(&b) => Some(scale(&first, &b.plus)),
            b if fixed(&first) => Some(scale(&b, &first.plus)),
            _ => None,
        },
        _ => None,
    }
}
