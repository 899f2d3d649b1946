//! Symbolic dimensions: polynomials with integer coefficients over named symbols.
//!
//! `batch`, `sequence`, `3*batch*sequence + 1`. Two dimensions are equal when their normal forms are; a dimension
//! that nothing is known of is a symbol of its own. Symbols stand for sizes and are never negative.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The dimensions of a tensor, outermost first.
pub type Shape = Vec<Dim>;

/// A product of symbols, sorted; empty for the constant term.
type Monomial = Vec<Arc<str>>;

/// Terms a dimension may grow to before it is replaced by an opaque symbol.
const MAX_TERMS: usize = 16;

/// A symbolic size.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Dim(BTreeMap<Monomial, i64>);

impl Dim {
    /// The size that is the symbol `name`.
    pub fn symbol(name: impl AsRef<str>) -> Dim {
        Dim(BTreeMap::from([(vec![Arc::from(name.as_ref())], 1)]))
    }

    /// The size as a number, if it has no symbols.
    pub fn known(&self) -> Option<i64> {
        match self.0.len() {
            0 => Some(0),
            1 => self.0.get(&Vec::new()).copied(),
            _ => None,
        }
    }

    /// True when the size is the number `n`.
    pub fn is(&self, n: i64) -> bool {
        self.known() == Some(n)
    }

    fn from_terms(mut terms: BTreeMap<Monomial, i64>) -> Dim {
        terms.retain(|_, c| *c != 0);
        let dim = Dim(terms);
        if dim.0.len() > MAX_TERMS { Dim::symbol(dim.to_string()) } else { dim }
    }

    /// Sum; on overflow an opaque symbol.
    pub fn plus(&self, other: &Dim) -> Dim {
        let mut terms = self.0.clone();
        for (m, c) in &other.0 {
            let t = terms.entry(m.clone()).or_insert(0);
            match t.checked_add(*c) {
                Some(s) => *t = s,
                None => return self.opaque("+", other),
            }
        }
        Dim::from_terms(terms)
    }

    /// Difference.
    pub fn minus(&self, other: &Dim) -> Dim {
        self.plus(&other.times(&Dim::from(-1)))
    }

    /// Product; on overflow an opaque symbol.
    pub fn times(&self, other: &Dim) -> Dim {
        let mut terms: BTreeMap<Monomial, i64> = BTreeMap::new();
        for (a, x) in &self.0 {
            for (b, y) in &other.0 {
                let mut m: Monomial = a.iter().chain(b).cloned().collect();
                m.sort();
                let t = terms.entry(m).or_insert(0);
                match x.checked_mul(*y).and_then(|p| t.checked_add(p)) {
                    Some(s) => *t = s,
                    None => return self.opaque("*", other),
                }
            }
        }
        Dim::from_terms(terms)
    }

    /// The quotient, where the division leaves no rest for any value of the symbols and the divisor is one term.
    pub fn divided_exactly(&self, by: &Dim) -> Option<Dim> {
        if self == by {
            return (!by.is(0)).then(|| Dim::from(1));
        }
        let (divisor, d) = match by.0.iter().next() {
            Some((m, c)) if by.0.len() == 1 => (m, *c),
            _ => return None,
        };
        let mut terms = BTreeMap::new();
        for (m, c) in &self.0 {
            let mut rest = m.clone();
            for s in divisor {
                rest.remove(rest.iter().position(|r| r == s)?);
            }
            if c.checked_rem(d)? != 0 {
                return None;
            }
            terms.insert(rest, c / d);
        }
        Some(Dim::from_terms(terms))
    }

    /// Floor division; an opaque symbol where the result is no polynomial.
    pub fn floor_div(&self, by: &Dim) -> Dim {
        match (self.known(), by.known()) {
            (Some(a), Some(b)) if b > 0 => Dim::from(a.div_euclid(b)),
            _ => self.divided_exactly(by).unwrap_or_else(|| self.opaque("/", by)),
        }
    }

    /// A symbol that stands for the expression `self op other`; equal expressions give equal symbols.
    pub fn opaque(&self, op: &str, other: &Dim) -> Dim {
        let text = format!("({self}){op}({other})");
        if text.len() <= 120 {
            return Dim::symbol(text);
        }
        let digest = text
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
        Dim::symbol(format!("expr_{digest:016x}"))
    }

    /// `Some(true)` when equal for all sizes, `Some(false)` when never equal, `None` when it depends.
    pub fn equals(&self, other: &Dim) -> Option<bool> {
        let difference = self.minus(other);
        if let Some(n) = difference.known() {
            return Some(n == 0);
        }
        let constant = difference.0.get(&Vec::new()).copied().unwrap_or(0);
        let mut symbolic = difference.0.iter().filter(|(m, _)| !m.is_empty()).map(|(_, c)| *c);
        // Symbols are sizes: a positive constant plus non-negative terms is never zero, and the other way round.
        let never =
            (constant > 0 && symbolic.clone().all(|c| c > 0)) || (constant < 0 && symbolic.all(|c| c < 0));
        never.then_some(false)
    }

    /// The symbols that occur.
    pub fn symbols(&self) -> impl Iterator<Item = &str> {
        self.0.keys().flatten().map(|s| &**s)
    }

