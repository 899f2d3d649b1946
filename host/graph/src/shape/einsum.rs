//! Shapes of Einsum, and what its equations say.

use std::collections::BTreeMap;

use super::{Infer, Rule, one};
use crate::dim::{Dim, broadcast_dim};
use crate::ir::Fact;

pub(super) const RULES: &[(&str, Rule)] = &[("Einsum", einsum)];

/// The letters that an equation may use.
pub(crate) fn alphabet() -> impl Iterator<Item = char> {
    ('a'..='z').chain('A'..='Z')
}

/// An equation with a letter for every axis: those of an ellipsis have letters that the equation does not use.
#[derive(Debug, PartialEq)]
pub(crate) struct Equation {
    /// The axes of each operand.
    pub(crate) terms: Vec<Vec<char>>,
    /// The axes of the result.
    pub(crate) output: Vec<char>,
}

/// One operand or the result as written: letters before and after an ellipsis, which may be absent.
struct Term {
    before: Vec<char>,
    after: Option<Vec<char>>,
}

impl Term {
    fn parse(text: &str) -> Result<Term, String> {
        let letters = |s: &str| match s.chars().all(|c| c.is_ascii_alphabetic()) {
            true => Ok(s.chars().collect::<Vec<_>>()),
            false => Err(format!("'{text}' in the equation is no list of letters")),
        };
        Ok(match text.split_once("...") {
            Some((before, after)) => Term { before: letters(before)?, after: Some(letters(after)?) },
            None => Term { before: letters(text)?, after: None },
        })
    }

    fn letters(&self) -> impl Iterator<Item = &char> {
        self.before.iter().chain(self.after.iter().flatten())
    }

    /// With the last `n` letters of `ellipsis` in its place.
    fn written_out(&self, ellipsis: &[char], n: usize) -> Vec<char> {
        let Some(after) = &self.after else { return self.before.clone() };
        let middle = &ellipsis[ellipsis.len().saturating_sub(n)..];
        self.before.iter().chain(middle).chain(after).copied().collect()
    }
}

impl Equation {
    /// Reads an equation of operands of these ranks.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(equation: &str, ranks: &[usize]) -> Result<Equation, String> {
        let text: String = equation.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        let (left, right) = match text.split_once("->") {
            Some((left, right)) => (left, Some(right)),
            None => (text.as_str(), None),
        };
        let terms: Vec<Term> = left.split(',').map(Term::parse).collect::<Result<_, _>>()?;
        if terms.len() != ranks.len() {
            return Err(format!("the equation '{text}' has {} operands, not {}", terms.len(), ranks.len()));
        }
        let mut hidden = Vec::with_capacity(terms.len());
        for (term, rank) in terms.iter().zip(ranks) {
            let over = rank.checked_sub(term.letters().count()).filter(|n| *n == 0 || term.after.is_some());
            hidden.push(
                over.ok_or_else(|| format!("the equation '{text}' does not fit an operand of rank {rank}"))?,
            );
        }
        let widest = hidden.iter().copied().max().unwrap_or(0);
        let ellipsis: Vec<char> = alphabet().filter(|c| !text.contains(*c)).take(widest).collect();
        if ellipsis.len() < widest {
            return Err("the equation has more axes than there are letters".into());
        }
        let spelled = terms.iter().zip(&hidden).map(|(t, n)| t.written_out(&ellipsis, *n)).collect();
        let output = match right {
            Some(right) => Term::parse(right)?,
            None => implicit(&terms)?,
        };
        if output.after.is_none() && widest > 0 {
            return Err("an ellipsis that the output lacks is not derived".into());
        }
        let output = output.written_out(&ellipsis, widest);
        let made = Equation { terms: spelled, output };
        for (k, c) in made.output.iter().enumerate() {
            if made.output[..k].contains(c) || !made.terms.iter().any(|t| t.contains(c)) {
                return Err(format!(
                    "'{c}' in the output of the equation '{text}' is there twice or in no operand"
                ));
            }
        }
        Ok(made)
    }
}

/// The result of an equation that names none: the ellipsis, then in order the letters that occur once.
fn implicit(terms: &[Term]) -> Result<Term, String> {
    let mut counts: BTreeMap<char, usize> = BTreeMap::new();
    terms.iter().flat_map(Term::letters).for_each(|c| *counts.entry(*c).or_default() += 1);
    let once: Vec<char> = counts.into_iter().filter(|(_, n)| *n == 1).map(|(c, _)| c).collect();
    if once.iter().any(char::is_ascii_uppercase) && once.iter().any(char::is_ascii_lowercase) {
        // Which of them come first differs between implementations.
        return Err("an equation of small and capital letters needs its output written out".into());
    }
    Ok(match terms.iter().any(|t| t.after.is_some()) {
        true => Term { before: Vec::new(), after: Some(once) },
        false => Term { before: once, after: None },
    })
}

fn einsum(i: &Infer<'_>) -> Option<Vec<Fact>> {
    let shapes: Vec<_> = (0..i.node.inputs.len()).map(|k| i.shape(k)).collect::<Option<_>>()?;
    let ranks: Vec<usize> = shapes.iter().map(|s| s.len()).collect();
    let equation = Equation::parse(i.node.text("equation")?, &ranks).ok()?;
    let mut sizes: BTreeMap<char, Dim> = BTreeMap::new();
    for (c, d) in equation.terms.iter().flatten().zip(shapes.into_iter().flatten()) {
        let size = match sizes.get(c) {
            Some(known) => broadcast_dim(known, d)?,
            None => d.clone(),
        };
        sizes.insert(*c, size);
    }
    one(i.dtype(0), equation.output.iter().map(|c| sizes.get(c).cloned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spelled(equation: &str, ranks: &[usize]) -> String {
        let e = Equation::parse(equation, ranks).unwrap();
        let terms: Vec<String> = e.terms.iter().map(|t| t.iter().collect()).collect();
        format!("{}->{}", terms.join(","), e.output.iter().collect::<String>())
    }

    #[test]
    fn every_axis_has_a_letter() {
        assert_eq!(spelled(" bij , bjk -> bik ", &[3, 3]), "bij,bjk->bik");
        assert_eq!(spelled("ij,jk", &[2, 2]), "ij,jk->ik");
        assert_eq!(spelled("ba", &[2]), "ba->ab");
        assert_eq!(spelled("...ij,...jk->...ik", &[4, 3]), "abij,bjk->abik");
        assert_eq!(spelled("a...,...", &[2, 0]), "ab,->ba");
        assert_eq!(spelled(",i->", &[0, 1]), ",i->");
    }

    #[test]
    fn what_is_no_equation_of_these_operands_is_refused() {
        let cases: [(&str, &[usize]); 9] = [
            ("ij,jk->ik", &[2]),
            ("ij->i", &[3]),
            ("...ij->...", &[1]),
            ("ij->ijk", &[2]),
            ("ij->ii", &[2]),
            ("i1->i", &[2]),
            ("a......b->ab", &[2]),
            ("...i->i", &[2]),
            ("aB", &[2]),
        ];
        for (equation, ranks) in cases {
            assert!(Equation::parse(equation, ranks).is_err(), "{equation}");
        }
        assert!(Equation::parse("...->...", &[60]).is_err());
    }
}
