//! Tied weights: one parameter that a file holds more than once.
//!
//! Exporters write a matrix that has two uses (input and output embedding) a second time, often transposed.

use crate::ir::{Graph, ValueId};
use crate::tensor::Tensor;

/// Another copy of a matrix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Copy {
    /// The copy.
    pub value: ValueId,
    /// True where it is the transpose.
    pub transposed: bool,
}

/// The constants among `among` that hold the same matrix as `v`. A matrix of one number throughout is tied to none.
pub fn copies(graph: &Graph, v: ValueId, among: &[ValueId]) -> Vec<Copy> {
    let matrix = |v: ValueId| graph.constant(v).filter(|t| t.shape().len() == 2 && t.dtype().is_float());
    let Some(t) = matrix(v).filter(|t| !is_uniform(t)) else { return Vec::new() };
    let tie = |other: &ValueId| {
        let o = matrix(*other).filter(|o| *other != v && o.dtype() == t.dtype())?;
        if o.shape() == t.shape() && o.bytes() == t.bytes() {
            return Some(Copy { value: *other, transposed: false });
        }
        is_transpose(t, o).then_some(Copy { value: *other, transposed: true })
    };
    among.iter().filter_map(tie).collect()
}

/// Every matrix of the graph that is there more than once, with its copies; each group once.
pub fn groups(graph: &Graph) -> Vec<(ValueId, Vec<Copy>)> {
    let all: Vec<ValueId> = graph.constants().map(|(v, _)| v).collect();
    let mut seen = std::collections::HashSet::new();
    let mut found = Vec::new();
    for (i, v) in all.iter().enumerate() {
        if seen.contains(v) {
            continue;
        }
        let same = copies(graph, *v, &all[i + 1..]);
        seen.extend(same.iter().map(|c| c.value));
        if !same.is_empty() {
            found.push((*v, same));
        }
    }
    found
}

fn is_uniform(t: &Tensor) -> bool {
    let size = (t.dtype().bits() / 8).max(1);
    let mut elements = t.bytes().chunks(size);
    let first = elements.next();
    elements.all(|e| Some(e) == first)
}

fn is_transpose(a: &Tensor, b: &Tensor) -> bool {
    let (rows, columns, size) = (a.shape()[0], a.shape()[1], a.dtype().bits() / 8);
    b.shape() == [columns, rows]
        && (0..rows).all(|i| {
            (0..columns).all(|j| {
                let (p, q) = ((i * columns + j) * size, (j * rows + i) * size);
                a.bytes()[p..p + size] == b.bytes()[q..q + size]
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_and_transposes_are_found_and_matrices_of_one_number_are_not() {
        let mut g = Graph::new("g", 20);
        let mut add = |name: &str, shape: [usize; 2], v: &[f32]| {
            g.add_constant(name, Tensor::new(shape.to_vec(), v).expect("it fits"))
        };
        let a = add("a", [2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let t = add("t", [3, 2], &[1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
        add("other", [3, 2], &[1.0, 4.0, 2.0, 5.0, 3.0, 7.0]);
        let same = add("same", [2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        add("ones", [2, 2], &[1.0; 4]);
        add("more ones", [2, 2], &[1.0; 4]);
        let copies = vec![Copy { value: t, transposed: true }, Copy { value: same, transposed: false }];
        assert_eq!(groups(&g), vec![(a, copies)]);
    }
}