    /// The symbol that this size is, if it is one and nothing else.
    pub fn as_symbol(&self) -> Option<&str> {
        let mut names = self.symbols();
        match (names.next(), names.next()) {
            (Some(name), None) if *self == Dim::symbol(name) => Some(name),
            _ => None,
        }
    }

    /// The same size with other names for some of its symbols.
    pub fn renamed(&self, name: &dyn Fn(&str) -> Option<String>) -> Dim {
        let one = |s: &Arc<str>| name(s).map_or_else(|| s.clone(), Arc::from);
        self.0.iter().fold(Dim::default(), |sum, (m, c)| {
            let mut m: Monomial = m.iter().map(one).collect();
            m.sort();
            sum.plus(&Dim(BTreeMap::from([(m, *c)])))
        })
    }

    /// The value under an assignment of the symbols; `None` where one is missing or the number overflows.
    pub fn evaluate(&self, of: &dyn Fn(&str) -> Option<i64>) -> Option<i64> {
        self.0.iter().try_fold(0i64, |sum, (m, c)| {
            let product = m.iter().try_fold(*c, |p, s| p.checked_mul(of(s)?))?;
            sum.checked_add(product)
        })
    }
}

impl From<i64> for Dim {
    fn from(n: i64) -> Dim {
        Dim::from_terms(BTreeMap::from([(Vec::new(), n)]))
    }
}

impl From<i32> for Dim {
    fn from(n: i32) -> Dim {
        Dim::from(i64::from(n))
    }
}

impl From<usize> for Dim {
    fn from(n: usize) -> Dim {
        Dim::from(i64::try_from(n).unwrap_or(i64::MAX))
    }
}

impl From<&str> for Dim {
    fn from(s: &str) -> Dim {
        Dim::symbol(s)
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("0");
        }
        let mut first = true;
        // Symbols first, the constant last, as one writes it.
        for (m, c) in self.0.iter().rev() {
            let sign = if *c < 0 { "-" } else { "+" };
            match (first, *c < 0) {
                (true, false) => {}
                (true, true) => f.write_str("-")?,
                (false, _) => write!(f, " {sign} ")?,
            }
            first = false;
            let size = c.unsigned_abs();
            if m.is_empty() {
                write!(f, "{size}")?;
            } else {
                if size != 1 {
                    write!(f, "{size}*")?;
                }
                f.write_str(&m.join("*"))?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// `[batch, sequence, 384]`, as messages and tables show a shape.
pub fn show(shape: &[Dim]) -> String {
    format!("[{}]", shape.iter().map(Dim::to_string).collect::<Vec<_>>().join(", "))
}

/// What broadcasting two dimensions gives (ONNX multidirectional broadcasting); `None` when they never match.
pub fn broadcast_dim(a: &Dim, b: &Dim) -> Option<Dim> {
    match (a.known(), b.known()) {
        (Some(1), _) => Some(b.clone()),
        (_, Some(1)) => Some(a.clone()),
        (Some(x), Some(y)) => (x == y).then(|| a.clone()),
        // A number other than 1 against a symbol: the symbol is 1 or that number, the result is the number.
        (Some(_), None) => Some(a.clone()),
        (None, Some(_)) => Some(b.clone()),
        (None, None) if a == b => Some(a.clone()),
        (None, None) => Some(a.min(b).opaque("bc", a.max(b))),
    }
}

/// The broadcast of two shapes; `None` when they do not match.
pub fn broadcast(a: &[Dim], b: &[Dim]) -> Option<Shape> {
    let rank = a.len().max(b.len());
    let one = Dim::from(1);
    let at = |s: &[Dim], i: usize| (i + s.len()).checked_sub(rank).map_or(one.clone(), |k| s[k].clone());
    (0..rank).map(|i| broadcast_dim(&at(a, i), &at(b, i))).collect()
}

/// The product of dimensions.
pub fn product<'a>(dims: impl IntoIterator<Item = &'a Dim>) -> Dim {
    dims.into_iter().fold(Dim::from(1), |p, d| p.times(d))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_divide_back() {
        let (b, s) = (Dim::from("batch"), Dim::from("seq"));
        let all = product([&b, &s, &Dim::from(384)]);
        assert_eq!(all.to_string(), "384*batch*seq");
        assert_eq!(all.divided_exactly(&b.times(&Dim::from(12))).unwrap().to_string(), "32*seq");
        assert_eq!(all.divided_exactly(&Dim::from(5)), None);
        assert_eq!(s.plus(&Dim::from(1)).divided_exactly(&s), None);
        assert_eq!(s.minus(&s).known(), Some(0));
    }

    #[test]
    fn sizes_are_never_negative() {
        assert_eq!(Dim::from("batch").equals(&Dim::from(-1)), Some(false));
        assert_eq!(Dim::from("batch").equals(&Dim::from(1)), None);
        assert_eq!(Dim::from("b").equals(&Dim::from("b")), Some(true));
    }

    #[test]
    fn broadcasting_keeps_symbols() {
        let a = [Dim::from("b"), Dim::from(1), Dim::from(8)];
        let b = [Dim::from("s"), Dim::from(8)];
        assert_eq!(show(&broadcast(&a, &b).unwrap()), "[b, s, 8]");
        assert_eq!(broadcast(&[Dim::from(2)], &[Dim::from(3)]), None);
    }
}
