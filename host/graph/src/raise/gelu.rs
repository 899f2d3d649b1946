//! Gelu as exporters write it out.

use super::{Found, Match, replaced};
use crate::ir::{Attr, Attrs, Node, ValueId};

/// `x · ½ · (1 + erf(x/√2))` in any order of the factors.
pub(super) fn exact(m: &Match<'_>, n: &Node) -> Found {
    replaced(n, "Gelu", &[half_of(m, n, erf_arm)?], Attrs::new())
}

/// `½ · x · (1 + tanh(√(2/π)·(x + 0.044715·x³)))` in any order of the factors, the cube as a power or as products
/// (Hendrycks & Gimpel 2016; GPT-2's `gelu_new`).
pub(super) fn tanh(m: &Match<'_>, n: &Node) -> Found {
    let attrs = Attrs::from([("approximate".into(), Attr::from("tanh"))]);
    replaced(n, "Gelu", &[half_of(m, n, tanh_arm)?], attrs)
}

/// The `x` of `½ · x · arm(x)`, where `arm` finds the `x` of the last factor.
fn half_of(m: &Match<'_>, n: &Node, arm: fn(&Match<'_>, ValueId) -> Option<ValueId>) -> Option<ValueId> {
    let mut factors = Vec::new();
    m.factors(n, 2, &mut factors);
    if factors.len() != 3 {
        return None;
    }
    let half = factors.iter().position(|v| m.is_number(*v, 0.5))?;
    factors.remove(half);
    let (x, other) = match (arm(m, factors[0]), arm(m, factors[1])) {
        (Some(x), _) => (x, factors[1]),
        (_, Some(x)) => (x, factors[0]),
        _ => return None,
    };
    (x == other).then_some(x)
}

/// The `x` of `1 + erf(x/√2)`.
fn erf_arm(m: &Match<'_>, v: ValueId) -> Option<ValueId> {
    let add = m.maker_of(v, "Add")?;
    let (erf, one) = m.either(add, |v| m.maker_of(v, "Erf").cloned())?;
    if !m.is_number(one, 1.0) {
        return None;
    }
    let inner = m.maker(erf.input(0)?)?;
    match inner.op.as_str() {
        "Div" if m.is_number(inner.input(1)?, std::f64::consts::SQRT_2) => inner.input(0),
        "Mul" => {
            let root = std::f64::consts::FRAC_1_SQRT_2;
            m.either(inner, |v| m.is_number(v, root).then_some(())).map(|(_, x)| x)
        }
        _ => None,
    }
}

/// The `x` of `1 + tanh(√(2/π)·(x + 0.044715·x³))`.
fn tanh_arm(m: &Match<'_>, v: ValueId) -> Option<ValueId> {
    let add = m.maker_of(v, "Add")?;
    let (tanh, one) = m.either(add, |v| m.maker_of(v, "Tanh").cloned())?;
    let scaled = m.maker_of(tanh.input(0)?, "Mul").filter(|_| m.is_number(one, 1.0))?;
    let root = (2.0 / std::f64::consts::PI).sqrt();
    let ((), sum) = m.either(scaled, |v| m.is_number(v, root).then_some(()))?;
    let sum = m.maker_of(sum, "Add")?;
    let (a, b) = (sum.input(0)?, sum.input(1)?);
    [(a, b), (b, a)].into_iter().find_map(|(x, cubic)| is_cubic(m, cubic, x).then_some(x))
}

/// True where `v` is `0.044715·x³`.
fn is_cubic(m: &Match<'_>, v: ValueId, x: ValueId) -> bool {
    let mut factors = Vec::new();
    let Some(product) = m.maker_of(v, "Mul") else { return false };
    m.factors(product, 3, &mut factors);
    let Some(c) = factors.iter().position(|v| m.is_number(*v, 0.044_715)) else { return false };
    factors.remove(c);
    let power = |v: ValueId| {
        if v == x {
            return 1;
        }
        let pow = m.maker_of(v, "Pow").filter(|p| p.input(0) == Some(x));
        match pow.and_then(|p| m.number(p.input(1)?)) {
            Some(3.0) => 3,
            Some(2.0) => 2,
            _ => 100,
        }
    };
    factors.into_iter().map(power).sum::<i32>() == 3
}
