//! Bounds of elements: what a mask makes of positions that are padded.
//!
//! Weights and activations are taken to be finite and far smaller than [`LOW`]; what is not is found in constants.

/// What is added to a score is as good as minus infinity from here on: the exponential of it is exactly zero.
const LOW: f64 = -1e30;
/// Largest constant that is looked at; larger ones are weights.
const MAX_SCANNED: usize = 1 << 20;

use crate::tensor::{DType, Tensor};

/// What is known of elements.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Level {
    /// All are this number.
    Number(f64),
    /// All are finite and far above `LOW`.
    Tame,
    /// All are at most `LOW`.
    Low,
    /// Nothing.
    Any,
}

use Level::{Any, Low, Number, Tame};

impl Level {
    /// At most `LOW`, minus infinity included.
    pub(crate) fn is_low(self) -> bool {
        self == Low || matches!(self, Number(n) if n <= LOW)
    }

    /// Finite and of ordinary size.
    pub(crate) fn is_tame(self) -> bool {
        self == Tame || matches!(self, Number(n) if n.abs() < -LOW)
    }

    /// What holds of elements of either kind.
    pub(crate) fn or(self, other: Level) -> Level {
        match (self, other) {
            (a, b) if a == b => a,
            (a, b) if a.is_tame() && b.is_tame() => Tame,
            (a, b) if a.is_low() && b.is_low() => Low,
            _ => Any,
        }
    }

    /// Of sums and products of elements: tame ones stay tame.
    pub(crate) fn tamed(self) -> Level {
        if self.is_tame() { Tame } else { Any }
    }

    /// Of a constant.
    pub(crate) fn of(tensor: &Tensor) -> Level {
        if tensor.len() > MAX_SCANNED {
            return Tame;
        }
        let numbers =
            tensor.to_f64s().or_else(|| Some(tensor.to_i64s()?.iter().map(|n| *n as f64).collect()));
        let Some(numbers) = numbers else { return Any };
        let each = numbers.iter().map(|n| if n.is_nan() { Any } else { Number(*n) });
        each.reduce(Level::or).unwrap_or(Tame).known()
    }

    /// An infinite number above is nothing to count on.
    fn known(self) -> Level {
        match self {
            Number(n) if n.is_nan() || n >= -LOW => Any,
            l => l,
        }
    }
}

/// Small whole numbers are the same in every type that computes with them.
fn is_exact(n: f64) -> bool {
    n.fract() == 0.0 && n.abs() <= 16_777_216.0
}

fn truth(b: bool) -> Level {
    Number(f64::from(u8::from(b)))
}

/// The level of elements of level `a` as elements of another type.
pub(crate) fn cast(a: Level, to: DType) -> Level {
    match (to, a) {
        (DType::Bool, Number(n)) => truth(n != 0.0),
        (DType::Bool, _) => Tame,
        (to, a) if to.is_float() => a,
        (_, Number(n)) if is_exact(n) => a,
        (_, a) => a.tamed(),
    }
}

/// The level of what operator `op` makes of elements of these levels. `Any` for operators that are not known.
pub(crate) fn evaluate(op: &str, of: &[Level]) -> Level {
    match *of {
        [a] => unary(op, a).known(),
        [a, b] => binary(op, a, b).known(),
        [c, a, b] if op == "Where" => match c {
            Number(n) if n != 0.0 => a,
            Number(_) => b,
            _ => a.or(b),
        },
        [x, low, high] if op == "Clip" => binary("Min", binary("Max", x, low), high).known(),
        _ if of.iter().all(|l| l.is_tame()) => Tame,
        _ => Any,
    }
}

fn unary(op: &str, a: Level) -> Level {
    match (op, a) {
        ("Cast" | "CastLike" | "Identity" | "Max" | "Min" | "Sum" | "Mean" | "Clip", a) => a,
        ("Not", Number(n)) => truth(n == 0.0),
        ("IsNaN" | "IsInf", Number(n)) => {
            truth(op == "IsNaN" && n.is_nan() || op == "IsInf" && n.is_infinite())
        }
        ("Not" | "IsNaN" | "IsInf" | "Sigmoid" | "HardSigmoid" | "Tanh" | "Erf" | "Sign" | "Softsign", _) => {
            Tame
        }
        ("Log", Number(0.0)) => Low,
        ("Log" | "Reciprocal", _) if a == Number(0.0) || op == "Log" => Any,
        ("Neg", Number(n)) => Number(-n),
        ("Abs", Number(n)) => Number(n.abs()),
        ("Relu", Number(n)) => Number(n.max(0.0)),
        ("Exp", a) if a.is_low() => Number(0.0),
        ("Relu", a) if a.is_low() => Number(0.0),
        (_, a) => a.tamed(),
    }
}

fn binary(op: &str, a: Level, b: Level) -> Level {
    match (op, a, b) {
        ("And", Number(n), _) | ("And", _, Number(n)) if n == 0.0 => Number(0.0),
        ("Or", Number(n), _) | ("Or", _, Number(n)) if n != 0.0 => Number(1.0),
        (
            "And" | "Or" | "Xor" | "Equal" | "Less" | "LessOrEqual" | "Greater" | "GreaterOrEqual",
            Number(x),
            Number(y),
        ) => truth(match op {
            "And" => x != 0.0 && y != 0.0,
            "Or" => x != 0.0 || y != 0.0,
            "Xor" => (x != 0.0) != (y != 0.0),
            "Equal" => x == y,
            "Less" => x < y,
            "LessOrEqual" => x <= y,
            "Greater" => x > y,
            _ => x >= y,
        }),
        ("And" | "Or" | "Xor" | "Equal" | "Less" | "LessOrEqual" | "Greater" | "GreaterOrEqual", ..) => Tame,
        ("Add", Number(x), Number(y)) => Number(x + y),
        ("Sub", Number(x), Number(y)) => Number(x - y),
        ("Add", a, b) if (a.is_low() && (b.is_tame() || b.is_low())) || (b.is_low() && a.is_tame()) => Low,
        ("Sub", a, b) if a.is_low() && b.is_tame() => Low,
        ("Mul", Number(x), y) | ("Mul", y, Number(x)) if x == 0.0 && y != Any && y != Low => match y {
            Number(y) => Number(x * y),
            _ => Number(0.0),
        },
        ("Mul", Number(x), Number(y)) => Number(x * y),
        ("Mul", Number(x), y) | ("Mul", y, Number(x)) if x >= 1.0 && y.is_low() && x.is_finite() => Low,
        ("Div" | "Mod", _, Number(0.0)) => Any,
        ("Div", Number(x), Number(y)) if (x / y).fract() == 0.0 => Number(x / y),
        ("Max", Number(x), Number(y)) => Number(x.max(y)),
        ("Min", Number(x), Number(y)) => Number(x.min(y)),
        ("Max", a, b) if a.is_low() && b.is_low() => Low,
        ("Max", a, b) if (a.is_low() && b == Tame) || (b.is_low() && a == Tame) => Tame,
        ("Min", a, b) if a.is_low() && b != Any || b.is_low() && a != Any => Low,
        (_, a, b) if a.is_tame() && b.is_tame() => Tame,
        _ => Any,
    }
}
