//! Shapes of recurrent operators.

use super::{Infer, Rule};
use crate::dim::{Dim, Shape};
use crate::ir::Fact;

pub(super) const RULES: &[(&str, Rule)] = &[("GRU", |i| recurrent(i, 2)), ("LSTM", |i| recurrent(i, 3))];

/// All states, the last one, and with three outputs the last cell state.
fn recurrent(i: &Infer<'_>, outputs: usize) -> Option<Vec<Fact>> {
    let [first, second] = i.shape(0)?.get(..2)? else { return None };
    let directions = match i.node.text("direction").unwrap_or("forward") {
        "forward" | "reverse" => &Dim::from(1),
        "bidirectional" => &Dim::from(2),
        _ => return None,
    };
    let hidden = match i.node.int("hidden_size", 0) {
        0 => i.shape(2)?.get(2)?,
        n => &Dim::from(n),
    };
    // Steps before rows, or rows before steps.
    let (all, last) = match i.node.int("layout", 0) {
        0 => ([first, directions, second, hidden], [directions, second, hidden]),
        _ => ([first, second, directions, hidden], [first, directions, hidden]),
    };
    let fact = |dims: &[&Dim]| Fact {
        dtype: i.dtype(0),
        shape: Some(dims.iter().map(|d| (*d).clone()).collect::<Shape>()),
        elements: None,
    };
    let mut facts = vec![fact(&all)];
    facts.resize(outputs, fact(&last));
    Some(facts)
}
